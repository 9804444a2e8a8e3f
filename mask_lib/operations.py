"""The operations of a policy on a whole batch at once, on the device it lies on, each photo with its own parameters.

Photos are (B, C, H, W) float32 in [0, 1] in and out, of one, three or four channels. All random numbers come from a
CPU generator, so the same seed gives the same parameters on any device. Turns, shears, shifts and zooms that follow
one another are one resampling; whatever is moved mirrors the edge, which is never black.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch.nn import functional

from mask_lib import policies

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue: ITU-R 601, as torchvision and Pillow have them
CELLS = 5  # of the grid that grid_distortion stretches, along each side
KNOTS = 7  # of elastic_distortion's net, along each side: what lies between moves smoothly
LINE_POINTS = 17  # of a motion blur's line
DRAWS = 6  # random numbers for each step of each photo
NAMES = tuple(policies.OPERATIONS)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Parameters of n photos for one operation, on the CPU."""

    values: torch.Tensor  # (n,) float32, in the operation's unit, with its sign
    extra: torch.Tensor  # (n, 3) float32, uniform in [0, 1): a direction, a place
    generator: torch.Generator  # for what needs more


def apply(batch: torch.Tensor, policy: policies.Policy, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) float32 in [0, 1] → the same, each photo by a sub-policy of its own. May work in place."""
    if not policy.sub_policies or not len(batch):
        return batch
    operation, values, extra = draw(policy, len(batch), generator)
    waiting = Waiting(batch)
    for place in range(operation.shape[1]):
        for number in operation[:, place].unique().tolist():
            name, rows = NAMES[number], (operation[:, place] == number).nonzero()[:, 0]
            if name not in NEEDS_COLOURS or batch.shape[1] == 3:
                waiting.take(name, rows, Drawn(values[rows, place], extra[rows, place], generator))
    return waiting.finished()


def draw(
    policy: policies.Policy, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `count` photos draw from a policy with K steps at most.

    (count, K) int64 numbers of operations in `NAMES`, identity where a step does not strike; (count, K) float32
    values; (count, K, 3) float32 uniform in [0, 1).
    """
    operation, probability, magnitude = steps_table(policy)
    chosen = torch.randint(len(operation), (count,), generator=generator)
    uniform = torch.rand(count, operation.shape[1], DRAWS, generator=generator)
    operation, probability, magnitude = operation[chosen], probability[chosen], magnitude[chosen]
    steps = (uniform[..., 1] * policies.MAGNITUDE_BINS).floor() / (policies.MAGNITUDE_BINS - 1)
    magnitude = torch.where(magnitude.isnan(), steps, magnitude)
    low, high, signed = ranges()
    values = low[operation] + magnitude * (high - low)[operation]
    values = torch.where(signed[operation] & (uniform[..., 2] < 0.5), -values, values)
    return torch.where(uniform[..., 0] < probability, operation, 0), values, uniform[..., 3:]


