"""What each photo of a batch draws from a policy: operations, values and whatever else these need.

All of it comes from a CPU generator, so the same seed gives the same parameters on any device.
"""

import dataclasses
import functools
import math

import numpy as np
import torch

from mask_lib.augment import geometric
from mask_lib.augment.geometric import Drawn
from mask_lib.augment.policy import MAGNITUDE_BINS, OPERATIONS, Policy, Step

RANDOM_NUMBERS = 6  # for each step of each photo
EXTRA = 3  # of them, for the operation itself
NAMES = tuple(OPERATIONS)


@dataclasses.dataclass(frozen=True)
class Share:
    """Some photos of a batch, and the operation that they are to take."""

    name: str
    rows: np.ndarray  # (n,) int64
    drawn: Drawn

    def of(self, some: np.ndarray) -> "Share":
        """What of it belongs to some of its photos, (n,) bool."""
        return self if some.all() else Share(self.name, self.rows[some], self.drawn[some])


def draw(policy: Policy, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `count` photos draw from a policy with K steps at most.

    (count, K) int64 numbers of operations in `NAMES`, identity where a step does not strike; (count, K) float32
    values; (count, K, 3) float32 uniform in [0, 1).
    """
    operation, probability, magnitude = steps_table(policy)
    chosen = torch.randint(len(operation), (count,), generator=generator)
    uniform = torch.rand(count, operation.shape[1], RANDOM_NUMBERS, generator=generator)
    operation, probability, magnitude = operation[chosen], probability[chosen], magnitude[chosen]
    steps = (uniform[..., 1] * MAGNITUDE_BINS).floor() / (MAGNITUDE_BINS - 1)
    magnitude = torch.where(magnitude.isnan(), steps, magnitude)
    low, high, signed = ranges()
    values = low[operation] + magnitude * (high - low)[operation]
    values = torch.where(signed[operation] & (uniform[..., 2] < 0.5), -values, values)
    return torch.where(uniform[..., 0] < probability, operation, 0), values, uniform[..., -EXTRA:]


@functools.lru_cache(maxsize=16)
def steps_table(policy: Policy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(S, K) operations' numbers, probabilities and magnitudes of S sub-policies, filled up with identity."""
    longest = max(len(sub_policy) for sub_policy in policy.sub_policies)
    filled = [(*sub, *[Step("identity")] * (longest - len(sub))) for sub in policy.sub_policies]
    shape = (len(filled), longest)
    steps = [step for sub_policy in filled for step in sub_policy]
    operation = torch.tensor([NAMES.index(step.operation) for step in steps]).reshape(shape)
    probability = torch.tensor([step.probability for step in steps]).reshape(shape)
    magnitudes = [math.nan if step.magnitude is None else step.magnitude for step in steps]
    return operation.long(), probability, torch.tensor(magnitudes).reshape(shape)


@functools.cache
def ranges() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values at the magnitudes 0 and 1 of the operations, and whether they have a sign: three tensors by number."""
    of_all = OPERATIONS.values()
    low, high = (torch.tensor([getattr(operation, end) for operation in of_all]) for end in ("low", "high"))
    return low, high, torch.tensor([operation.signed for operation in of_all])


def shares(numbers: torch.Tensor, values: torch.Tensor, extra: torch.Tensor, generator: torch.Generator) -> list[Share]:
    """Which photos take which operation: (B,) numbers in `NAMES`, (B,) values and (B, 3) extra, parted by number."""
    order = numbers.argsort(stable=True)
    present, counts = numbers.unique(return_counts=True)
    parts = zip(
        *(one[order].split(counts.tolist()) for one in (torch.arange(len(numbers)), values, extra)), strict=True
    )
    found = []
    for number, (rows, *drawn) in zip(present.tolist(), parts, strict=True):
        name = NAMES[number]
        if name != "identity":
            found.append(Share(name, rows.numpy(), Drawn(*drawn, noise(name, len(rows), generator))))
    return found


def noise(name: str, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, …) float32 uniform in [-1, 1): as much as the operation needs for each photo, mostly nothing."""
    return 2 * torch.rand(count, *geometric.NOISE.get(name, (0,)), generator=generator) - 1
