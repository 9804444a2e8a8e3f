"""What k test-time views cost, as a multiple of k times one view; at most 1.1 is wanted.

Run it with `python benchmarks/tta.py [architecture] [side] [photos]`; it prints ratios, on the GPU if there is one, of
the fastest of several rounds each, since whatever else the machine does can only slow a round down.
"""

import sys
import time

import numpy as np
import torch

from mask_lib.data import store
from mask_lib.models import build, devices, predict

ROUNDS = 5
KINDS = [(1, "faces"), (4, "faces"), (8, "faces"), (4, "dihedral"), (8, "dihedral")]


def seconds(loaded: predict.Loaded, source: devices.DevicePhotos, tta: predict.Tta) -> float:
    """One pass over all photos, on a CPU this process's own time; its result is there, so nothing is left running."""
    clock = time.perf_counter if source.device.type == "cuda" else time.process_time
    started = clock()
    loaded.predict(source, np.arange(len(source.store.images)), tta)
    return clock() - started


def main(architecture: str, side: int, count: int) -> None:
    device = devices.pick_device()
    images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    opened = store.Store(images, {str(row): row for row in range(count)}, "", store.Frame(side, side))
    source = devices.DevicePhotos(opened, device)
    network = build.build_network(architecture).to(device, memory_format=torch.channels_last)
    preprocessing = build.preprocessing_of(architecture, store.Frame(side, side))
    loaded = predict.Loaded(network, preprocessing, devices.dtype_for("auto", device))
    settings = [predict.Tta(*kind) for kind in KINDS]
    seconds(loaded, source, settings[0])  # warm up
    rounds = [[seconds(loaded, source, tta) for tta in settings] for _ in range(ROUNDS)]
    fastest = np.min(rounds, axis=0)
    print(f"{architecture} at {side} px, {count} photos, {devices.device_name(device)}")
    print(f"one view: {count / fastest[0]:,.0f} photos a second")
    for tta, taken in zip(settings[1:], fastest[1:], strict=True):
        ratio = taken / (tta.num_tta * fastest[0])
        print(f"{tta.num_tta} views, {tta.tta_views} / {tta.num_tta} x one view: {ratio:.3f}")


if __name__ == "__main__":
    given = sys.argv[1:] + ["tf_efficientnet_lite0", "128", "128"][len(sys.argv) - 1 :]
    main(given[0], int(given[1]), int(given[2]))
