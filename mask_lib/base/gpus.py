"""The NVIDIA GPUs of the machine, asked of `nvidia-smi`, without torch."""

import functools
import os
import re
import subprocess
from typing import NamedTuple

# GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-5c89…) and, below one that is sliced,   MIG 3g.20gb Device 0: (UUID: MIG-ee4…)
LISTED = r"^ *(?:GPU \d+: )?(.+?):? \(UUID: (\S+)\)"


class Card(NamedTuple):
    """A GPU, or a MIG slice of one; CUDA_VISIBLE_DEVICES takes its `uuid` whatever the order of the indices."""

    name: str
    uuid: str


def cards() -> list[Card]:
    """The GPUs that this process may use: all, or those that CUDA_VISIBLE_DEVICES names, in its order, up to the first
    entry that names none, as CUDA reads it: indices as `nvidia-smi` counts, UUIDs or their beginnings.
    """
    listed = [Card(*found) for found in re.findall(LISTED, asked("-L"), re.MULTILINE)]
    whole = [card for card in listed if not card.uuid.startswith("MIG-")]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return whole
    chosen = []
    for entry in map(str.strip, visible.split(",")):
        indexed = whole[int(entry) :][:1] if entry.isdecimal() else []
        named = indexed or [card for card in listed if entry and card.uuid.startswith(entry)]
        if len(named) != 1:
            break
        chosen += named
    return chosen


@functools.cache
def asked(*options: str) -> str:
    """What `nvidia-smi` prints; "" where there is none or no driver, but not for a driver that an update replaced."""
    try:
        done = subprocess.run(["nvidia-smi", *options], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 or "version mismatch" in done.stdout else ""
