"""Whether two photos are one: re-encoded, resized or cropped by a few hundredths, but otherwise the same.

Both looks at the pixels ask the same: is there a small shift and stretch along each axis (what a crop
is, once both photos are brought to one size) after which nothing is left but noise? Another photo of
the same person leaves a turned head, another mask or another light.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from mask_lib import hashes

SIDE = 64  # pixels, of the photos that are laid on each other
MARGIN = 3  # pixels at each edge that are not compared: a crop of one photo shows nothing there
BLUR = 1.0  # pixels, of a Gaussian; finer detail is what an encoder takes away
STEPS = 5  # of the alignment; the third hardly moves a copy any more
FARTHEST = 0.06  # share of a side that the alignment may move an edge by
MOST_UNLIKE = 2.5  # grey levels left in 16 x 16 pixels to be looked at more closely; crops of 2 % leave up to 1.5
# The most that a copy shows. Crops of 2 % off each edge, halved and written with quality 60, leave a residual
# of up to 1.4; the most alike photos of one person that are none leave 2.0 (painted, and caught by the next
# lines) and 2.6 (real).
MOST_RESIDUAL = 2.0  # grey levels
MOST_RESIDUAL_SHARE = 0.08  # of the photo's own contrast, for dull photos
MOST_CROPPED = 0.03  # share of a side, off each edge
MOST_BRIGHTER = 1.5  # grey levels; encoders keep the mean to a few tenths
MOST_CONTRAST = 0.06  # share; the blur of a resize takes up to 0.04 away


def places(side: int) -> np.ndarray:
    """(side,) the middle of each pixel, -1 … 1 over the side."""
    return (np.arange(side) - (side - 1) / 2) / (side / 2)


def inside(pictures: np.ndarray, margin: int) -> np.ndarray:
    """(N, H, W) without the margin, flat: (N, K)."""
    return pictures[:, margin:-margin, margin:-margin].reshape(len(pictures), -1)


def softened(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 as float32, each blurred a little."""
    return gaussian_filter(pictures.astype(np.float32), (0, BLUR, BLUR), mode="nearest")


def movements(pictures: np.ndarray) -> np.ndarray:
    """(N, 4, H, W): how (N, H, W) change under a shift and a stretch along x, then along y."""
    side = pictures.shape[1]
    along_y, along_x = (one * (side / 2) for one in np.gradient(pictures, axis=(1, 2)))
    place = places(side).astype(pictures.dtype)
    return np.stack([along_x, along_x * place, along_y, along_y * place[:, None]], axis=1)


def explained(small: np.ndarray) -> np.ndarray:
    """(N, 196, 6) float32: an orthonormal basis of what small moves and changes of light make of a photo.

    small: (N, 16, 16) float32, softened. The idea is the tangent distance of Simard, LeCun and Denker, 1993.
    """
    light = np.stack([np.ones_like(small), small], axis=1)
    parts = np.concatenate([light, movements(small)], axis=1)  # (N, 6, 16, 16)
    flat = parts[:, :, 1:-1, 1:-1].reshape(len(small), 6, -1)
    return np.linalg.qr(flat.transpose(0, 2, 1))[0].astype(np.float32)


