"""What the lines of gpu.py are measured with: sizes, photos, networks in training, loaders, and what a GPU can do."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import timing
import timm
import torch
from PIL import Image
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from mask_lib.base import config, files, labels
from mask_lib.data import duplicates, hashes, photos, splits, store
from mask_lib.models import build, devices
from mask_lib.sample import paint
from mask_lib.training import loop

TOY_SAMPLE = {"people": 9, "eval_people": 6, "width": 64, "height": 64, "faults": False, "workers": 1}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is that is measured."""

    side: int = 224  # pixels
    count: int = 4096  # photos on the device
    rows: int = 100_000  # of an epoch, in which they take turns: it is never trained to its end
    networks: tuple[str, ...] = ("resnet152", "vit_base_patch16_224", "resnet18", "tf_efficientnet_lite0")
    batches: tuple[int, ...] = (64, 256)
    seed_networks: tuple[str, ...] = ("resnet152", "vit_base_patch16_224", "custom_model")
    seed_batch: int = 16
    workers: int = 8
    span: float = 0.7  # seconds between two waits for the device
    spans: int = 5
    warm_up: int = 5  # steps
    matrix: int = 8192
    copied: int = 2**30  # bytes


TOY = Sizes(32, 48, 1000, ("test_resnet",), (4,), ("test_resnet",), 8, 1, 0.0, 1, 1, 64, 2**16)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every line is given."""

    sizes: Sizes
    device: torch.device
    folder: Path  # for everything that is written
    photos: str = ""
    weights: str = ""


class EnoughError(Exception):
    """Ends an epoch that is trained for its first steps."""


def calls_a_span(setup: Setup, call: Callable[[], object]) -> int:
    """How many calls make a span, from the pace of one that is warm."""
    return min(max(round(setup.sizes.span / timing.once(call, setup.device)), 3), 200)


def repeat(call: Callable[[], object], count: int) -> None:
    """Call it so often."""
    for _ in range(count):
        call()


def pace(setup: Setup, call: Callable[[], object], warm_up: int = 0) -> float:
    """Median seconds of a call; the device is waited for at the ends of spans of several calls alone."""
    repeat(call, max(setup.sizes.warm_up, warm_up))
    count = calls_a_span(setup, call)
    return timing.median(lambda: repeat(call, count), setup.sizes.spans, device=setup.device) / count


@functools.cache
def resident(setup: Setup) -> devices.DevicePhotos:
    """Random photos in a memory-mapped file, uploaded if the device is a GPU."""
    count, side = setup.sizes.count, setup.sizes.side
    images = np.lib.format.open_memmap(setup.folder / "photos.npy", "w+", np.uint8, (count, side, side, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    names = {f"{row:05d}/mask1.jpg": row for row in range(count)}
    return devices.DevicePhotos(store.Store(images, names, "", store.Frame(side, side)), setup.device)


def split_of(source: devices.DevicePhotos, row_count: int) -> pd.DataFrame:
    """A split with so many train rows, in which those photos take turns, but for every eighth, which is val."""
    names = list(source.store.row_of)
    train = itertools.islice(itertools.cycle([name for row, name in enumerate(names) if row % 8]), row_count)
    paths = [*train, *names[::8]]
    where = np.arange(len(paths)) < row_count
    return pd.DataFrame({"path": paths, "person": paths, "label": np.arange(len(paths)) % labels.class_count()}).assign(
        split=np.where(where, splits.TRAIN, splits.VAL)
    )


def run_of(setup: Setup, architecture: str, batch_size: int, **settings: object) -> config.Run:
    """A run's settings at the size that is measured; without first weights unless they are given."""
    side, chosen = setup.sizes.side, {"architecture": architecture, "weights": "none", **settings}
    return config.Run(image_width=side, image_height=side, batch_size=batch_size, **chosen)


def built(setup: Setup, run: config.Run) -> torch.nn.Module:
    """The network of a run on the device, in training."""
    return build.of_run(run).to(setup.device, memory_format=torch.channels_last).train()


