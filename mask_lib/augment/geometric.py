"""Geometric operations on a batch: affine ones composed into one matrix a photo, distortions, and their resampling.

Coordinates run from -1 to 1 along both sides, pixel centres as with `align_corners=False`. The edge is mirrored.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from mask_lib.augment.policy import OPERATIONS

AFFINE = ("flip", "rotate", "shear_x", "shear_y", "shift_x", "shift_y", "shift", "scale")
WARP = "warp"  # stands for the affine operations that follow one another
NAMES = (*OPERATIONS, WARP)  # an operation's place here is its number; identity is 0
MATRIX = 6  # numbers of a (2, 3) matrix
CELLS = 5  # of the grid that grid_distortion stretches, along each side
KNOTS = 7  # control points of elastic_distortion, along each side
NOISE = {"shift": 1, "grid_distortion": 2 * CELLS, "elastic_distortion": 2 * KNOTS**2}  # uniform numbers of a photo


def compose(operation: Tensor, parameters: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Replace affine operations that follow one another by one `WARP` in the place of the last, the others by identity.

    operation: (B, K) int64 numbers in `NAMES`. parameters: (B, K, P) float32, value and uniform numbers, P at least
    `MATRIX`; a warp's are its matrix, from output to input coordinates. What does nothing goes; a flip alone stays.
    """
    flip, warp = NAMES.index("flip"), NAMES.index(WARP)
    is_affine = torch.isin(operation, torch.tensor([0, *map(NAMES.index, AFFINE)]))  # identity interrupts nothing
    ends = is_affine & ~functional.pad(is_affine[:, 1:], (0, 1))
    steps = affine_matrices(operation, parameters[..., 0], parameters[..., 1], height / width)
    operation, parameters = operation.where(~is_affine, 0), parameters.clone()
    none, mirror = torch.eye(3).expand(len(operation), 3, 3), torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    so_far = none
    for place in range(operation.shape[1]):
        so_far = so_far @ steps[:, place]
        warps = ends[:, place] & (so_far != none).any(2).any(1)
        flips = warps & (so_far == mirror).all(2).all(1)  # copied, which is quicker and exact
        operation[:, place] = operation[:, place].where(~warps, warp).where(~flips, flip)
        parameters[warps, place, :MATRIX] = _whole_shifts(so_far[warps, :2], height, width).flatten(1)
        so_far = torch.where(ends[:, place, None, None], none, so_far)
    return operation, parameters


def affine_matrices(operation: Tensor, values: Tensor, directions: Tensor, aspect: float) -> Tensor:
    """(B, K, 3, 3) float32 matrices from output to input coordinates of (B, K) operations; of others the identity.

    values: in the operation's unit, with its sign. directions: from 0 to 1, of `shift`. aspect: height over width, by
    which a turn is squeezed, or it would shear photos that are not square.
    """

    def value_of(name: str) -> Tensor:
        return torch.where(operation == NAMES.index(name), values, 0.0)

    turn, angle, shift = torch.deg2rad(value_of("rotate")), 2 * math.pi * directions, value_of("shift")
    size, sin = torch.cos(turn) * torch.exp(-value_of("scale")), torch.sin(turn)
    mirror = torch.where(operation == NAMES.index("flip"), -1.0, 1.0)
    right = value_of("shift_x") + shift * torch.cos(angle)  # shares of a side, which is 2 long
    down = value_of("shift_y") + shift * torch.sin(angle)
    upper = [mirror * size, (value_of("shear_x") - sin) * aspect, -2 * right]
    lower = [(value_of("shear_y") + sin) / aspect, size, -2 * down]
    last = [torch.zeros_like(values), torch.zeros_like(values), torch.ones_like(values)]
    return torch.stack([*upper, *lower, *last], dim=2).unflatten(2, (3, 3))


def _whole_shifts(matrices: Tensor, height: int, width: int) -> Tensor:
    """(n, 2, 3) matrices of which those that only shift do so by whole pixels, so that they blur nothing."""
    pixel = 2 / torch.tensor([width, height])
    upright = (matrices[:, :, :2] == torch.eye(2)).all(2).all(1)
    whole = (matrices[:, :, 2] / pixel).round() * pixel
    shift = torch.where(upright[:, None], whole, matrices[:, :, 2])
    return torch.cat([matrices[:, :, :2], shift[:, :, None]], dim=2)


# The functions below take (n, C, H, W) float32 photos, (n,) values in the operation's unit, and (n, P) uniform numbers.


def flip(photos: Tensor, values: Tensor, uniform: Tensor) -> Tensor:
    """Mirrored left and right."""
    return photos.flip(3)


def warp(photos: Tensor, first: Tensor, others: Tensor) -> Tensor:
    """(n, C, H, W) resampled by matrices, of which `first` is (n,) and `others` (n, 5 or more) in their order."""
    x, y = centres(*photos.shape[2:], photos.device)
    matrix = torch.cat([first[:, None], others], dim=1)[:, :MATRIX].view(-1, 2, 3)
    by_column, by_row = x[:, None] * matrix[:, None, :, 0], y[:, None] * matrix[:, None, :, 1] + matrix[:, None, :, 2]
    return _sampled(photos, by_row[:, :, None] + by_column[:, None])


def grid_distortion(photos: Tensor, values: Tensor, uniform: Tensor) -> Tensor:
    """Columns and rows of a grid grow and shrink, each by up to the value, and their content with them."""
    noise = 2 * uniform[:, : 2 * CELLS].view(-1, 2, CELLS) - 1
    sizes = 1 + noise * values[:, None, None]
    so_far = sizes @ torch.ones(CELLS, CELLS, device=photos.device).triu()  # cumsum has no deterministic CUDA kernel
    edges = functional.pad(so_far / sizes.sum(2, keepdim=True), (1, 0))  # (n, 2, CELLS + 1), 0 to 1
    found = []
    for axis, middles in enumerate(centres(*photos.shape[2:], photos.device)):
        place = (middles + 1) / 2 * CELLS  # in cells
        cell = place.long().clamp(max=CELLS - 1)
        found.append(2 * torch.lerp(edges[:, axis, cell], edges[:, axis, cell + 1], place - cell) - 1)  # (n, side)
    columns, rows = found[0][:, None, :], found[1][:, :, None]
    return _sampled(photos, torch.stack(torch.broadcast_tensors(columns, rows), dim=3))


def elastic_distortion(photos: Tensor, values: Tensor, uniform: Tensor) -> Tensor:
    """Each control point moves by up to the value; between them the movement is bicubic."""
    noise = 2 * uniform[:, : 2 * KNOTS**2].view(-1, 2, KNOTS, KNOTS) - 1
    knots = 2 * values.view(-1, 1, 1, 1) * noise
    by = functional.interpolate(knots, size=photos.shape[2:], mode="bicubic", align_corners=True)
    x, y = centres(*photos.shape[2:], photos.device)
    return _sampled(photos, torch.stack([x + by[:, 0], y[:, None] + by[:, 1]], dim=3))


@functools.lru_cache(maxsize=8)
def centres(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(W,) and (H,) float32 coordinates of the middles of columns and rows, on a device; not to be written to."""
    return tuple((torch.arange(side, device=device) * 2 + 1) / side - 1 for side in (width, height))


def _sampled(photos: Tensor, grid: Tensor) -> Tensor:
    """Photos read bilinearly at (n, H, W, 2) coordinates x, y."""
    return functional.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
