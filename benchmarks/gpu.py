"""Everything that waits for a GPU, in one command of ten minutes: one table, printed and written as Markdown.

`python benchmarks/gpu.py [--minutes 10] [--weights FOLDER] [--photos FOLDER] [--out FILE.md] [--toy]`

weights: .safetensors files named by network, from which the seeds' networks start; else from scratch. photos: a data
folder or an archive of it; else the painted sample. What the time does not suffice for is left out, and the table says
so. toy: a dry run of every line, on a CPU too.
"""

import argparse
import contextlib
import datetime
import functools
import gc
import itertools
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gpu_parts as parts
import numpy as np
import timing
import timm
import torch
from gpu_parts import Setup

from mask_lib.augment import policy
from mask_lib.base import config, files, scores
from mask_lib.data import store
from mask_lib.models import build, checkpoint, devices, predict
from mask_lib.training import loop, runs

GOALS = {"resnet152": "≥ 0.97", "vit_base_patch16_224": "≥ 0.97", "resnet18": "≥ 0.90"}
MIXED = (("flip", "none"), ("faces", "none"), ("trivialaugment", "cutmix"), ("seed", "mixup"))
RESUMED = "import sys, gpu; gpu.print_resumed(*sys.argv[1:])"  # in a process of its own: deterministic mode stays there
CALLED = "synchronizing CUDA operation"  # torch's warning of one
TIME_AROUND = 25  # seconds of the ten minutes for what comes before the first line and after the last
GIB = 2**30


class Line(NamedTuple):
    """A line of the table."""

    what: str
    asked: str
    measure: Callable[[], str]
    seconds: float = 15  # it is not begun with less


def bound_lines(setup: Setup) -> Iterator[Line]:
    """What the device can do."""
    yield Line("copy on the device", "", lambda: f"{parts.bounds(setup)[0] / GIB:,.0f} GiB/s read and written")
    yield Line("product of matrices", "", lambda: f"{parts.bounds(setup)[1] / 1e12:,.1f} TFLOP/s")


def step_lines(setup: Setup) -> Iterator[Line]:
    """The pipeline against the network alone, and against what the device can do."""

    def ratio(network: str, size: int) -> str:
        through, alone = parts.step_seconds(setup, network, size)
        return f"{alone / through:.3f}: {parts.photos_a_second(size, (through, alone))}"

    def shares(network: str, size: int) -> str:
        through, (copied, computed) = parts.step_seconds(setup, network, size)[0], parts.bounds(setup)
        operations, moved = parts.work_of(setup, network, size)
        words = f"{operations / through / computed:.1%} of the product's FLOP/s"
        return f"{words}, {moved / through / copied:.1%} of the copy's bytes/s if no operators are fused"

    for size, network in itertools.product(setup.sizes.batches, setup.sizes.networks):
        name = f"{network}, batch {size}"
        yield Line(f"{name}: pipeline / fixed batch", GOALS.get(network, ""), functools.partial(ratio, network, size))
        yield Line(f"{name}: share of the bounds", "", functools.partial(shares, network, size))


def wait_lines(setup: Setup) -> Iterator[Line]:
    """How often the host waits for the device within a step."""

    def waits(augmentation: str, mixing: str) -> str:
        if setup.device.type != "cuda":
            return "torch counts them on a GPU alone"
        settings = {"augmentation": augmentation, "mixing": mixing}
        fold = parts.fold_of(setup, setup.sizes.networks[-1], setup.sizes.batches[0], **settings)

        def on_step(done: int) -> None:
            if done == 5:
                raise parts.EnoughError
            torch.cuda.set_sync_debug_mode("warn" if done == 4 else "default")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                parts.train_until_enough(setup, fold, on_step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in caught if CALLED in str(one.message)]
        return f"{len(places)} {' '.join(dict.fromkeys(places))}"

    for case in MIXED:
        yield Line(f"waits in a step, {case[0]}, mixing {case[1]}", "0", functools.partial(waits, *case))


def photo_lines(setup: Setup) -> Iterator[Line]:
    """Photos from files, once."""

    def prepared() -> str:
        seconds = timing.once(lambda: parts.folds_of(setup))
        return f"{len(parts.folds_of(setup)[1].images):,} photos in {seconds:.0f} s"

    yield Line("photos painted or unpacked, checked, hashed and decoded", "", prepared)


