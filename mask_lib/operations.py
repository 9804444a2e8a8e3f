"""The operations of a policy on a whole batch at once, on the device it lies on, each photo with its own parameters.

Photos are (B, C, H, W) of one, three or four channels, uint8 or float32 in [0, 1], and come out as the latter. All
random numbers come from a CPU generator, so the same seed gives the same parameters on any device. Turns, shears,
shifts and zooms that follow one another are one resampling.
"""

import functools
import math
from collections.abc import Callable

import torch

from mask_lib import movements, policies, retouching
from mask_lib.movements import Drawn

CACHED = 1 << 20  # numbers: what a processor works on at a time, so that it need not wait for its memory
DRAWS = 6  # random numbers for each step of each photo
NAMES = tuple(policies.OPERATIONS)
CHANGING: dict[str, Callable[[torch.Tensor, Drawn], torch.Tensor]] = {
    "grid_distortion": movements.grid_distortion,
    "elastic_distortion": movements.elastic_distortion,
    "brightness": retouching.brightness,
    "contrast": retouching.contrast,
    "saturation": retouching.saturation,
    "gamma": retouching.gamma,
    "sharpness": retouching.sharpness,
    "posterize": retouching.posterize,
    "solarize": retouching.solarize,
    "autocontrast": retouching.autocontrast,
    "equalize": retouching.equalize,
    "invert": retouching.invert,
    "blur": retouching.blur,
    "motion_blur": retouching.motion_blur,
    "erase": retouching.erase,
}
AT_ANY_TIME = frozenset({"brightness", "saturation", "invert"})  # linear in each pixel: moving may wait for later
NEEDS_COLOURS = frozenset(name for name, operation in policies.OPERATIONS.items() if operation.colours)


def apply(batch: torch.Tensor, policy: policies.Policy, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8, or float32 in [0, 1] → float32, each photo by a sub-policy of its own; float32 in place."""
    if not policy.sub_policies or not len(batch):
        return as_float(batch)
    operation, values, extra = draw(policy, len(batch), generator)
    waiting = Waiting(batch)
    for place in range(operation.shape[1]):
        for number in operation[:, place].unique().tolist():
            name, rows = NAMES[number], (operation[:, place] == number).nonzero()[:, 0]
            waiting.take(name, rows, Drawn(values[rows, place], extra[rows, place], noise(name, len(rows), generator)))
    return waiting.finished()


def perform(batch: torch.Tensor, name: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One operation on each of (B, C, H, W) photos, by (B,) values in its unit, with their signs; float32 in place."""
    waiting, rows = Waiting(batch), torch.arange(len(batch))
    extra = torch.rand(len(batch), DRAWS - 3, generator=generator)
    waiting.take(name, rows, Drawn(values, extra, noise(name, len(batch), generator)))
    return waiting.finished()


def as_float(photos: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) uint8 → float32 in [0, 1]; what is float32 already stays as it is."""
    return photos if photos.is_floating_point() else photos.float().div_(255)


def noise(name: str, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, …) float32 uniform in [-1, 1): as much as the operation needs for each photo, mostly nothing."""
    return 2 * torch.rand(count, *movements.NOISE.get(name, (0,)), generator=generator) - 1


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
    """A batch whose photos may still have to be moved: movements are put together until something else needs them.

    Photos become float32 when something is first done to them, a few at a time, while a processor still has them at
    hand: the same for the whole batch beforehand would be a second trip through memory.
    """

    def __init__(self, photos: torch.Tensor):
        self.photos = photos
        converted = photos.is_floating_point()
        self.batch = photos if converted else torch.empty(photos.shape, device=photos.device)
        self.raw = torch.full((len(photos),), not converted)
        self.matrices = torch.eye(3).repeat(len(photos), 1, 1)  # output to input
        self.moved = torch.zeros(len(photos), dtype=torch.bool)
        self.size = max(1, CACHED // photos[0].numel()) if photos.device.type == "cpu" else len(photos)

    def take(self, name: str, rows: torch.Tensor, drawn: Drawn) -> None:
        """Do one operation to the photos `rows`, (n,) int64, or note it; saturation needs red, green and blue."""
        if name in NEEDS_COLOURS and self.batch.shape[1] != 3:
            return
        if name in movements.MOVING:
            height, width = self.batch.shape[2:]
            self.matrices[rows] = self.matrices[rows] @ movements.MOVING[name](drawn, height / width)
            self.moved[rows] = True
        elif name != "identity":
            if name not in AT_ANY_TIME:
                self.move(rows[self.moved[rows]])
            for some, part in zip(rows.split(self.size), drawn.parts(self.size), strict=True):
                self.change(some, lambda photos, part=part: CHANGING[name](photos, part))

    def move(self, rows: torch.Tensor) -> None:
        """Resample the photos `rows`."""
        plain = movements.shifted_only(self.matrices[rows])
        for group, by_matrices in ((rows[plain], movements.placed), (rows[~plain], movements.warped)):
            for some in group.split(self.size) if len(group) else ():
                self.change(some, lambda photos, some=some, how=by_matrices: how(photos, self.matrices[some]))
        self.matrices[rows], self.moved[rows] = torch.eye(3), False

    def finished(self) -> torch.Tensor:
        """(B, C, H, W) float32 with nothing left to do."""
        self.move(self.moved.nonzero()[:, 0])
        self.convert(self.raw.nonzero()[:, 0])
        return self.batch

    def convert(self, rows: torch.Tensor) -> None:
        """Make float32 of the photos `rows` as they are."""
        for some in rows.split(self.size) if len(rows) else ():
            self.change(some, lambda photos: photos)

    def change(self, rows: torch.Tensor, operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let an operation have a copy of the photos `rows` and keep what it makes of them."""
        places, raw = rows.to(self.batch.device), self.raw[rows]
        if raw.any() and not raw.all():
            self.convert(rows[raw])
        source = self.photos if raw.all() else self.batch
        changed = operation(as_float(source.index_select(0, places)))
        if changed.device.type == "cpu":
            for row, photo in zip(rows.tolist(), changed, strict=True):
                self.batch[row] = photo
        else:
            self.batch.index_copy_(0, places, changed)
        self.raw[rows] = False
