"""A policy applied to a whole batch, on the device it lies on, with parameters of its own for each photo.

`plan` draws on the CPU, so that a seed gives the same parameters on any device, and sorts photos by operation;
`perform` changes the photos, knowing on the host which take which operation: nothing in it waits for a GPU.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from mask_lib.augment import color, geometric
from mask_lib.augment.geometric import NAMES
from mask_lib.augment.policy import MAGNITUDE_BINS, OPERATIONS, Policy, Step, magnitude_range, named_policy

EXAMPLE_MAGNITUDES = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISE = color.NOISE | geometric.NOISE
CHANGES = {name: getattr(color, name, None) or getattr(geometric, name, None) for name in NAMES}


class Plan(NamedTuple):
    """What each of B photos is to meet in up to K steps."""

    calls: list[list[tuple[str, int]]]  # at each step the operations, and how many photos take each
    rows: torch.Tensor  # (K, B) int64: which photos, in the order of those operations
    parameters: torch.Tensor  # (K, B, P) float32, of these photos: value in the operation's unit, uniform numbers


def augment(photos: torch.Tensor, policy: Policy | str, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8, or float in [0, 1] → the same in float32, augmented, on the same device.

    policy: a policy, a preset's name, or the path of a policy's .json file. generator: a CPU one. Operations that
    need colours leave photos of other than three channels as they are. The given photos are not changed.
    """
    policy = named_policy(policy) if isinstance(policy, str) else policy
    calls, *drawn = plan(policy, len(photos), photos.shape[1:], generator)
    return perform(photos, Plan(calls, *(one.to(photos.device) for one in drawn)))


def plan(
    policy: Policy, count: int, shape: Sequence[int], generator: torch.Generator, only: np.ndarray | None = None
) -> Plan:
    """What `count` photos of `shape` (C, H, W) draw from a policy; on the CPU. only: (B,) those of them to plan for."""
    if not policy.sub_policies or not count:
        return Plan([], torch.empty(0, 0, dtype=torch.int64), torch.empty(0, 0, 0))
    drawn = draw(policy, count, generator)
    return arranged(*(drawn if only is None else (one[torch.from_numpy(only)] for one in drawn)), shape)


def arranged(operation: torch.Tensor, parameters: torch.Tensor, shape: Sequence[int]) -> Plan:
    """The plan of (B, K) operations with (B, K, P) parameters for photos of (C, H, W)."""
    if shape[0] != 3:
        needs_colors = torch.tensor([one.needs_colors for one in OPERATIONS.values()])
        operation = operation.where(~needs_colors[operation], 0)
    operation, parameters = (one.transpose(0, 1) for one in geometric.compose(operation, parameters, *shape[1:]))
    order, calls = operation.argsort(dim=1, stable=True), []
    for numbers in operation:
        counts = numbers.bincount().tolist()
        calls.append([(NAMES[number], count) for number, count in enumerate(counts) if count])
    return Plan(calls, order, parameters.gather(1, order[..., None].expand_as(parameters)))


def perform(photos: torch.Tensor, plan: Plan) -> torch.Tensor:
    """(B, C, H, W) uint8, or float in [0, 1] → the same in float32, changed as a plan on the same device says."""
    batch = photos.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    batch = batch if photos.is_floating_point() else batch.div_(255)
    for calls, rows, parameters in zip(plan.calls, plan.rows, plan.parameters, strict=True):
        start = 0
        for name, count in calls:
            some, given, start = rows[start : start + count], parameters[start : start + count], start + count
            if count == len(batch) and name != "identity":  # in their own order
                batch = CHANGES[name](batch, given[:, 0], given[:, 1:])
            elif name != "identity":
                batch.index_copy_(0, some, CHANGES[name](batch[some], given[:, 0], given[:, 1:]))
    return batch


def draw(policy: Policy, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What `count` photos draw from a policy of up to K steps.

    (count, K) int64 operations, numbers in `NAMES`, identity where a step is not taken; (count, K, P) float32
    parameters: the value in the operation's unit with its sign, then numbers uniform in [0, 1).
    """
    operation, probability, low, high, is_binned = _steps_table(policy)
    chosen = torch.randint(len(operation), (count,), generator=generator)
    operation = operation[chosen]
    width = _width([step.operation for sub in policy.sub_policies for step in sub])
    uniform = torch.rand(*operation.shape, 2 + width, generator=generator)
    taken, sign, share = uniform[..., 0] < probability[chosen], uniform[..., 1], uniform[..., 2]
    share = torch.where(is_binned[chosen], (share * MAGNITUDE_BINS).floor() / (MAGNITUDE_BINS - 1), share)
    values = torch.lerp(low[chosen], high[chosen], share)
    signed = torch.tensor([one.signed for one in OPERATIONS.values()])[operation]
    uniform[..., 2] = torch.where(signed & (sign < 0.5), -values, values)
    return operation.where(taken, 0), uniform[..., 2:]


def _width(names: list[str]) -> int:
    """How many parameters a photo needs for a step: the value and uniform numbers, or a matrix."""
    return max(geometric.MATRIX, *(1 + NOISE.get(name, 0) for name in names))


@functools.lru_cache(maxsize=16)
def _steps_table(policy: Policy) -> tuple[torch.Tensor, ...]:
    """(S, K) each, sub-policies filled up with identity: operation, probability, lowest and highest value, binned."""
    longest = max(1, *map(len, policy.sub_policies))
    steps = [step for sub in policy.sub_policies for step in (*sub, *[Step("identity")] * (longest - len(sub)))]
    columns = (
        [NAMES.index(step.operation) for step in steps],
        [step.probability for step in steps],
        *zip(*(map(OPERATIONS[step.operation].value, magnitude_range(step)) for step in steps), strict=True),
        [step.magnitude is None for step in steps],
    )
    return tuple(torch.tensor(column).view(-1, longest) for column in columns)


def operated(photos: torch.Tensor, name: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) photos on the CPU with one operation alone, by (B,) values in its unit with their signs."""
    uniform = torch.rand(len(photos), 1, _width([name]), generator=generator)
    uniform[:, 0, 0] = values
    numbers = torch.full((len(photos), 1), NAMES.index(name))
    return perform(photos, arranged(numbers, uniform, photos.shape[1:]))


def preview(photos: torch.Tensor, policy: Policy | str, seed: int = 0) -> np.ndarray:
    """(B, C, H, W) uint8 photos → (B, H, W, C) uint8 as a network would meet them, for a look at the policy."""
    return _pictures(augment(photos, policy, torch.Generator().manual_seed(seed)))


def examples(photos: torch.Tensor, seed: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Every operation at five magnitudes: (H, W, C) uint8 pictures and what each shows, five an operation.

    photos: (B, C, H, W) uint8; each operation takes the next one, or where it has no magnitude the next five.
    """
    images, titles = [], []
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        magnitudes = EXAMPLE_MAGNITUDES if operation.unit else (None,) * len(EXAMPLE_MAGNITUDES)
        places = [number + (0 if operation.unit else turn) for turn in range(len(magnitudes))]
        batch = photos[[place % len(photos) for place in places]]
        values = torch.tensor([operation.value(magnitude or 0.0) for magnitude in magnitudes])
        images += list(_pictures(operated(batch, name, values, torch.Generator().manual_seed(seed))))
        titles += [name if magnitude is None else f"{name} {magnitude:g}" for magnitude in magnitudes]
    return images, titles


def _pictures(batch: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) float32 in [0, 1] → (B, H, W, C) uint8."""
    return (batch * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