def loader_lines(setup: Setup) -> Iterator[Line]:
    """The same network fed from files."""

    def times(loader: Callable, network: str) -> str:
        size = setup.sizes.batches[0]
        ours, theirs = parts.step_seconds(setup, network, size)[0], parts.loader_seconds(setup, loader, network, size)
        return f"{theirs / ours:.1f}: {parts.photos_a_second(size, (ours, theirs))}"

    networks = [one for one in setup.sizes.networks if "resnet" in one]
    for (what, loader), network in itertools.product(LOADERS.items(), networks):
        asked = "≥ 4" if (what, network) == ("DataLoader", "resnet152") else ""
        name = f"{network}: pipeline / {what}, {setup.sizes.workers} workers"
        yield Line(name, asked, functools.partial(times, loader, network), 30)


def print_resumed(folder: str, *toy: str) -> None:
    """Train a fold, and again with a stop and a resume; print whether the last checkpoints hold the same bits."""
    sizes, is_new = parts.TOY if toy else parts.Sizes(count=80), "deterministic" in config.Run.model_fields
    setup = Setup(sizes, devices.pick_device(), Path(folder))
    settings = {"mixing": "cutmix", "augmentation": "trivialaugment", **({"deterministic": True} if is_new else {})}
    run, source = (
        parts.run_of(setup, sizes.networks[0 if toy else 2], sizes.seed_batch, **settings),
        parts.resident(setup),
    )

    def stop(done: int) -> None:
        if done == 7:  # in the second of two epochs of five steps
            raise parts.EnoughError

    def train(name: str, **options: object) -> dict[str, str]:
        network, target = parts.built(setup, run), setup.folder / name / "fold0"
        split = parts.split_of(source, 5 * sizes.seed_batch)
        loop.train_fold(run, 0, split, source, target, network, network, **options)
        return checkpoint.read_manifest(target / "checkpoint/last.safetensors")["digests"]

    whole = train("whole")
    with contextlib.suppress(parts.EnoughError):
        train("stopped", checkpoint_seconds=0, on_step=stop)
    same = "yes" if train("stopped") == whole else "no"
    print(f"{same}, {run.architecture}{'' if is_new else '; this version has no deterministic mode'}")