def fold_of(setup: Setup, architecture: str, batch_size: int, **settings: object) -> loop.FoldTraining:
    """A fold in training on the resident photos."""
    run, source = run_of(setup, architecture, batch_size, **settings), resident(setup)
    fold = loop.FoldTraining(run, 0, split_of(source, setup.sizes.rows), source)
    network = built(setup, run)
    fold.start(network, network)
    return fold


def train_until_enough(setup: Setup, fold: loop.FoldTraining, on_step: Callable[[int], None]) -> None:
    """Train an epoch as training does, calling `on_step` after each step, until that raises EnoughError."""
    try:
        fold.train_epoch(setup.folder / "pace" / "fold0" / "checkpoint", 10**6, on_step, lambda: False)
    except EnoughError:
        return
    raise RuntimeError("the epoch ended before enough steps were taken: raise Sizes.rows")


def update(fold: loop.FoldTraining, batch: torch.Tensor, target: torch.Tensor) -> None:
    """A step of the same network and optimizer on (B, 3, H, W) photos on the device, with (B,) classes, and no more."""
    with devices.autocast(fold.device, fold.dtype):
        logits = fold.forward(batch)
    loss = functional.cross_entropy(logits.float(), target)
    fold.optimizer.zero_grad(set_to_none=True)
    fold.scaler.scale(loss).backward()
    fold.scaler.step(fold.optimizer)
    fold.scaler.update()


def fixed_step(setup: Setup, fold: loop.FoldTraining) -> Callable[[], None]:
    """That step on a batch that is ready on the device."""
    rows = np.arange(fold.run.batch_size)
    batch = fold.preprocessing.prepared(resident(setup).batch(rows).float() / 255)
    return functools.partial(update, fold, batch, torch.from_numpy(rows % labels.class_count()).to(setup.device))


@functools.cache
def step_seconds(setup: Setup, architecture: str, batch_size: int, augmentation: str = "faces") -> tuple[float, float]:
    """Median seconds of a step through the pipeline and of one on a fixed batch, measured in turns, span by span."""
    sizes, fold = setup.sizes, fold_of(setup, architecture, batch_size, augmentation=augmentation)
    alone, spans = fixed_step(setup, fold), []
    repeat(alone, sizes.warm_up)
    count, started = calls_a_span(setup, alone), 0.0

    def on_step(done: int) -> None:
        nonlocal started
        if (done - sizes.warm_up) % count or done < sizes.warm_up:
            return
        timing.settle(setup.device)
        if started:
            through = time.perf_counter() - started
            spans.append((through / count, timing.once(lambda: repeat(alone, count), setup.device) / count))
        if len(spans) == sizes.spans:
            raise EnoughError
        started = time.perf_counter()

    train_until_enough(setup, fold, on_step)
    through, fixed = map(statistics.median, zip(*spans, strict=True))
    return through, fixed


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, views apart: what kernels that are not fused have to move."""

    moved = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        """Call the operator, and add up its tensors; those of an expanded one only as far as there is memory behind."""
        found = function(*arguments, **(named or {}))
        if not function.is_view and "empty" not in function.name():
            tensors = [one for one in tree_leaves((arguments, named, found)) if isinstance(one, torch.Tensor)]
            self.moved += sum(min(one.nbytes, one.untyped_storage().nbytes()) for one in tensors)
        return found


def work_of(setup: Setup, architecture: str, batch_size: int) -> tuple[int, int]:
    """Floating point operations of a step's network, forward and backward, and the bytes that it moves."""
    step = fixed_step(setup, fold_of(setup, architecture, batch_size))
    with FlopCounterMode(display=False) as operations, Traffic() as traffic:
        step()
    return operations.get_total_flops(), traffic.moved


