"""The NVIDIA GPUs of the machine, asked of `nvidia-smi`, without torch."""

import fcntl
import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-5c89…) and, below one that is sliced,   MIG 3g.20gb Device 0: (UUID: MIG-ee4…)
LISTED = r"^ *(?:GPU \d+: )?(.+?):? \(UUID: (\S+)\)"
WAIT = 0.5  # seconds between two looks for a card that was given back
held: list[int] = []  # descriptors of the locks of this process; a child that is to keep them takes them as `pass_fds`


class Card(NamedTuple):
    """A GPU, or a MIG slice of one; CUDA_VISIBLE_DEVICES takes its `uuid` whatever the order of the indices."""

    name: str
    uuid: str


def cards() -> list[Card]:
    """The GPUs that this process may use: all, or those of CUDA_VISIBLE_DEVICES up to the first that is none, as CUDA
    reads it: indices as `nvidia-smi` counts, UUIDs or their beginnings.
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


def take(count: int = 1) -> None:
    """Choose so many cards, by CUDA_VISIBLE_DEVICES, that no other process has taken; wait while there are fewer.

    Call it before CUDA starts. They are free once this process and all that inherited `held` have ended. On a machine
    with one card or none, and under torchrun (a card a rank), nothing is chosen. Raises ValueError for too many.
    """
    found = cards()
    if held or len(found) < 2 or "LOCAL_RANK" in os.environ:
        return
    if count > len(found):
        raise ValueError(f"processes = {count}: there are {len(found)} GPUs, and each process wants one of its own")
    folder = Path(tempfile.gettempdir(), f"mask_lib-{os.getuid()}-gpus")
    folder.mkdir(mode=0o700, exist_ok=True)
    told = False
    while len(mine := [card.uuid for card in found if len(held) < count and _locked(folder / card.uuid)]) < count:
        while held:
            os.close(held.pop())
        told or print(f"Of {len(found)} GPUs too many are taken: waiting ({folder})", file=sys.stderr, flush=True)
        told = True
        time.sleep(WAIT)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)


def _locked(path: Path) -> bool:
    """Whether this process could lock a file, which it then holds open; the system unlocks it, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    held.append(descriptor)
    return True