@functools.lru_cache(maxsize=16)
def steps_table(policy: policies.Policy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(S, K) operations' numbers, probabilities and magnitudes of S sub-policies, filled up with identity."""
    longest = max(len(sub_policy) for sub_policy in policy.sub_policies)
    filled = [(*sub, *[policies.Step("identity")] * (longest - len(sub))) for sub in policy.sub_policies]
    shape = (len(filled), longest)
    steps = [step for sub_policy in filled for step in sub_policy]
    operation = torch.tensor([NAMES.index(step.operation) for step in steps]).reshape(shape)
    probability = torch.tensor([step.probability for step in steps]).reshape(shape)
    magnitudes = [math.nan if step.magnitude is None else step.magnitude for step in steps]
    return operation.long(), probability, torch.tensor(magnitudes).reshape(shape)


@functools.cache
def ranges() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values at the magnitudes 0 and 1 of the operations, and whether they have a sign: three tensors by number."""
    of_all = policies.OPERATIONS.values()
    low, high = (torch.tensor([getattr(operation, end) for operation in of_all]) for end in ("low", "high"))
    return low, high, torch.tensor([operation.signed for operation in of_all])


class Waiting:
    """A batch whose photos may still have to be moved: movements are put together until something else needs them."""

    def __init__(self, batch: torch.Tensor):
        self.batch = batch
        self.matrices = torch.eye(3).repeat(len(batch), 1, 1)  # output to input
        self.moved = torch.zeros(len(batch), dtype=torch.bool)

    def take(self, name: str, rows: torch.Tensor, drawn: Drawn) -> None:
        """Do one operation to the photos `rows`, (n,) int64, or note it."""
        if name in MOVING:
            height, width = self.batch.shape[2:]
            self.matrices[rows] = self.matrices[rows] @ MOVING[name](drawn, height / width)
            self.moved[rows] = True
        elif name != "identity":
            if name not in AT_ANY_TIME:
                self.move(rows[self.moved[rows]])
            self.replace(rows, CHANGING[name](self.part(rows), drawn))

    def move(self, rows: torch.Tensor) -> None:
        """Resample the photos `rows`."""
        if len(rows):
            self.replace(rows, warped(self.part(rows), self.matrices[rows]))
            self.matrices[rows], self.moved[rows] = torch.eye(3), False

    def finished(self) -> torch.Tensor:
        """The batch with nothing left to do."""
        self.move(self.moved.nonzero()[:, 0])
        return self.batch

    def part(self, rows: torch.Tensor) -> torch.Tensor:
        """A copy of the photos `rows`, for an operation to work in."""
        return self.batch[rows.to(self.batch.device)]

    def replace(self, rows: torch.Tensor, photos: torch.Tensor) -> None:
        self.batch[rows.to(self.batch.device)] = photos


# Movements: (n, 3, 3) float32 matrices from the output's to the input's coordinates, which run from -1 to 1 along both
# sides; `tall` is height over width.


def matrices(
    drawn: Drawn, rows: tuple[tuple[torch.Tensor | float, ...], tuple[torch.Tensor | float, ...]]
) -> torch.Tensor:
    """(n, 3, 3) from the six numbers of the upper rows, each one for all photos or (n,)."""
    found = torch.eye(3).repeat(len(drawn.values), 1, 1)
    for row, numbers in enumerate(rows):
        for column, number in enumerate(numbers):
            found[:, row, column] = number
    return found


def flipped(drawn: Drawn, tall: float) -> torch.Tensor:
    return matrices(drawn, ((-1, 0, 0), (0, 1, 0)))


def rotated(drawn: Drawn, tall: float) -> torch.Tensor:
    """Values above 0 turn against the clock. The aspect undoes the squeeze of a side that is not square."""
    turn = torch.deg2rad(drawn.values)
    cos, sin = torch.cos(turn), torch.sin(turn)
    return matrices(drawn, ((cos, -sin * tall, 0), (sin / tall, cos, 0)))


def sheared_x(drawn: Drawn, tall: float) -> torch.Tensor:
    return matrices(drawn, ((1, drawn.values * tall, 0), (0, 1, 0)))


def sheared_y(drawn: Drawn, tall: float) -> torch.Tensor:
    return matrices(drawn, ((1, 0, 0), (drawn.values / tall, 1, 0)))


def shifted_x(drawn: Drawn, tall: float) -> torch.Tensor:
    return matrices(drawn, ((1, 0, -2 * drawn.values), (0, 1, 0)))


def shifted_y(drawn: Drawn, tall: float) -> torch.Tensor:
    return matrices(drawn, ((1, 0, 0), (0, 1, -2 * drawn.values)))


def shifted(drawn: Drawn, tall: float) -> torch.Tensor:
    direction = 2 * math.pi * drawn.extra[:, 0]
    right, down = torch.cos(direction) * drawn.values, torch.sin(direction) * drawn.values
    return matrices(drawn, ((1, 0, -2 * right), (0, 1, -2 * down)))


def zoomed(drawn: Drawn, tall: float) -> torch.Tensor:
    smaller = torch.exp(-drawn.values)
    return matrices(drawn, ((smaller, 0, 0), (0, smaller, 0)))


def warped(photos: torch.Tensor, to_input: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) resampled by (n, 3, 3) or (n, 2, 3) matrices, bilinearly; the edge is mirrored."""
    x, y = centres(photos)
    a = to_input.to(photos.device)[:, None, None, :2]  # (n, 1, 1, 2, 3)
    grid = x[:, None] * a[..., 0] + (y[:, None, None] * a[..., 1] + a[..., 2])  # (n, H, W, 2)
    return sampled(photos, grid)


def displaced(photos: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) read at places moved by (n, 2, H, W), right and down, where 2 is a whole side."""
    x, y = centres(photos)
    return sampled(photos, torch.stack([x + by[:, 0], y[:, None] + by[:, 1]], dim=3))


def centres(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(W,) and (H,) float32: the middles of columns and rows, in coordinates from -1 to 1."""
    height, width = photos.shape[2:]
    return tuple((torch.arange(side, device=photos.device) * 2 + 1) / side - 1 for side in (width, height))


def sampled(photos: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return functional.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)


# Changes: (n, C, H, W) float32, which they may overwrite, and what n photos drew → (n, C, H, W) float32 in [0, 1].


def spread(numbers: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
    """(n,) numbers on the photos' device, as (n, 1, 1, 1)."""
    return numbers.to(photos.device).view(-1, 1, 1, 1)


def grey(photos: torch.Tensor) -> torch.Tensor:
    """(n, 1, H, W): the brightness of red, green and blue; of other channels their mean."""
    if photos.shape[1] != 3:
        return photos.mean(dim=1, keepdim=True)
    red, green, blue = (photos[:, channel, None] for channel in range(3))
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def brightness(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    return photos.mul_(spread(1 + drawn.values, photos)).clamp_(0, 1)


def contrast(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    middle = grey(photos).mean(dim=(1, 2, 3), keepdim=True)
    factor = spread(1 + drawn.values, photos)
    return photos.mul_(factor).add_(middle * (1 - factor)).clamp_(0, 1)


def saturation(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    factor = spread(1 + drawn.values, photos)
    middle = grey(photos)
    return photos.mul_(factor).add_(middle.mul_(1 - factor)).clamp_(0, 1)


def gamma(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    return photos.pow_(spread(torch.exp(drawn.values), photos)).clamp_(0, 1)


def invert(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    return photos.neg_().add_(1)


def sharpness(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Away from or towards a mean of 3 x 3 pixels in which the middle counts five times; the rim stays."""
    if min(photos.shape[2:]) < 3:
        return photos
    inside = photos[:, :, 1:-1, 1:-1]
    factor = spread(1 + drawn.values, photos)
    smooth = functional.avg_pool2d(photos, 3, stride=1).mul_(9 / 13).add_(inside, alpha=4 / 13)
    photos[:, :, 1:-1, 1:-1] = torch.lerp(smooth, inside, factor).clamp_(0, 1)
    return photos


def posterize(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Keep the highest bits of 8, two at least."""
    step = spread(2 ** (8 - drawn.values.round()), photos)
    return photos.mul_(255).round_().div_(step).floor_().mul_(step / 255)


def solarize(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    return torch.where(photos < spread(drawn.values, photos), photos, 1 - photos)


def autocontrast(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Each channel from its darkest to its brightest stretched to the whole range; one of a single grey stays."""
    low, high = photos.amin(dim=(2, 3), keepdim=True), photos.amax(dim=(2, 3), keepdim=True)
    flat = high == low
    width = torch.where(flat, 1.0, high - low)
    return photos.sub_(torch.where(flat, 0.0, low)).div_(width).clamp_(0, 1)


def equalize(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Each channel's 256 grey levels made equally frequent, by Pillow's rule."""
    level = photos.mul_(255).round_().long().flatten(2)  # (n, C, H * W)
    counts = torch.zeros(*level.shape[:2], 256, dtype=torch.long, device=photos.device)
    counts.scatter_add_(2, level, torch.ones(1, dtype=torch.long, device=photos.device).expand_as(level))
    last = counts.gather(2, level.amax(dim=2, keepdim=True))  # of the brightest level there is
    step = (level.shape[2] - last) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, device=photos.device), table)
    return (table.float() / 255).gather(2, level).view(photos.shape)


def blur(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """By a Gaussian, as wide as three deviations, down and then across."""
    side = min(photos.shape[2:])
    deviation = (drawn.values * side).clamp(min=1e-3)  # pixels
    radius = min(math.ceil(3 * deviation.max().item()), side - 1)
    distance = torch.arange(-radius, radius + 1)
    kernel = functional.softmax(-((distance / deviation[:, None]) ** 2) / 2, dim=1)  # (n, K)
    return filtered(filtered(photos, kernel[:, :, None]), kernel[:, None])


def motion_blur(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Along a line of a direction of its own: the mean of points on it, each shared by the pixels around it."""
    side = min(photos.shape[2:])
    length, direction = drawn.values * side, math.pi * drawn.extra[:, 0]  # pixels, radians
    radius = min(math.ceil(length.max().item() / 2), side - 1)
    along = torch.linspace(-0.5, 0.5, LINE_POINTS) * length[:, None]  # (n, P)
    pixels = torch.arange(-radius, radius + 1)
    near = [
        (1 - (pixels - (along * part(direction)[:, None])[..., None]).abs()).clamp(min=0)  # (n, P, K)
        for part in (torch.sin, torch.cos)
    ]
    return filtered(photos, torch.einsum("npi,npj->nij", *near) / LINE_POINTS)


def filtered(photos: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Each of (n, C, H, W) photos by its own of (n, K, L) kernels; beyond the edge it is mirrored."""
    count, channels, height, width = photos.shape
    down, across = kernels.shape[1] // 2, kernels.shape[2] // 2
    planes = functional.pad(photos, (across, across, down, down), mode="reflect").reshape(
        1, count * channels, height + 2 * down, width + 2 * across
    )
    weights = kernels.to(photos.device).repeat_interleave(channels, dim=0)[:, None]
    return functional.conv2d(planes, weights, groups=count * channels).view(photos.shape).clamp_(0, 1)


def grid_distortion(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Columns and rows of a grid grow and shrink, each by up to the value, and what is in them with them."""
    sizes = 1 + (2 * torch.rand(2, len(photos), CELLS, generator=drawn.generator) - 1) * drawn.values[:, None]
    edges = functional.pad(sizes.cumsum(2) / sizes.sum(2, keepdim=True), (1, 0))  # (2, n, CELLS + 1), 0 to 1
    by = torch.empty(len(photos), 2, *photos.shape[2:], device=photos.device)
    for axis, middles in enumerate(centres(photos)):
        place = (middles.cpu() + 1) / 2 * CELLS  # in cells
        cell = place.floor().long().clamp(max=CELLS - 1)
        found = torch.lerp(edges[axis][:, cell], edges[axis][:, cell + 1], place - cell)  # (n, side)
        moved = (2 * (found - place / CELLS)).to(photos.device)
        by[:, axis] = moved[:, None] if axis == 0 else moved[:, :, None]
    return displaced(photos, by)


def elastic_distortion(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Each knot of a net moves by up to the value; between them the movement is smooth."""
    knots = 2 * torch.rand(len(photos), 2, KNOTS, KNOTS, generator=drawn.generator) - 1
    knots = (2 * drawn.values.view(-1, 1, 1, 1) * knots).to(photos.device)
    by = functional.interpolate(knots, size=photos.shape[2:], mode="bicubic", align_corners=True)
    return displaced(photos, by)


def erase(photos: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Grey out one rectangle of this area."""
    log_aspect = (2 * drawn.extra[:, 0] - 1) * math.log(2)
    mask = rectangles(drawn.values, log_aspect, drawn.extra[:, 1], drawn.extra[:, 2], photos.shape[2:])
    return torch.where(mask[:, None].to(photos.device), 0.5, photos)


def rectangles(
    area: torch.Tensor, log_aspect: torch.Tensor, down: torch.Tensor, across: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """(n, H, W) bool: a rectangle of this share of the photo, height over width, and place from 0 to 1; each (n,)."""
    height, width = size
    tall, wide = torch.sqrt(area) * torch.exp(log_aspect / 2), torch.sqrt(area) * torch.exp(-log_aspect / 2)
    top, left = down * (1 - tall), across * (1 - wide)
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # (n, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # (n, W)
    return in_rows[:, :, None] & in_columns[:, None]


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
CHANGING: dict[str, Callable[[torch.Tensor, Drawn], torch.Tensor]] = {
    "grid_distortion": grid_distortion,
    "elastic_distortion": elastic_distortion,
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "gamma": gamma,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
    "blur": blur,
    "motion_blur": motion_blur,
    "erase": erase,
}
AT_ANY_TIME = frozenset({"brightness", "saturation", "invert"})  # linear in each pixel: moving may wait for later
NEEDS_COLOURS = frozenset(name for name, operation in policies.OPERATIONS.items() if operation.colours)
