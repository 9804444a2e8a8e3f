"""A policy applied to a whole batch, on the device it lies on, with parameters of its own for each photo.

All random numbers of a batch are drawn on the CPU, so that a seed gives the same parameters on any device, and go to
the photos in one tensor. Which photos take which operation is known on the CPU: nothing here waits for a GPU.
"""

import functools

import numpy as np
import torch

from mask_lib.augment import color, geometric
from mask_lib.augment.geometric import NAMES
from mask_lib.augment.policy import MAGNITUDE_BINS, OPERATIONS, Policy, Step, magnitude_range, named_policy

EXAMPLE_MAGNITUDES = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISE = color.NOISE | geometric.NOISE
CHANGES = {name: getattr(color, name, None) or getattr(geometric, name, None) for name in NAMES}


def augment(photos: torch.Tensor, policy: Policy | str, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8, or float in [0, 1] → the same in float32, augmented, on the same device.

    policy: a policy, a preset's name, or the path of a policy's .json file. generator: a CPU one. Operations that
    need colours leave photos of other than three channels as they are. The given photos are not changed.
    """
    policy = named_policy(policy) if isinstance(policy, str) else policy
    batch = _as_float(photos)
    if not policy.sub_policies or not len(batch):
        return batch
    return _applied(batch, *draw(policy, len(batch), generator))


def perform(photos: torch.Tensor, name: str, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same with one operation alone, by (B,) values in its unit with their signs."""
    uniform = torch.rand(len(photos), 1, _width([name]), generator=generator)
    uniform[:, 0, 0] = values
    return _applied(_as_float(photos), torch.full((len(photos), 1), NAMES.index(name)), uniform)


def _as_float(photos: torch.Tensor) -> torch.Tensor:
    """A contiguous float32 copy in [0, 1]."""
    batch = photos.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return batch if photos.is_floating_point() else batch.div_(255)


def draw(policy: Policy, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What `count` photos draw from a policy of up to K steps.

    (count, K) int64 operations, numbers in `NAMES`, identity where a step is not taken; (count, K, P) float32
    parameters: the value in the operation's unit with its sign, then numbers uniform in [0, 1).
    """
    operation, probability, low, high, is_binned = _steps_table(policy)
    chosen = torch.randint(len(operation), (count,), generator=generator)
    operation = operation[chosen]
    uniform = torch.rand(
        *operation.shape, 2 + _width([step[0] for sub in policy.sub_policies for step in sub]), generator=generator
    )
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
    filled = [(*sub, *[Step("identity")] * (longest - len(sub))) for sub in policy.sub_policies]
    rows = [
        (
            NAMES.index(step.operation),
            step.probability,
            *(OPERATIONS[step.operation].value(end) for end in magnitude_range(step)),
            step.magnitude is None,
        )
        for sub in filled
        for step in sub
    ]
    return tuple(torch.tensor(column).view(len(filled), longest) for column in zip(*rows, strict=True))


def _applied(batch: torch.Tensor, operation: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) float32, which may be overwritten, by (B, K) operations with (B, K, P) parameters, step by step."""
    if batch.shape[1] != 3:
        needs_colors = torch.tensor([one.needs_colors for one in OPERATIONS.values()])
        operation = operation.where(~needs_colors[operation], 0)
    operation, parameters = geometric.compose(operation, parameters, *batch.shape[2:])
    # In the order of their operations, those photos that take the same one are a slice of the table.
    order = operation.argsort(dim=0, stable=True)[..., None]
    table = torch.cat([order, parameters.gather(0, order.expand_as(parameters))], dim=2)  # (B, K, 1 + P)
    if batch.device.type == "cuda":
        table = table.pin_memory().to(batch.device, non_blocking=True)
    for place in range(operation.shape[1]):
        numbers, counts = operation[:, place].unique(return_counts=True)
        for number, part in zip(numbers.tolist(), table[:, place].split(counts.tolist()), strict=True):
            batch = _changed(batch, NAMES[number], part)
    return batch


def _changed(batch: torch.Tensor, name: str, part: torch.Tensor) -> torch.Tensor:
    """The batch with one operation on some photos; part: (n, 1 + P), their rows, values and uniform numbers."""
    if name == "identity":
        return batch
    rows, values, uniform = part[:, 0].long(), part[:, 1], part[:, 2:]
    if len(rows) == len(batch):
        return CHANGES[name](batch, values, uniform)
    return batch.index_copy_(0, rows, CHANGES[name](batch[rows], values, uniform))


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
        images += list(_pictures(perform(batch, name, values, torch.Generator().manual_seed(seed))))
        titles += [name if magnitude is None else f"{name} {magnitude:g}" for magnitude in magnitudes]
    return images, titles


def _pictures(batch: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) float32 in [0, 1] → (B, H, W, C) uint8."""
    return (batch * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
