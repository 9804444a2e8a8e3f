"""The device, its precision and memory, and photos brought to it in batches."""

import concurrent.futures
import contextlib
import functools
import itertools
import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch.nn import functional

from mask_lib.base import gpus
from mask_lib.data import store

UPLOAD_BLOCK = 512  # photos
SHARE_FOR_PHOTOS = 0.5  # of a GPU's free memory, that photos may fill
ALIGNED = 8  # bytes: the largest number that is sent
Item, Made = TypeVar("Item"), TypeVar("Made")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WAY_OUT = (
    "`make setup TORCH=cuda12` installs a torch for older GPUs and drivers, `make setup TORCH=cuda13` one for newer "
    "ones; with CUDA_VISIBLE_DEVICES= (empty) in the environment the CPU is used."
)

# For `configure`; CUDA reads it when it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pick_device() -> torch.device:
    """The first GPU if there is one, else the CPU, for which CUDA_VISIBLE_DEVICES may ask: empty, -1 or SLURM's way.

    Raises OSError for a GPU that is there and that this torch cannot use, with what to do.
    """
    if torch.cuda.is_available():
        problem = _missing_code()
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles") or not gpus.asked("-L"):
        return torch.device("cpu")
    else:
        problem = _missing_driver()
    if problem:
        raise OSError(f"{problem}. {WAY_OUT}")
    return torch.device("cuda")


def _missing_code() -> str:
    """What torch lacks to run on the current GPU, "" for nothing: machine code (sm_80) runs on cards of its major
    version from its minor one on, PTX (compute_80) on all later cards.
    """
    card, built = torch.cuda.get_device_capability(), ", ".join(torch.cuda.get_arch_list())
    codes = [(kind, int(major), int(minor)) for kind, major, minor in re.findall(r"(sm|compute)_(\d+)(\d)", built)]
    if not codes or any(code[1:] <= card and (code[0] == "compute" or code[1] == card[0]) for code in codes):
        return ""
    needs = f"{torch.cuda.get_device_name()} has compute capability {card[0]}.{card[1]}"
    return f"{needs}; torch {torch.__version__} has code for {built} only"


def _missing_driver() -> str:
    """Why torch sees no GPU although `nvidia-smi` lists some, or says that the driver was replaced under it."""
    if not (cards := gpus.cards()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        return f"None of these can be used (CUDA_VISIBLE_DEVICES is {visible}): {gpus.asked('-L').strip()}"
    driver = gpus.asked("--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0] or "unknown"
    needs = f"torch {torch.__version__} for CUDA {torch.version.cuda}, which wants a newer one or is not built for GPUs"
    return f"{cards[0].name} cannot be used: its driver is {driver}, and here is {needs}"


def device_name(device: torch.device) -> str:
    """What a table of results should call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def dtype_for(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products, from a name of `DTYPES`; `auto` is bfloat16 where a GPU has it, else float16."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def configure(device: torch.device, deterministic: bool = False) -> None:
    """Set a GPU for speed, TF32 and cuDNN's own choice of algorithms, or with `deterministic` for equal bits, slower.
    Operations without such an algorithm raise RuntimeError then.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Mixed precision in `dtype`; float32 switches it off."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def in_batches(rows: np.ndarray, size: int, answer: Callable[[np.ndarray], Any]) -> Iterator[Any]:
    """The answer to each batch of at most `size` rows; where a GPU's memory is too small, the size is halved, and said.

    Raises torch.OutOfMemoryError for what does not fit one by one.
    """
    start = 0
    while start < len(rows):
        try:
            yield answer(rows[start : start + size])
            start += size
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            torch.cuda.empty_cache()
            print(f"The GPU's memory is too small for that many photos at once: from here on {size}.")


def summary(source: "DevicePhotos", precision: str) -> str:
    """Where a network runs, in one line: the device, a GPU's memory, the precision, and where the photos lie."""
    device, photos, name = source.device, source.resident, device_name(source.device)
    if device.type == "cuda":
        name += f", {torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB"
    lie = "photos read from disk"
    if photos is not None:
        lie = f"{len(photos):,} photos resident, {photos.nbytes / 2**30:.1f} GiB"
    return f"Device: {name}; precision {str(dtype_for(precision, device)).removeprefix('torch.')}; {lie}"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU since `reset_peak_memory`, else of the machine by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Count a GPU's peak from here on; of a process the machine remembers only the peak of its life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@functools.lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """(N,) float32 on a device, copied there once: a copy in every step would make the host wait for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32).to(device)


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item], device: torch.device) -> Iterator[Made]:
    """What `make` gives of each item in turn; for a GPU made by a thread, one step before it is asked for."""
    if device.type != "cuda":
        yield from map(make, items)
        return
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        made = (thread.submit(make, item) for item in items)
        for ready, _ahead in itertools.pairwise(itertools.chain(made, [None])):
            yield ready.result()


