"""Photos of bytes become float32: each level what a table says, each pixel read from where a matrix says.

Most operations of a policy change a level alike wherever it is in the photo. They are done to the 256 levels instead of
the pixels, and a processor then writes each photo once (`kernels`); PyTorch does the same on any device.
"""

import functools
import os
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from mask_lib.augment import geometric, kernels

# Numba takes most of a second to import: kernels is imported where it is used.

LEVELS = 256
MOST_CHANNELS = 4  # for which `kernels` have room
SPARE: deque[np.ndarray] = deque(maxlen=1)  # memory of a batch that nothing holds any more
COMPILED = {"saturation": "saturated", "sharpness": "sharpened"}  # operations and their `kernels`


def as_float(photos: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) uint8 → float32 in [0, 1]; what is float32 already stays as it is."""
    return photos if photos.is_floating_point() else unfilled(photos).copy_(photos).div_(255)


def unfilled(photos: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) float32 of any numbers, as many as the photos and on their device.

    For the processor it is the memory of an earlier batch that nothing holds any more: of what is new the system fills
    every 4 KiB with zeros first, which takes longer than all the arithmetic. CUDA's allocator does the same by itself.
    """
    if photos.device.type != "cpu":
        return torch.empty(photos.shape, device=photos.device)
    try:
        memory = SPARE.pop()
    except IndexError:
        memory = None
    if memory is None or memory.size != photos.numel():
        memory = np.empty(photos.numel(), np.float32)
    lent = memory[:]  # lives as long as any tensor that shares it
    weakref.finalize(lent, SPARE.append, memory).atexit = False
    return torch.from_numpy(lent).view(photos.shape)


def level_tables(photos: torch.Tensor) -> torch.Tensor:
    """(B, C, 1, 256) float32 from 0 to 1: the levels of (B, C, H, W) uint8 photos, as if these were photos too."""
    tables = np.empty((*photos.shape[:2], 1, LEVELS), np.float32)
    tables[:] = np.arange(LEVELS, dtype=np.float32) / np.float32(255)
    return torch.from_numpy(tables).to(photos.device)


def level_counts(photos: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """(B, C, 1, 256) int64: how often each level occurs in the channels of the photos `rows`, (n,) int64.

    photos: (B, C, H, W) uint8; of others than `rows` the counts may be any.
    """
    shape = *photos.shape[:2], LEVELS
    if by_kernels(photos):
        from mask_lib.augment import kernels

        counts = np.empty(shape, np.int64)
        share_out(functools.partial(kernels.counted, photos.numpy(), counts), rows)
        return torch.from_numpy(counts)[:, :, None]
    at = torch.from_numpy(rows).to(photos.device)
    levels = photos.index_select(0, at).flatten(2).long()
    found = torch.zeros(len(rows), *shape[1:], dtype=torch.int64, device=photos.device)
    found.scatter_add_(2, levels, torch.ones_like(levels))
    return torch.zeros(shape, dtype=torch.int64, device=photos.device).index_copy_(0, at, found)[:, :, None]


def develop(
    photos: torch.Tensor, rows: np.ndarray, tables: torch.Tensor, to_input: torch.Tensor, out: torch.Tensor
) -> None:
    """Write the photos `rows`, (n,) int64, of (B, C, H, W) uint8 to `out`, (B, C, H, W) float32.

    tables: (B, C, 1, 256) float32. to_input: (n, 3, 3) float32 matrices, as `movements` has them.
    """
    if by_kernels(photos):
        from mask_lib.augment import kernels

        in_pixels, resampled = np.empty((len(photos), 2, 3), np.float32), np.empty(len(photos), bool)
        in_pixels[rows] = geometric.in_pixels(to_input, *photos.shape[2:])
        resampled[rows] = ~geometric.shifts_only(to_input)
        given = photos.numpy(), tables[:, :, 0].numpy(), in_pixels, resampled, out.numpy()
        share_out(functools.partial(kernels.developed, *given), rows[resampled[rows].argsort()])
    else:
        at = torch.from_numpy(rows).to(photos.device)
        levels = photos.index_select(0, at)
        toned = tables[at].flatten(2).gather(2, levels.flatten(2).long()).view(levels.shape)
        out.index_copy_(0, at, geometric.moved(toned, to_input))


def retouch(batch: torch.Tensor, name: str, rows: np.ndarray, values: torch.Tensor) -> None:
    """Do one of `COMPILED` in place to the photos `rows`, (n,) int64, of (B, C, H, W) float32, by (n,) values."""

    of_all = np.empty(len(batch), np.float32)
    of_all[rows] = values
    share_out(functools.partial(getattr(kernels, COMPILED[name]), batch.numpy(), of_all), rows)


def by_kernels(photos: torch.Tensor) -> bool:
    """Whether `kernels` can have (B, C, H, W) photos: on a processor, of few channels, more than a line of pixels."""
    return photos.device.type == "cpu" and photos.shape[1] <= MOST_CHANNELS and min(photos.shape[2:]) >= 2


def share_out(work: Callable[[np.ndarray], None], rows: np.ndarray) -> None:
    """Have `work` done on (n,) int64 rows, on as many threads as PyTorch has; neighbours go to different ones."""
    threads = min(torch.get_num_threads(), len(rows))
    parts = [np.ascontiguousarray(rows[number::threads]) for number in range(threads)]
    others = [helpers().submit(work, part) for part in parts[1:]]
    for part in parts[:1]:
        work(part)
    for other in others:
        other.result()


@functools.cache
def helpers() -> ThreadPoolExecutor:
    """Threads that wait for work."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="develop")


os.register_at_fork(after_in_child=helpers.cache_clear)  # a process that forks leaves its threads behind