def is_alike(small: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) bool: pairs that may be copies by their (N, 16, 16) float32 softened pictures; quick, misses none.

    `rows` must be sorted; only theirs of the bases are held in memory.
    """
    if not len(rows):
        return np.zeros(0, bool)
    present, starts = np.unique(rows, return_index=True)
    found, flat = [], inside(small, 1)
    for basis, partners in zip(explained(small[present]), np.split(others, starts[1:]), strict=True):
        there = flat[partners]  # (k, 196)
        left = (there**2).sum(axis=1) - ((there @ basis) ** 2).sum(axis=1)
        found.append(left <= MOST_UNLIKE**2 * there.shape[1])
    return np.concatenate(found)


def sampling(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """(N, 64, 64) float32 weights of the cubic resampling (Keys, 1981) of one axis, moved by (N,) and (N,)."""
    wanted = places(SIDE)[None] * (1 + stretch[:, None]) + shift[:, None]  # (N, 64)
    pixel = np.clip(wanted * (SIDE / 2) + (SIDE - 1) / 2, 0, SIDE - 1)
    away = np.abs(pixel[:, :, None] - np.arange(SIDE)).astype(np.float32)
    inner, outer = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    weights = np.where(away < 1, inner, np.where(away < 2, outer, 0))
    return weights / weights.sum(axis=2, keepdims=True)  # at the border some neighbours are missing


def residuals(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """What two softened photos, (N, 64, 64) float32 each, differ in once the first is laid on the second.

    Shift and stretch along each axis are found by Gauss-Newton steps, as Lucas and Kanade, 1981, do.
    Gives (N,) each: `residual` (root mean square, grey levels), `contrast` (the standard deviation),
    `cropped` (the farthest that an edge moved, a share of the side), `brighter` (difference of the
    means, grey levels) and `gain` (of contrast).
    """
    target = inside(second, MARGIN)
    moved = np.zeros((len(first), 4))
    light = np.stack([target, np.ones_like(target)], axis=1)
    for _ in range(STEPS):
        laid = lay(first, moved)
        wrong = inside(laid, MARGIN) - target
        slopes = movements(laid)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(len(first), 4, -1)
        causes = np.concatenate([slopes, light], axis=1)  # (N, 6, K)
        normal = causes @ causes.transpose(0, 2, 1) + 1e-3 * np.eye(6)
        step = np.linalg.solve(normal, causes @ wrong[:, :, None])[:, :4, 0]
        moved = np.clip(moved - step, -FARTHEST, FARTHEST)
    return compared(inside(lay(first, moved), MARGIN), target) | {"cropped": farthest_edge(moved)}


def lay(pictures: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """(N, 64, 64) pictures sampled anew, moved by (N, 4): shift and stretch along x, then along y."""
    across, down = sampling(moved[:, 0], moved[:, 1]), sampling(moved[:, 2], moved[:, 3])
    return down @ pictures @ across.transpose(0, 2, 1)


def farthest_edge(moved: np.ndarray) -> np.ndarray:
    """(N,) how far the edge that moved farthest did, a share of the side."""
    shift, stretch = np.abs(moved[:, ::2]), np.abs(moved[:, 1::2])
    return (shift + stretch).max(axis=1) / 2  # a place of 2 is a whole side


def compared(laid: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `residuals` for flat photos (N, K) that lie on each other."""
    means = laid.mean(axis=1), target.mean(axis=1)
    laid, target = laid - means[0][:, None], target - means[1][:, None]
    gain = (laid * target).sum(axis=1) / np.maximum((target**2).sum(axis=1), 1e-6)
    wrong = laid - gain[:, None] * target
    return {
        "residual": np.sqrt((wrong**2).mean(axis=1)),
        "contrast": np.sqrt((target**2).mean(axis=1)),
        "brighter": np.abs(means[0] - means[1]),
        "gain": gain,
    }


def is_copy(figures: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: whether pairs with these `residuals` are one photo."""
    return (
        (figures["residual"] <= MOST_RESIDUAL)
        & (figures["residual"] <= MOST_RESIDUAL_SHARE * figures["contrast"])
        & (figures["cropped"] <= MOST_CROPPED)
        & (figures["brighter"] <= MOST_BRIGHTER)
        & (np.abs(figures["gain"] - 1) <= MOST_CONTRAST)
    )


def read(paths: Sequence[Path], workers: int | None = None) -> np.ndarray:
    """(N, 64, 64) float32: photo files in grey, softened."""
    with ThreadPoolExecutor(workers) as pool:
        return softened(np.stack(list(pool.map(read_one, paths))))


def read_one(path: Path) -> np.ndarray:
    """(64, 64) uint8: one photo file in grey, stretched to a square."""
    return np.asarray(hashes.grey(path, SIDE).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
