"""Photos moved and distorted on the device they lie on, each by parameters of its own, in one resampling.

Photos are (n, C, H, W) float32. Whatever is moved mirrors the edge, which is never black.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

CELLS = 5  # of the grid that grid_distortion stretches, along each side
KNOTS = 7  # of elastic_distortion's net, along each side: what lies between moves smoothly
NOISE = {"grid_distortion": (2, CELLS), "elastic_distortion": (2, KNOTS, KNOTS)}  # random numbers of one photo


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Parameters of n photos for one operation, on the CPU."""

    values: torch.Tensor  # (n,) float32, in the operation's unit, with its sign
    extra: torch.Tensor  # (n, 3) float32, uniform in [0, 1): a direction, a place
    noise: torch.Tensor  # (n, …) float32, uniform in [-1, 1), shaped as NOISE says

    def __getitem__(self, some: torch.Tensor) -> "Drawn":
        """The same for some of the photos, (n,) bool."""
        return Drawn(self.values[some], self.extra[some], self.noise[some])

    def parts(self, size: int) -> Iterator["Drawn"]:
        """The same for `size` photos at a time."""
        for of_part in zip(*(one.split(size) for one in (self.values, self.extra, self.noise)), strict=True):
            yield Drawn(*of_part)


# Movements: (n, 3, 3) float32 matrices from the output's to the input's coordinates, which run from -1 to 1 along both
# sides; `tall` is height over width.


def matrices(
    drawn: Drawn, rows: tuple[tuple[torch.Tensor | float, ...], tuple[torch.Tensor | float, ...]]
) -> torch.Tensor:
    """(n, 3, 3) from the six numbers of the upper rows, each one for all photos or (n,)."""
    found = torch.zeros(len(drawn.values), 3, 3)
    found[:, 2, 2] = 1
    for row, numbers in enumerate(rows):
        for column, number in enumerate(numbers):
            if isinstance(number, torch.Tensor) or number:
                found[:, row, column] = number
    return found


