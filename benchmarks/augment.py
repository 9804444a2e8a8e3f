"""What share of a training step augmentation takes, and how it compares with torchvision's, photo by photo.

Run it with `python benchmarks/augment.py [side] [batch ...]`. A step is resnet152's in bfloat16 on a GPU, EfficientNet
Lite0's on a CPU. All is measured in turns within this one run; it prints ratios.
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
from mask_lib.models import devices

THREADS, ROUNDS, WARM_UP = 2, 15, 3
PRESETS = ("flip", "faces", "trivialaugment", "seed")
NETWORKS = {"cuda": "resnet152", "cpu": "tf_efficientnet_lite0"}
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

    device, batch = photos.device, photos.float().div_(255).contiguous(memory_format=torch.channels_last)
    network = timm.create_model(NETWORKS[device.type], num_classes=labels.class_count())
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    target = torch.arange(len(photos), device=device) % labels.class_count()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(batch)
        functional.cross_entropy(logits.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(side: int, batch_size: int) -> None:
    torch.set_num_threads(THREADS)
    device = devices.pick_device()
    photos = smooth_photos(batch_size, side)
    there = photos.to(device)
    calls = {"step": training_step(there), "torchvision": lambda: torch.stack([TRANSFORM(photo) for photo in photos])}
    calls |= {name: lambda name=name: apply.augment(there, name, torch.Generator()) for name in PRESETS}
    # In turns, so that whatever else the machine does slows all alike.
    rounds = [{name: timing.once(call, device) for name, call in calls.items()} for _ in range(WARM_UP + ROUNDS)]
    found = {name: statistics.median(one[name] for one in rounds[WARM_UP:]) for name in calls}
    print(f"{side} px, batch {batch_size}, {devices.device_name(device)}, against a step of {NETWORKS[device.type]}")
    for name in PRESETS:
        print(f"  {name}: {found[name] / found['step']:.2%} of a step, {batch_size / found[name]:,.0f} photos/s")
    print(f"  trivialaugment: {found['torchvision'] / found['trivialaugment']:.1f}x torchvision's photos/s on the CPU")


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]] or [128]
    for batch in given[1:] or [32, 64]:
        main(given[0], batch)