@functools.cache
def bounds(setup: Setup) -> tuple[float, float]:
    """Bytes a second of a copy, read and written; operations a second of a product of matrices."""
    dtype, side = devices.dtype_for("auto", setup.device), setup.sizes.matrix
    left, right, product = torch.ones(3, side, side, device=setup.device, dtype=dtype)
    here, there = torch.ones(2, setup.sizes.copied, device=setup.device, dtype=torch.uint8)
    copied, multiplied = pace(setup, lambda: there.copy_(here)), pace(setup, lambda: torch.mm(left, right, out=product))
    return 2 * len(here) / copied, 2 * side**3 / multiplied


@functools.cache
def data_of(setup: Setup) -> Path:
    """The data folder: the one that was given, else the painted sample."""
    if setup.photos:
        return photos.find_data(setup.photos, unpack_into=setup.folder / "unpacked")
    is_toy = setup.sizes is TOY
    folder = setup.folder / "sample" if is_toy else files.project_path("data/sample")
    paint.paint(folder, **(TOY_SAMPLE if is_toy else {}))
    return folder


@functools.cache
def folds_of(setup: Setup) -> tuple[dict[int, pd.DataFrame], store.Store]:
    """Three folds of the photos, by people and copies as 00_prepare_data makes them, and the photos decoded."""
    data, frame = data_of(setup), store.Frame(setup.sizes.side, setup.sizes.side)
    table, _ = photos.scan_photos(data)
    train, hashed = table[table["split"] == "train"], hashes.open_hashes(setup.folder / "hashes", data, table)
    copies = duplicates.write(table, hashed, duplicates.find(table, data, hashed), setup.folder)
    groups = duplicates.unite(table, *duplicates.without_shared(table, copies)[0])
    decoded = store.open_store(setup.folder / "store", data / "train/images", list(train["path"]), frame)
    return splits.make_splits(train, fold_count=3, groups=groups), decoded


class PhotoFiles(Dataset):
    """(photo, class) of JPEG files, over and over, as torchvision's ImageFolder gives them."""

    def __init__(self, photos: store.Store, transform: Callable | None = None):
        self.paths = [photos.root / path for path in photos.row_of if path.lower().endswith((".jpg", ".jpeg"))]
        self.transform = transform

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> tuple[object, int]:
        with Image.open(self.paths[index % len(self.paths)]) as image:
            return self.transform(image.convert("RGB")), index % labels.class_count()


def plain_loader(setup: Setup, batch_size: int) -> DataLoader:
    """A DataLoader as tutorials have it."""
    steps = [transforms.Resize((setup.sizes.side,) * 2), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD))
    dataset, is_gpu = PhotoFiles(folds_of(setup)[1], transforms.Compose(steps)), setup.device.type == "cuda"
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=setup.sizes.workers, pin_memory=is_gpu, timeout=60)


def timm_loader(setup: Setup, batch_size: int) -> DataLoader:
    """timm's own, with its prefetcher: random crops and flips, no change of colours."""
    how = {"is_training": True, "color_jitter": None, "num_workers": setup.sizes.workers, "device": setup.device}
    return timm.data.create_loader(PhotoFiles(folds_of(setup)[1]), (3, *[setup.sizes.side] * 2), batch_size, **how)


def loader_seconds(setup: Setup, loader: Callable[[Setup, int], DataLoader], architecture: str, size: int) -> float:
    """Median seconds of a step whose `size` photos come from files by a loader."""
    fold, batches = fold_of(setup, architecture, size), iter(loader(setup, size))

    def step() -> None:
        batch, target = (one.to(setup.device, non_blocking=True) for one in next(batches))
        update(fold, batch.contiguous(memory_format=torch.channels_last), target)

    return pace(setup, step, warm_up=3 * setup.sizes.workers)  # uses up what workers read before the first step


def photos_a_second(size: int, seconds: Sequence[float]) -> str:
    """Paces of steps of `size` photos, side by side."""
    return f"{' against '.join(f'{size / one:,.0f}' for one in seconds)} photos/s"