def flipped(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices of a mirror image."""
    return matrices(drawn, ((-1, 0, 0), (0, 1, 0)))


def rotated(drawn: Drawn, tall: float) -> torch.Tensor:
    """Values above 0 turn against the clock. The aspect undoes the squeeze of a side that is not square."""
    turn = torch.deg2rad(drawn.values)
    cos, sin = torch.cos(turn), torch.sin(turn)
    return matrices(drawn, ((cos, -sin * tall, 0), (sin / tall, cos, 0)))


def sheared_x(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices that lean photos sideways about their centre; values: tangents of the angle."""
    return matrices(drawn, ((1, drawn.values * tall, 0), (0, 1, 0)))


def sheared_y(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices that lean photos upwards about their centre; values: tangents of the angle."""
    return matrices(drawn, ((1, 0, 0), (drawn.values / tall, 1, 0)))


def shifted_x(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices of a shift to the right; values: shares of the width."""
    return matrices(drawn, ((1, 0, -2 * drawn.values), (0, 1, 0)))


def shifted_y(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices of a shift downwards; values: shares of the height."""
    return matrices(drawn, ((1, 0, 0), (0, 1, -2 * drawn.values)))


def shifted(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices of a shift in any direction; values: shares of a side."""
    direction = 2 * math.pi * drawn.extra[:, 0]
    right, down = torch.cos(direction) * drawn.values, torch.sin(direction) * drawn.values
    return matrices(drawn, ((1, 0, -2 * right), (0, 1, -2 * down)))


def zoomed(drawn: Drawn, tall: float) -> torch.Tensor:
    """(B, 2, 3) matrices that enlarge by e to the power of the values."""
    smaller = torch.exp(-drawn.values)
    return matrices(drawn, ((smaller, 0, 0), (0, smaller, 0)))


def warped(photos: torch.Tensor, to_input: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) resampled by (n, 3, 3) or (n, 2, 3) matrices, bilinearly; the edge is mirrored."""
    x, y = centres(photos)
    to_input = to_input.to(photos.device)[..., None]  # (n, 3, 3, 1)
    # Where each pixel comes from is a sum of what its column and what its row add; as complex numbers, x + iy, that
    # is one quick pass over the photos.
    by_column = torch.complex(to_input[:, 0, 0] * x, to_input[:, 1, 0] * x)  # (n, W)
    by_row = torch.complex(
        to_input[:, 0, 1] * y + to_input[:, 0, 2], to_input[:, 1, 1] * y + to_input[:, 1, 2]
    )  # (n, H)
    return sampled(photos, torch.view_as_real(by_row[:, :, None] + by_column[:, None]))


def in_pixels(to_input: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, 2, 3) float32: what (n, 3, 3) matrices do, but in pixels; whole ones where they only shift."""
    sides = torch.tensor([width, height])
    linear = to_input[:, :2, :2] * (sides[:, None] / sides)
    middle = (sides - 1) / 2
    shift = to_input[:, :2, 2] * sides / 2 + middle - (linear * middle).sum(dim=2)
    shift = torch.where(shifts_only(to_input)[:, None], -whole_pixels(to_input, height, width), shift)
    return torch.cat([linear, shift[:, :, None]], dim=2)


def whole_pixels(to_input: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, 2) float32: by how many pixels (n, 3, 3) matrices shift to the right and down, rounded."""
    return (-to_input[:, :2, 2] * torch.tensor([width, height]) / 2).round()


def stays(to_input: torch.Tensor) -> torch.Tensor:
    """(n,) bool: whether (n, 3, 3) matrices do nothing."""
    return (to_input == torch.eye(3)).all(dim=2).all(dim=1)


def shifts_only(to_input: torch.Tensor) -> torch.Tensor:
    """(n,) bool: whether (n, 3, 3) matrices do nothing but shift, by less than a side."""
    upright = (to_input[:, :2, :2] == torch.eye(2)).all(dim=2).all(dim=1)
    return upright & (to_input[:, :2, 2].abs() < 2).all(dim=1)


def moved(photos: torch.Tensor, to_input: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) float32, to overwrite, moved by (n, 3, 3) matrices; what is only shifted is not resampled."""
    plain = shifts_only(to_input)
    for group, how in ((plain & ~stays(to_input), placed), (~plain, warped)):
        if group.all():
            return how(photos, to_input)
        if group.any():
            at = group.nonzero()[:, 0].to(photos.device)
            photos[at] = how(photos[at], to_input[group])
    return photos


def placed(photos: torch.Tensor, to_input: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) shifted by (n, 3, 3) matrices that do nothing else, by whole pixels: copied, which blurs nothing."""
    by = whole_pixels(to_input, *photos.shape[2:]).int().tolist()
    for photo, (right, down) in zip(photos, by, strict=True):
        photo.copy_(rolled(rolled(photo, right, dim=2), down, dim=1))
    return photos


def rolled(photo: torch.Tensor, by: int, dim: int) -> torch.Tensor:
    """(C, H, W) shifted by less than a side's pixels along it; what comes in is a mirror image of the edge."""
    if by == 0:
        return photo
    stays = photo.shape[dim] - abs(by)
    if by > 0:
        return torch.cat([photo.narrow(dim, 0, by).flip(dim), photo.narrow(dim, 0, stays)], dim)
    return torch.cat([photo.narrow(dim, -by, stays), photo.narrow(dim, stays, -by).flip(dim)], dim)


def displaced(photos: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) read at places moved by (n, 2, H, W), right and down, where 2 is a whole side."""
    x, y = centres(photos)
    return sampled(photos, torch.stack([x + by[:, 0], y[:, None] + by[:, 1]], dim=3))


def centres(photos: torch.Tensor, device: torch.device | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(W,) and (H,) float32: the middles of columns and rows, in coordinates from -1 to 1; on the photos' device."""
    height, width = photos.shape[2:]
    device = device or photos.device
    return tuple((torch.arange(side, device=device) * 2 + 1) / side - 1 for side in (width, height))


def sampled(photos: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) photos read at a (B, H, W, 2) grid, bilinear, mirrored beyond their edges."""
    return functional.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)


def grid_distortion(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Columns and rows of a grid grow and shrink, each by up to the value, and what is in them with them."""
    sizes = 1 + drawn.noise * drawn.values.view(-1, 1, 1)
    edges = functional.pad(sizes.cumsum(2) / sizes.sum(2, keepdim=True), (1, 0))  # (n, 2, CELLS + 1), 0 to 1
    by = torch.empty(len(photos), 2, *photos.shape[2:], device=photos.device)
    for axis, middles in enumerate(centres(photos, torch.device("cpu"))):  # where the edges are
        place = (middles + 1) / 2 * CELLS  # in cells
        cell = place.floor().long().clamp(max=CELLS - 1)
        found = torch.lerp(edges[:, axis, cell], edges[:, axis, cell + 1], place - cell)  # (n, side)
        moved = (2 * (found - place / CELLS)).to(photos.device)
        by[:, axis] = moved[:, None] if axis == 0 else moved[:, :, None]
    return displaced(photos, by)


def elastic_distortion(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Each knot of a net moves by up to the value; between them the movement is smooth."""
    knots = (2 * drawn.values.view(-1, 1, 1, 1) * drawn.noise).to(photos.device)
    by = functional.interpolate(knots, size=photos.shape[2:], mode="bicubic", align_corners=True)
    return displaced(photos, by)


MOVING: dict[str, Callable[[Drawn, float], torch.Tensor]] = {
    "flip": flipped,
    "rotate": rotated,
    "shear_x": sheared_x,
    "shear_y": sheared_y,
    "shift_x": shifted_x,
    "shift_y": shifted_y,
    "shift": shifted,
    "scale": zoomed,
}