class Packed(NamedTuple):
    """Tensors of several dtypes as the bytes of one, which go to a GPU in one copy that the host does not wait for."""

    data: torch.Tensor  # (bytes,) uint8, pinned for a GPU
    parts: list[tuple[torch.dtype, torch.Size]]

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], device: torch.device) -> Self:
        """CPU tensors, ready to be sent to a device; each begins at a multiple of 8 bytes."""
        flat = [one.contiguous().view(-1).view(torch.uint8) for one in tensors]
        data = torch.cat([functional.pad(one, (0, -len(one) % ALIGNED)) for one in flat])
        data = data.pin_memory() if device.type == "cuda" else data
        return cls(data, [(one.dtype, one.shape) for one in tensors])

    def on(self, device: torch.device) -> list[torch.Tensor]:
        """The same tensors on a device."""
        sizes = [shape.numel() * dtype.itemsize for dtype, shape in self.parts]
        padded = self.data.to(device, non_blocking=True).split([size + -size % ALIGNED for size in sizes])
        parts = zip(padded, sizes, self.parts, strict=True)
        return [one[:size].view(dtype).view(shape) for one, size, (dtype, shape) in parts]


class DevicePhotos:
    """A store's photos, given out as batches on a device; without loader workers, so nothing hangs in a notebook.

    Without `resident`, or if they fill half of a GPU's free memory or more, each batch is read from the memory map.
    """

    def __init__(self, photos: store.Store, device: torch.device, resident: bool = True):
        self.store, self.device, self.resident = photos, device, None
        if resident and self._fits():
            self.resident = torch.empty(photos.images.shape, dtype=torch.uint8, device=device)  # (N, H, W, C)
            for start in range(0, len(photos.images), UPLOAD_BLOCK):  # the machine's own memory may be smaller
                block = slice(start, start + UPLOAD_BLOCK)
                self.resident[block] = torch.from_numpy(np.array(photos.images[block]))

    def _fits(self) -> bool:
        images = self.store.images
        if self.device.type != "cuda" or not len(images):
            return False
        # What torch has freed and keeps for itself is free too.
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return images.nbytes < SHARE_FOR_PHOTOS * (torch.cuda.mem_get_info(self.device)[0] + kept)

    def asked_for(self, rows: np.ndarray) -> torch.Tensor:
        """For a batch of the store's (B,) int64 `rows`: them, or where photos are not resident (B, H, W, C) uint8."""
        return torch.from_numpy(rows if self.resident is not None else self.store.images[rows])

    def received(self, sent: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) uint8, laid out channels last, of what was `asked_for` and is on the device by now."""
        return (sent if self.resident is None else self.resident[sent]).permute(0, 3, 1, 2)

    def batch(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """(B, C, H, W) uint8 of the store's `rows`, laid out channels last."""
        sent = Packed.of([self.asked_for(np.asarray(rows, dtype=np.int64))], self.device)
        return self.received(*sent.on(self.device))
