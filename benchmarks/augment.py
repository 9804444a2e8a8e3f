"""What share of a training step augmentation takes, and how it compares with torchvision's, photo by photo.

Run it with `python benchmarks/augment.py [side] [batch ...]`. A step is EfficientNet Lite0's on the CPU; gpu.py
asks the same of a GPU. All is measured in turns within this one run; it prints ratios.
"""

import statistics
import sys
from collections.abc import Callable

import timing
import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from mask_lib.augment import apply
from mask_lib.base import labels

THREADS, ROUNDS, WARM_UP = 2, 15, 3
PRESETS = ("flip", "faces", "trivialaugment", "seed")
NETWORK = "tf_efficientnet_lite0"
TRANSFORM = v2.Compose([
    v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR), v2.ToDtype(torch.float32, scale=True)
])  # fmt: skip


def smooth_photos(count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) uint8 with the soft shapes of photos: noise would be treated like nothing else."""
    coarse = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    fine = functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).byte()


def training_step(photos: torch.Tensor) -> Callable[[], None]:
    """One update of a network on photos that are not augmented."""
    import timm

    batch = photos.float().div_(255).contiguous(memory_format=torch.channels_last)
    network = timm.create_model(NETWORK, num_classes=labels.class_count()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.arange(len(photos)) % labels.class_count()

    def step() -> None:
        functional.cross_entropy(network(batch), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(side: int, batch_size: int) -> None:
    torch.set_num_threads(THREADS)
    photos = smooth_photos(batch_size, side)
    calls = {"step": training_step(photos), "torchvision": lambda: torch.stack([TRANSFORM(photo) for photo in photos])}
    calls |= {name: lambda name=name: apply.augment(photos, name, torch.Generator()) for name in PRESETS}
    # In turns, so that whatever else the machine does slows all alike.
    rounds = [{name: timing.once(call) for name, call in calls.items()} for _ in range(WARM_UP + ROUNDS)]
    found = {name: statistics.median(one[name] for one in rounds[WARM_UP:]) for name in calls}
    print(f"{side} px, batch {batch_size}, {THREADS} threads, against a step of {NETWORK}")
    for name in PRESETS:
        print(f"  {name}: {found[name] / found['step']:.2%} of a step, {batch_size / found[name]:,.0f} photos/s")
    print(f"  trivialaugment: {found['torchvision'] / found['trivialaugment']:.1f}x torchvision's photos/s on the CPU")


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]] or [128]
    for batch in given[1:] or [32, 64]:
        main(given[0], batch)
