"""Whether two photos are one by their pixels: re-encoded, resized or cropped by a few hundredths, otherwise the same.

Both comparisons ask whether a small shift and stretch along each axis (a crop at equal size) leaves nothing but noise.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from mask_lib.data.hashes import grey_photo

SIDE = 64  # pixels, of the photos that are aligned
MARGIN = 3  # pixels at each edge that are not compared: a crop of one photo shows nothing there
BLUR = 1.0  # pixels, of a Gaussian; finer detail is what an encoder takes away
STEPS = 5  # of the alignment; the third hardly moves a copy any more
FARTHEST = 0.06  # share of a side that the alignment may move an edge by
MOST_UNLIKE = 2.5  # grey levels left in 16 x 16 pixels to be looked at more closely; crops of 2 % leave up to 1.5
# The most that a copy shows. Crops of 2 % off each edge, halved and written with quality 60, leave a residual of up
# to 1.4; the most alike photos of one person that are none leave 2.0 (painted, and caught by the next lines) and 2.6
# (real).
MOST_RESIDUAL = 2.0  # grey levels
MOST_RESIDUAL_SHARE = 0.08  # of the photo's own contrast, for dull photos
MOST_CROPPED = 0.03  # share of a side, off each edge
MOST_BRIGHTER = 1.5  # grey levels; encoders keep the mean to a few tenths
MOST_CONTRAST = 0.06  # share; the blur of a resize takes up to 0.04 away


def read_grey(paths: Sequence[Path]) -> np.ndarray:
    """(N, 64, 64) float32: photo files in grey, stretched to a square, blurred a little."""

    def read_one(path: Path) -> np.ndarray:
        return np.asarray(grey_photo(path, SIDE).resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor() as pool:
        return blurred(np.stack(list(pool.map(read_one, paths))))


def blurred(photos: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 as float32, each blurred a little."""
    return gaussian_filter(photos.astype(np.float32), (0, BLUR, BLUR), mode="nearest")


def positions(side: int) -> np.ndarray:
    """(side,) the middle of each pixel, -1 … 1 over the side."""
    return (np.arange(side) - (side - 1) / 2) / (side / 2)


def without_margin(photos: np.ndarray, margin: int) -> np.ndarray:
    """(…, H, W) without the margin, flat: (…, K)."""
    return photos[..., margin:-margin, margin:-margin].reshape(*photos.shape[:-2], -1)


def slopes(photos: np.ndarray) -> np.ndarray:
    """(N, 4, H, W): the derivatives of (N, H, W) by a shift and a stretch along x, then along y."""
    side = photos.shape[1]
    along_y, along_x = (gradient * (side / 2) for gradient in np.gradient(photos, axis=(1, 2)))
    position = positions(side).astype(photos.dtype)
    return np.stack([along_x, along_x * position, along_y, along_y * position[:, None]], axis=1)


def is_alike(small: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) bool: which pairs of rows may be copies by (N, 16, 16) float32 blurred photos; quick, misses none.

    `rows` must be sorted. To first order a shifted, stretched, brighter or duller photo is the photo plus what its
    tangents span. What is left of the other photo after its projection on them no such change explains: the tangent
    distance of Simard, LeCun and Denker, 1993.
    """
    if not len(rows):
        return np.zeros(0, bool)
    present, starts = np.unique(rows, return_index=True)  # the tangents of these alone are held in memory
    some, found, flat = small[present], [], without_margin(small, 1)
    tangents = np.concatenate([np.stack([np.ones_like(some), some], axis=1), slopes(some)], axis=1)
    bases = np.linalg.qr(without_margin(tangents, 1).transpose(0, 2, 1))[0].astype(np.float32)  # (n, 196, 6)
    for basis, partners in zip(bases, np.split(others, starts[1:]), strict=True):
        other = flat[partners]  # (k, 196)
        left = (other**2).sum(axis=1) - ((other @ basis) ** 2).sum(axis=1)  # the basis is orthonormal
        found.append(left <= MOST_UNLIKE**2 * other.shape[1])
    return np.concatenate(found)


def residuals(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """What two blurred photos, (N, 64, 64) float32 each, differ in once the first is aligned with the second.

    Shift, stretch and change of light are found by Gauss-Newton steps, as Lucas and Kanade, 1981, do. Gives (N,) each:
    `residual` (root mean square, grey levels), `contrast` (the standard deviation), `cropped` (the farthest that an
    edge moved, a share of the side), `brighter` (difference of the means, grey levels) and `gain` (of contrast).
    """
    target = without_margin(second, MARGIN)
    moves = np.zeros((len(first), 4))
    light = np.stack([target, np.ones_like(target)], axis=1)
    for _ in range(STEPS):
        aligned = resampled(first, moves)
        error = without_margin(aligned, MARGIN) - target
        causes = np.concatenate([without_margin(slopes(aligned), MARGIN), light], axis=1)  # (N, 6, K)
        normal = causes @ causes.transpose(0, 2, 1) + 1e-3 * np.eye(6)  # a photo of one colour has no slopes
        step = np.linalg.solve(normal, causes @ error[:, :, None])[:, :4, 0]
        moves = np.clip(moves - step, -FARTHEST, FARTHEST)
    shift, stretch = np.abs(moves[:, ::2]), np.abs(moves[:, 1::2])
    aligned = without_margin(resampled(first, moves), MARGIN)
    means = aligned.mean(axis=1), target.mean(axis=1)
    aligned, target = aligned - means[0][:, None], target - means[1][:, None]
    gain = (aligned * target).sum(axis=1) / np.maximum((target**2).sum(axis=1), 1e-6)
    return {
        "residual": np.sqrt(((aligned - gain[:, None] * target) ** 2).mean(axis=1)),
        "contrast": np.sqrt((target**2).mean(axis=1)),
        "cropped": (shift + stretch).max(axis=1) / 2,  # positions -1 … 1: 2 is a whole side
        "brighter": np.abs(means[0] - means[1]),
        "gain": gain,
    }


def resampled(photos: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(N, 64, 64) photos sampled anew, moved by (N, 4): shift and stretch along x, then along y."""
    across, down = sampling(moves[:, 0], moves[:, 1]), sampling(moves[:, 2], moves[:, 3])
    return down @ photos @ across.transpose(0, 2, 1)


def sampling(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """(N, 64, 64) float32 weights of the cubic resampling (Keys, 1981) of one axis, moved by (N,) and (N,)."""
    wanted = positions(SIDE)[None] * (1 + stretch[:, None]) + shift[:, None]  # (N, 64)
    pixel = np.clip(wanted * (SIDE / 2) + (SIDE - 1) / 2, 0, SIDE - 1)
    away = np.abs(pixel[:, :, None] - np.arange(SIDE)).astype(np.float32)
    inner, outer = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    weights = np.where(away < 1, inner, np.where(away < 2, outer, 0))
    return weights / weights.sum(axis=2, keepdims=True)  # at the border some neighbours are missing


def is_copy(figures: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: whether pairs with these `residuals` are one photo."""
    return (
        (figures["residual"] <= MOST_RESIDUAL)
        & (figures["residual"] <= MOST_RESIDUAL_SHARE * figures["contrast"])
        & (figures["cropped"] <= MOST_CROPPED)
        & (figures["brighter"] <= MOST_BRIGHTER)
        & (np.abs(figures["gain"] - 1) <= MOST_CONTRAST)
    )
