"""How much of a training step is the network's: the rest is reading, augmenting and bookkeeping.

Run it with `python benchmarks/training.py [architecture] [side] [batch]`; it prints shares of one step, on the GPU if
there is one, all measured in this one run.
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
import timing
import torch

from mask_lib.augment import apply
from mask_lib.base import config, labels
from mask_lib.data import store
from mask_lib.models import build, devices
from mask_lib.training import loop

STEPS, WARM_UP = 8, 2


def main(architecture: str, side: int, batch_size: int) -> None:
    device, count = devices.pick_device(), 4 * batch_size
    images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    names = [f"{row:04d}/mask1.jpg" for row in range(count)]
    photos = store.Store(images, {name: row for row, name in enumerate(names)}, "", store.Frame(side, side))
    places = ["val"] + ["train"] * (count - 1)
    classes = np.arange(count) % labels.class_count()
    split = pd.DataFrame({"path": names, "person": names, "label": classes, "split": places})
    run = config.Run(
        architecture=architecture, weights="none", image_width=side, image_height=side, batch_size=batch_size,
        augmentation="faces",
    )  # fmt: skip
    fold = loop.FoldTraining(run, 0, split, devices.DevicePhotos(photos, device))
    network = build.build_network(architecture).to(device, memory_format=torch.channels_last)
    fold.start(network, network)
    network.train()
    rows = np.arange(batch_size)
    ready = fold.preprocessing.prepared(apply.augment(fold.photos.batch(rows), "none", torch.Generator()))
    target = torch.arange(batch_size, device=device) % labels.class_count()

    def network_alone() -> None:
        with devices.autocast(device, fold.dtype):
            logits = network(ready)
        torch.nn.functional.cross_entropy(logits.float(), target).backward()

    seconds = partial(timing.median, repeats=STEPS, warm_up=WARM_UP, device=device)
    whole = seconds(lambda: fold.train_step(rows, 0, 0, 1))
    read = seconds(lambda: fold.photos.batch(rows))
    augmented = seconds(lambda: apply.augment(fold.photos.batch(rows), "faces", torch.Generator())) - read
    alone = seconds(network_alone)
    print(f"{architecture} at {side} px, batch {batch_size}, {devices.device_name(device)}")
    print(f"photos/s: {batch_size / whole:,.0f}")
    print(f"forward and backward / step: {alone / whole:.1%}")
    print(f"reading / step: {read / whole:.2%}")
    print(f"augmentation / step: {augmented / whole:.2%}")


if __name__ == "__main__":
    given = sys.argv[1:] + ["tf_efficientnet_lite0", "128", "32"][len(sys.argv) - 1 :]
    main(given[0], int(given[1]), int(given[2]))
