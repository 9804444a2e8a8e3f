"""A toy set that a tiny network learns in seconds, and toy runs on it in processes that can be killed."""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import ConvNormAct, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.inception_v3 import InceptionAux, InceptionV3
from torch import nn

from mask_lib.base import config, files
from mask_lib.data import store
from mask_lib.data.splits import make_splits, write_splits
from mask_lib.models import checkpoint
from mask_lib.training import loop, run_folder, runs

CLASSES = (0, 4, 8, 9, 13, 17)
FRAME = store.Frame(width=16, height=24)
PEOPLE = 15
SETTINGS = {
    "run": "toy",
    "architecture": "test_resnet",
    "weights": "none",
    "image_width": FRAME.width,
    "image_height": FRAME.height,
    "folds": (0, 1),
    "epochs": 2,
    "batch_size": 6,
    "learning_rate": 0.05,
    "label_smoothing": 0.1,
    "attribute_loss": 0.5,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "augmentation": "faces",
    "dropout": 0.3,
    "checkpoint_choice": "best",
}


default_cfgs = generate_default_cfgs({"toy_inception": {"first_conv": "first.conv", "classifier": "fc"}})


class Inception(InceptionV3):
    """Timm's with a layer of eight channels before the auxiliary classifier and one after it."""

    def __init__(self, num_classes, in_chans=3, drop_rate=0.0, global_pool="avg", aux_logits=False):
        nn.Module.__init__(self)
        self.num_classes, self.num_features, self.head_hidden_size, self.aux_logits = num_classes, 8, 8, aux_logits
        self.first = ConvNormAct(in_chans, 8, 3)
        self.AuxLogits = InceptionAux(8, num_classes, ConvNormAct) if aux_logits else None
        self.second = ConvNormAct(8, 8, 3, stride=2)
        self.global_pool, self.head_drop, self.fc = create_classifier(8, num_classes, global_pool, drop_rate=drop_rate)

    def forward_preaux(self, photos):
        return self.first(photos)

    def forward_postaux(self, maps):
        return self.second(maps)


@register_model
def toy_inception(pretrained=False, **settings):
    """What `timm.create_model` calls."""
    return build_model_with_cfg(Inception, "toy_inception", pretrained, **settings)


def table(people: int = PEOPLE) -> pd.DataFrame:
    """Two photos a person, columns path, person, label; the classes take turns."""
    rows = [
        (f"{person:03d}/{name}.png", f"{person:03d}", CLASSES[person % len(CLASSES)])
        for person, name in itertools.product(range(people), ("mask1", "normal"))
    ]
    return pd.DataFrame(rows, columns=["path", "person", "label"])


def paint(label: int, generator: np.random.Generator, channels: int = 3) -> np.ndarray:
    """(H, W, C) uint8 noise with a colour and a bright half that tell its class."""
    photo = generator.integers(0, 60, (FRAME.height, FRAME.width, channels))
    number = CLASSES.index(label)
    photo[:, :, number % channels] += 120
    photo[: FRAME.height // 2] += 70 * (number // channels)
    return photo.astype(np.uint8)


def write_photos(data: Path, photos: pd.DataFrame, split: str = "train", channels: int = 3) -> None:
    """Paint every photo of a table under `<data>/<split>/images`."""
    generator = np.random.default_rng(0)
    for path, label in zip(photos["path"], photos["label"], strict=True):
        target = data / split / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(label, generator, channels)).save(target)


