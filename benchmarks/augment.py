"""Augmentation of whole batches against torchvision's, photo by photo, and against a training step on a GPU.

Run it with `python benchmarks/augment.py [side] [batch ...]`. Both sides take TrivialAugmentWide, the same uint8 photos
and two threads to the same float32 batch, in memory that they have used before, in turns in this one run; it prints
ratios. On a GPU it prints as well which share of a resnet152's training step a batch's augmentation takes.
"""

import itertools
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import timing
import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from mask_lib.augment import apply, policy
from mask_lib.models import devices

THREADS, ROUNDS = 2, 15
STEPS, WARM_UP = 20, 5  # on a GPU
POLICY = policy.PRESET_POLICIES["trivialaugment"]


def smooth_photos(count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) uint8 with the soft shapes of photos: noise would be treated like nothing else."""
    coarse = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    fine = functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).byte()


def one_by_one(photos: torch.Tensor, interpolation: InterpolationMode) -> Callable[[int], torch.Tensor]:
    """torchvision's transform and conversion of each photo, as a data set's loader does it, into one batch."""
    transform = v2.Compose([
        v2.TrivialAugmentWide(interpolation=interpolation), v2.ToDtype(torch.float32, scale=True)
    ])  # fmt: skip

    batch = torch.empty(photos.shape)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([transform(photo) for photo in photos], out=batch)

    return run


def in_batches(photos: torch.Tensor) -> Callable[[int], torch.Tensor]:
    return lambda seed: apply.augment(photos, POLICY, torch.Generator().manual_seed(seed))


def against_torchvision(side: int, batch_size: int) -> None:
    """In turns, so that whatever else the machine does meets all alike; the median of each round's ratio."""
    torch.set_num_threads(THREADS)
    photos = smooth_photos(batch_size, side)
    ours = in_batches(photos)
    for interpolation in (InterpolationMode.NEAREST, InterpolationMode.BILINEAR):
        theirs = one_by_one(photos, interpolation)
        ours(0), theirs(0)
        pairs = np.array([[timing.once(partial(one, seed)) for one in (ours, theirs)] for seed in range(ROUNDS)])
        ratios, best = pairs[:, 1] / pairs[:, 0], batch_size / pairs.min(axis=0)
        print(
            f"batch {batch_size}, {interpolation.value}: {np.median(ratios):.1f}x torchvision's photos/s (median of {ROUNDS} rounds, from "
            f"{ratios.min():.1f}x to {ratios.max():.1f}x); at best {best[0]:,.0f}/s and {best[1]:,.0f}/s"
        )


def against_a_training_step(side: int, batch_size: int) -> None:
    """The share of a resnet152's step, in bfloat16 and channels_last, as `training` takes it."""
    import timm

    device = torch.device("cuda")
    photos = smooth_photos(batch_size, side).to(device)
    network = timm.create_model("resnet152", num_classes=18).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.arange(batch_size, device=device) % 18

    def step(batch: torch.Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(batch.contiguous(memory_format=torch.channels_last))
        functional.cross_entropy(logits.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    plain = photos.float().div_(255)
    ours, seeds = in_batches(photos), itertools.count()
    steps, alone, both = (
        timing.median(function, STEPS, WARM_UP, device)
        for function in (lambda: step(plain), lambda: ours(next(seeds)), lambda: step(ours(next(seeds))))
    )
    print(f"{devices.device_name(device)}: augmentation alone / step of resnet152: {alone / steps:.1%}")
    print(f"with augmentation a step takes {both / steps - 1:+.1%} ({batch_size / both:,.0f} photos/s)")


def main(side: int, batch_sizes: list[int]) -> None:
    print(f"TrivialAugmentWide at {side} px, {THREADS} threads")
    for batch_size in batch_sizes:
        against_torchvision(side, batch_size)
    if torch.cuda.is_available():
        against_a_training_step(side, batch_sizes[0])


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]] or [224]
    main(given[0], given[1:] or [64, 256])
