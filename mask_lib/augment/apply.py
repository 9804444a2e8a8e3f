"""Augmentation of a whole batch at once, on the device it lies on, with parameters of its own for each photo."""

import dataclasses
import math

import numpy as np
import torch
from torch.nn import functional

from mask_lib.augment import color, development, operations
from mask_lib.augment.policy import OPERATIONS, PRESET_POLICIES, Policy, named_policy

EXAMPLE_MAGNITUDES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Strength:
    """How far one of the presets here goes; each photo draws uniformly within these bounds."""

    flip: float = 0.0  # probability of a horizontal flip
    degrees: float = 0.0
    scale: float = 0.0  # ± share of the size
    shift: float = 0.0  # ± share of width and height
    brightness: float = 0.0  # ± factor
    contrast: float = 0.0  # ± factor
    saturation: float = 0.0  # ± factor
    erase: float = 0.0  # probability of one grey rectangle of 2-15 % of the photo


# Faces are upright and nearly centred: a vertical flip or a quarter turn would show the network
# what it never meets.
PRESETS: dict[str, Strength] = {
    "none": Strength(),
    "flip": Strength(flip=0.5),
    "faces": Strength(
        flip=0.5, degrees=12, scale=0.15, shift=0.06, brightness=0.25, contrast=0.25, saturation=0.25, erase=0.25
    ),
}


def augment(photos: torch.Tensor, policy: Policy | str, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8 photos → (B, C, H, W) float32 in [0, 1], augmented, on the same device.

    policy: a policy, a preset's name, or the path of a policy's .json file. All random numbers come from
    `generator`, a CPU one: the same seed gives the same parameters on any device.
    """
    policy = named_policy(policy) if isinstance(policy, str) else policy
    if policy.name in PRESETS and policy == PRESET_POLICIES[policy.name]:
        return within(development.as_float(photos), PRESETS[policy.name], generator)
    return operations.apply(photos, policy, generator)


def within(batch: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) float32 in [0, 1] → the same, all that a strength holds done to each photo."""
    if strength == PRESETS["none"]:
        return batch
    if strength == PRESETS["flip"]:
        flipped = draw(len(batch), generator, 0, 1).to(batch.device) < strength.flip
        return torch.where(flipped.view(-1, 1, 1, 1), batch.flip(3), batch)
    batch = warp(batch, affine(batch, strength, generator))
    batch = recolour(batch, strength, generator)
    return erase(batch, strength.erase, generator)


def draw(count: int, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """(count,) float32 on the CPU, uniform in [low, high)."""
    return torch.rand(count, generator=generator) * (high - low) + low


def affine(batch: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """(B, 2, 3) float32 matrices, output to input coordinates in [-1, 1], as `affine_grid` takes them."""
    count, (height, width) = len(batch), batch.shape[2:]
    turn = torch.deg2rad(draw(count, generator, -strength.degrees, strength.degrees))
    zoom = torch.exp(draw(count, generator, -1, 1) * math.log1p(strength.scale))
    mirror = torch.where(draw(count, generator, 0, 1) < strength.flip, -1.0, 1.0)
    right, down = draw(count, generator, -2, 2) * strength.shift, draw(count, generator, -2, 2) * strength.shift
    cos, sin, aspect = torch.cos(turn) / zoom, torch.sin(turn) / zoom, width / height
    # The coordinates run from -1 to 1 along both sides, so a turn of a photo that is not square must
    # be squeezed by the aspect, or it would shear.
    rows = [mirror * cos, -mirror * sin / aspect, right, sin * aspect, cos, down]
    return torch.stack(rows, dim=1).view(count, 2, 3)


def warp(batch: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) float32 resampled by (B, 2, 3) matrices; the edge is mirrored, never black."""
    grid = functional.affine_grid(matrices.to(batch.device), list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def recolour(batch: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation of (B, C, H, W) float32 in [0, 1], clipped to it again.

    Saturation belongs to three colours: grey has none, and with a yellow beside them the four are stains of their
    own, whose mixing no microscope shows. Its factors are drawn all the same: a seed gives the same parameters
    whatever the channels.
    """
    count = len(batch)
    bright, contrast, colour = (
        (1 + draw(count, generator, -bound, bound)).view(-1, 1, 1, 1).to(batch.device)
        for bound in (strength.brightness, strength.contrast, strength.saturation)
    )
    middle = batch.mean(dim=(1, 2, 3), keepdim=True)
    batch = (batch - middle) * contrast + middle * bright
    if batch.shape[1] == 3:
        grey = batch.mean(dim=1, keepdim=True)
        batch = grey + (batch - grey) * colour
    return batch.clamp(0, 1)


def erase(batch: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Grey out one rectangle in a share of the photos (random erasing, Zhong et al. 2020)."""
    count, (height, width) = len(batch), batch.shape[2:]
    chosen = draw(count, generator, 0, 1) < probability
    area, log_aspect = draw(count, generator, 0.02, 0.15), draw(count, generator, -1, 1) * math.log(2)
    down, across = draw(count, generator, 0, 1), draw(count, generator, 0, 1)
    mask = color.rectangles(area, log_aspect, down, across, (height, width)) & chosen[:, None, None]
    return torch.where(mask[:, None].to(batch.device), 0.5, batch)


def preview(photos: torch.Tensor, policy: Policy | str, seed: int = 0) -> np.ndarray:
    """(B, C, H, W) uint8 photos → (B, H, W, C) uint8 as a network would meet them, for a look at the policy."""
    return pictures(augment(photos, policy, torch.Generator().manual_seed(seed)))


def examples(photos: torch.Tensor, seed: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Every operation of a policy at five magnitudes: (H, W, C) uint8 pictures and what each shows, five an operation.

    photos: (B, C, H, W) uint8; each operation takes the next one, or where it has no magnitude the next five.
    """
    images, titles = [], []
    for number, (name, operation) in enumerate(OPERATIONS.items()):
        magnitudes = EXAMPLE_MAGNITUDES if operation.unit else (None,) * len(EXAMPLE_MAGNITUDES)
        places = [number + (0 if operation.unit else turn) for turn in range(len(magnitudes))]
        batch = photos[[place % len(photos) for place in places]].float().div_(255)
        values = torch.tensor([operation.value(magnitude or 0.0) for magnitude in magnitudes])
        found = operations.perform(batch, name, values, torch.Generator().manual_seed(seed))
        images += list(pictures(found))
        titles += [name if magnitude is None else f"{name} {magnitude:g}" for magnitude in magnitudes]
    return images, titles


def pictures(batch: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) float32 in [0, 1] → (B, H, W, C) uint8."""
    return (batch * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