def splits(photos: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Two folds and a fifth of the people apart."""
    return make_splits(photos, fold_count=2, test_val_share=0.2, seed=0)


def prepare(data: Path, output: Path, channels: int = 3) -> None:
    """What 00_prepare_data leaves: painted photos, the photo table, the splits."""
    photos = table()
    write_photos(data, photos, "train", channels)
    evaluated = pd.DataFrame({"path": [f"{number:040x}.png" for number in range(12)], "label": CLASSES * 2})
    write_photos(data, evaluated, "eval", channels)
    files.write_csv(pd.DataFrame({"ImageID": evaluated["path"], "ans": 0}), data / "eval" / "info.csv")
    everything = pd.concat([photos.assign(split="train"), evaluated.assign(label=pd.NA, split="eval")])
    everything = everything.assign(mask="", gender="", age=pd.NA).astype({"label": "Int64"})
    files.write_csv(
        everything[["path", "person", "mask", "gender", "age", "label", "split"]], output / "tables" / "photos.csv"
    )
    write_splits(splits(photos), output)


def opened(data: Path, people: int = PEOPLE, channels: int = 3) -> store.Store:
    """The store of the toy's train photos."""
    frame = FRAME._replace(channels=channels)
    return store.open_store(data / "store", data / "train" / "images", list(table(people)["path"]), frame)


def official_layout(folder: Path) -> Path:
    """A folder with the toy in the competition's layout, and in `prepared` the tables of 00_prepare_data."""
    prepare(folder, folder / "prepared")
    (folder / "train" / "train.csv").write_text("id,gender,race,age,path\n")
    return folder


def train(
    data: Path,
    output: Path,
    checkpoint_seconds: float = 300,
    when_changed: str = "refuse",
    people: int = PEOPLE,
    **changes,
) -> run_folder.FinishedRun:
    """Train the toy run under `output`, with changed settings, on the photos of `data`."""
    run, options = config.Run(**{**SETTINGS, **changes}), {"when_changed": when_changed}
    options["checkpoint_seconds"] = checkpoint_seconds
    return runs.train_run(run, splits(table(people)), opened(data, people, run.image_channels), output, **options)


@contextlib.contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """Within it training breaks with StopIteration, which is expected, once so many steps are done."""
    import pytest  # late: a process that is to be killed needs none

    left, train_step = iter(range(steps)), loop.FoldTraining.train_step

    def step_or_stop(self, *arguments):
        next(left)
        return train_step(self, *arguments)

    with mock.patch.object(loop.FoldTraining, "train_step", step_or_stop), pytest.raises(StopIteration):
        yield


def results(output: Path, run: str = "toy") -> dict:
    """All checkpoints of all folds, optimizers too, histories and out-of-fold tables, without what tells the time.

    The checkpoint before the last, kept should the last be damaged, depends on how often one is written.
    """
    found = {}
    for fold in sorted((output / "runs" / run).glob("fold*")):
        for path in sorted({*fold.glob("checkpoint/[!.]*.safetensors")} - {fold / "checkpoint" / loop.PREVIOUS}):
            tensors = load_file(path)
            found |= {f"{fold.name}/{path.stem}/{key}": value.numpy().tobytes() for key, value in tensors.items()}
        history = pd.read_csv(fold / "history.csv").drop(columns=["seconds", "photos_per_second"])
        found[f"{fold.name}/history"] = history.to_csv(index=False)
        found[f"{fold.name}/oof"] = (fold / "oof.csv").read_bytes()
    return found


def train_and_die(
    data: Path, output: Path, kill_at: int | None, in_write: bool, checkpoint_seconds: float, changes: dict
) -> None:
    """Train, and after `kill_at` steps in all die by SIGKILL, at once or in the middle of the next checkpoint."""
    torch.set_num_threads(1)
    done, train_step = itertools.count(1), loop.FoldTraining.train_step

    def step_or_die(self, *arguments):
        loss = train_step(self, *arguments)
        if next(done) == kill_at:
            if not in_write:
                die()
            checkpoint.save_file = lambda tensors, path, metadata: (Path(path).write_bytes(b"half a file"), die())
        return loss

    loop.FoldTraining.train_step = step_or_die
    train(data, output, checkpoint_seconds, **changes)


def die() -> None:
    """What the kernel of a notebook suffers when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def exit_code(
    data: Path, output: Path, kill_at: int | None = None, in_write: bool = False, seconds: float = 0, **changes
) -> int:
    """How `train_and_die` ended, in a process forked from one that has torch loaded but never used."""
    context = multiprocessing.get_context("forkserver")
    # Not toys: a fork server does not know the tests' folder.
    context.set_forkserver_preload(["mask_lib.training.runs"])
    process = context.Process(target=train_and_die, args=(data, output, kill_at, in_write, seconds, changes))
    process.start()
    process.join(600)  # a fork server imports torch first, which takes minutes on a busy machine
    return process.exitcode