def resume_lines(setup: Setup) -> Iterator[Line]:
    """Whether a resumed run is the run."""

    def resumed() -> str:
        folder = setup.folder / "resumed"
        folder.mkdir()
        command = [sys.executable, "-c", RESUMED, str(folder), *["toy"] * (setup.sizes is parts.TOY)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return done.stdout.strip().splitlines()[-1]

    yield Line("stopped and resumed, the same bits", "yes", resumed, 40)


def augmentation_lines(setup: Setup) -> Iterator[Line]:
    """What a preset, reading and normalising add to the network's step."""

    def share(network: str, size: int, preset: str) -> str:
        through, alone = parts.step_seconds(setup, network, size, preset)
        return f"{1 - alone / through:.1%} of a step"

    network = setup.sizes.networks[0]
    for size, preset in itertools.product(setup.sizes.batches, policy.PRESET_POLICIES):
        name = f"{network}, batch {size}: reading and augmentation {preset}"
        yield Line(name, "", functools.partial(share, network, size, preset))


def view_lines(setup: Setup) -> Iterator[Line]:
    """Prediction, with test-time views."""
    network, size, side = setup.sizes.networks[0], setup.sizes.batches[-1], setup.sizes.side

    @functools.cache
    def seconds(count: int) -> float:
        built, source = parts.built(setup, parts.run_of(setup, network, size)), parts.resident(setup)
        preprocessing = build.preprocessing_of(network, store.Frame(side, side))
        loaded = predict.Loaded(built, preprocessing, devices.dtype_for("auto", setup.device), size)
        rows = np.arange(2 * size)
        return parts.pace(setup, lambda: loaded.predict(source, rows, predict.Tta(count))) / len(rows)

    def views(count: int) -> str:
        times = f"{seconds(count) / seconds(1) / count:.2f} × the cost of as many single views, " if count > 1 else ""
        return f"{times}{1 / seconds(count):,.0f} photos/s"

    for count, asked in {1: "", 4: "≤ 1.1", 8: "≤ 1.1"}.items():
        yield Line(f"{network}, prediction, views: {count}", asked, functools.partial(views, count))


def upload_lines(setup: Setup) -> Iterator[Line]:
    """The way of decoded photos to the device."""

    def upload() -> str:
        if setup.device.type != "cuda":
            return "a CPU reads them where they are"
        there = parts.resident(setup).store
        seconds = timing.median(lambda: devices.DevicePhotos(there, setup.device), 3, device=setup.device)
        return f"{there.images.nbytes / seconds / GIB:.2f} GiB/s"

    yield Line("upload of the store", "", upload)


def seed_lines(setup: Setup) -> Iterator[Line]:
    """The seed notebooks' networks by their recipe, which is a run's defaults."""

    def trained(network: str) -> str:
        given = Path(setup.weights, f"{network}.safetensors").absolute()
        weights = str(given) if setup.weights and given.is_file() else "none"
        (folds, decoded), size = parts.folds_of(setup), setup.sizes.seed_batch
        run = parts.run_of(setup, network, size, run=network, weights=weights)
        started = time.perf_counter()
        found = runs.write_scores(runs.train_run(run, folds, decoded, setup.folder))
        seconds, peak = (time.perf_counter() - started) / len(folds), (found["peak_memory_bytes"] or 0) / GIB
        reached = scores.Score(**found["out_of_fold"]["macro_f1"])
        return f"macro F1 {reached}, {seconds:.0f} s a fold, {peak:.1f} GiB, weights {Path(weights).name}"

    for network in setup.sizes.seed_networks:
        yield Line(
            f"{network}, batches of {setup.sizes.seed_batch}, 3 folds of 2 epochs",
            "",
            functools.partial(trained, network),
            30,
        )


LOADERS = {"DataLoader": parts.plain_loader, "timm's loader": parts.timm_loader}
SECTIONS = (  # by importance
    bound_lines, step_lines, wait_lines, photo_lines, loader_lines, resume_lines, augmentation_lines, view_lines,
    upload_lines, seed_lines,
)  # fmt: skip


def head(device: torch.device) -> str:
    """The machine and the versions, in a line."""
    card, driver = devices.device_name(device), "no GPU"
    if device.type == "cuda":
        card += f" with {torch.cuda.get_device_properties(device).total_memory / GIB:.0f} GiB"
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError):
            driver = f"driver {subprocess.run(asked, capture_output=True, text=True).stdout.split()[0]}"
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, timm {timm.__version__}"
    dtype = str(devices.dtype_for("auto", device)).removeprefix("torch.")
    return f"{card}, {driver}, {versions}, Python {platform.python_version()}, {dtype}, {datetime.date.today()}"


def out_of_time(number: int, frame: object) -> None:
    """What the alarm does."""
    raise TimeoutError("the time was up")


def measured(line: Line, left: float) -> str:
    """What a line comes to with so many seconds left; of an error its text."""
    if left < line.seconds:
        return f"left out: {max(left, 0):.0f} s were left"
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # progress is not for the table
            return line.measure()
    except Exception as error:
        return f"failed: {textwrap.shorten(f'{type(error).__name__}: {error}', 160)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fill(setup: Setup, out: Path, deadline: float) -> None:
    """Measure line by line, print each, and write the table after it: who ends this early has the lines so far."""
    rows = [f"{head(setup.device)}\n", "| what | asked | measured |", "|---|---|---|"]
    print("\n".join(rows), flush=True)
    for line in itertools.chain.from_iterable(section(setup) for section in SECTIONS):
        text = measured(line, deadline - time.monotonic()).replace("|", "/")
        rows.append(f"| {line.what} | {line.asked} | {text} |")
        print(rows[-1], flush=True)
        with files.replacing(out) as temporary:
            temporary.write_text("\n".join([*rows, ""]), encoding="utf-8")
        gc.collect()
        if setup.device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--weights", default="", metavar="FOLDER")
    parser.add_argument("--photos", default="", metavar="FOLDER")
    parser.add_argument("--out", default="outputs/gpu.md", metavar="FILE.md")
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    deadline, device = time.monotonic() + 60 * given.minutes - TIME_AROUND, devices.pick_device()
    if device.type != "cuda" and not given.toy:
        print(
            "There is no GPU here that torch can use, so nothing was measured; --toy runs every line small, on the CPU."
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = parts.TOY if given.toy else parts.Sizes()
        out = Path(given.out).absolute()
        fill(Setup(sizes, device, Path(folder), given.photos, given.weights), out, deadline)
    print(f"\nThe table is in {files.shown_path(out)}")


if __name__ == "__main__":
    main()
