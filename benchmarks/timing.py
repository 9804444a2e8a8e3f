"""Seconds of calls, as the benchmarks measure them."""

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def once(function: Callable[[], object], device: "torch.device | None" = None) -> float:
    """Seconds of one call, on a GPU until all that it started is done."""
    settle(device)
    started = time.perf_counter()
    function()
    settle(device)
    return time.perf_counter() - started


def median(
    function: Callable[[], object], repeats: int = 5, warm_up: int = 0, device: "torch.device | None" = None
) -> float:
    """Median seconds of several calls, after some that do not count."""
    times = [once(function, device) for _ in range(warm_up + repeats)]
    return statistics.median(times[warm_up:])


def settle(device: "torch.device | None") -> None:
    """Wait until a GPU has done all that was started."""
    if device is not None and device.type == "cuda":
        import torch  # late: what is measured without it should not wait for it

        torch.cuda.synchronize(device)
