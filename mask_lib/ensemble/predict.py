"""The answers of trained results to any folder of photos.

    python -m mask_lib.ensemble.predict RESULTS PHOTOS out.csv

RESULTS: an archive by `pack`, what it unpacks to, or an experiment's output folder. Each photo is answered by itself.
Broken off, it goes on after the last batch. Photos that cannot be read get no answer: see `out.problems.csv`.
"""

import dataclasses
import functools
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from mask_lib.base import config, files, labels
from mask_lib.data import archives, layout, photos, splits, store
from mask_lib.ensemble import blending, inference, pack
from mask_lib.models import devices, features, grad_cam, networks, predict
from mask_lib.models.checkpoint import changes, read_checkpoint
from mask_lib.training import dataset, run_folder

SIDE = 480  # pixels, at most, of a photo as it is shown
ENSEMBLE = "all together"
BATCH = 64  # photos, whose answers are on disk before the next are read
UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # no line of a CSV in UTF-8 can hold them
Images = dict[store.Frame, np.ndarray]  # (H, W, channels) uint8, or (N, H, W, channels), by what they were fit to


class Member(NamedTuple):
    """One run's networks, one a fold; those of frozen backbones are one with several heads."""

    networks: list[predict.Loaded]
    frame: store.Frame
    tta: predict.Tta

    def probabilities(self, images: np.ndarray, device: torch.device) -> np.ndarray:
        """(N, C) float64 of (N, H, W, channels) uint8."""
        source = devices.DevicePhotos(store.Store(images, {}, "", self.frame), device, resident=False)
        found = [one.predict(source, np.arange(len(images)), self.tta).astype(np.float64) for one in self.networks]
        return np.mean([one.reshape(len(images), -1, labels.class_count()) for one in found], axis=(0, 2))

    def maps(self, image: np.ndarray, label: int) -> dict[str, np.ndarray]:
        """`grad_cam.by_head` of one (H, W, channels) uint8 photo, the mean of the networks; raises as that does."""
        found = [grad_cam.by_head(one.network, one.preprocessing, image, label) for one in self.networks]
        return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def load(output_dir: Path, recipe: Mapping[str, Any], device: torch.device) -> tuple[list[Member], blending.Recipe]:
    """The members of `pack.current_recipe`, and how they blend.

    Raises OSError that names a damaged file, ValueError one that is not of the settings beside it.
    """
    members = []
    for member in recipe["members"]:
        settings, networks = run_folder.run_settings(output_dir, member["run"]), []
        for path, _ in run_folder.in_use(run_folder.folder_of(output_dir, member["run"])).values():
            state, manifest = read_checkpoint(path)
            if reasons := changes(manifest, {"run": settings.settings()}):
                other = f"{files.shown_path(path)} is not of the settings beside it ({'; '.join(reasons)})"
                raise ValueError(f"{other}: unpack the archive again, or run 03_one_model again")
            networks.append(predict.load_network(state, manifest, device))
        if settings.head == config.FROZEN:
            networks = [dataclasses.replace(networks[0], network=[one.network for one in networks])]
        members.append(Member(networks, store.Frame.of_run(settings), predict.Tta(**member["views"])))
    return members, blending.packed_recipe(recipe, [member["run"] for member in recipe["members"]])


def predict_folder(
    results_path: files.AnyPath, photo_dir: files.AnyPath, target: files.AnyPath, run: str = ""
) -> pd.DataFrame:
    """Answer every photo below a folder, write the table and return it; with `run` by that run alone.

    Columns as `answered` has them, without the last two. Raises as `pack.opened`, `load` and `photo_names`.
    """
    root, target, device = files.project_path(photo_dir), files.project_path(target), devices.pick_device()
    names, parts, written = photo_names(root), target.with_name(f".{target.name}.parts"), []
    with pack.opened(results_path, run) as (output, recipe), files.progress(total=len(names), what="predict") as bar:
        members, blend = load(output, recipe, device)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            states = [(root / name).is_file() and photos.file_state(root / name) for name in batch]
            written.append(parts / f"{files.digest([recipe, str(root), batch, states])}.csv")
            if not written[-1].exists():
                files.write_csv(answered(root, batch, members, blend, device), written[-1])
            bar.update(len(batch))
    table = pd.concat([files.read_csv(path, {}) for path in written], ignore_index=True)
    bad = table[table["problem"] != ""].rename(columns={"file": "path"})[photos.PROBLEM_COLUMNS]
    table = table.drop(columns=photos.PROBLEM_COLUMNS[1:])
    files.write_csv(bad, target.with_suffix(".problems.csv"))
    files.write_csv(table, target)
    shutil.rmtree(parts)
    return table


def photo_names(root: Path) -> list[str]:
    """The photos below a folder, by their endings, sorted. Raises FileNotFoundError if there is none."""
    found = sorted(layout.files_below(root)) if root.is_dir() else []
    found = [name for name in found if os.path.splitext(name.lower())[1] in layout.ENDINGS]
    if names := [name for name in found if not any(map(archives.is_junk, Path(name).parts))]:
        return names
    endings = " ".join(sorted(layout.ENDINGS))
    raise FileNotFoundError(f"no photo below {files.shown_path(root)}: give a folder of files that end with {endings}")


def answered(
    root: Path, names: Sequence[str], members: Sequence[Member], blend: blending.Recipe, device: torch.device
) -> pd.DataFrame:
    """Answers to photos: file; `<attribute>`, the likeliest value in words, and `<attribute>_probability`, of each
    attribute; `label`, the likeliest class, and `label_words`; `problem` and `detail`, for which all but file is blank.
    """
    frames = list(dict.fromkeys(one.frame for one in members))
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(lambda name: decoded(root / name, frames), names))
    sound = [row for row, one in enumerate(read) if isinstance(one, dict)]
    found, columns = np.empty((0, labels.class_count())), {}
    if sound:
        images = {frame: np.stack([read[row][frame] for row in sound]) for frame in frames}
        found = blend.blend(np.stack([one.probabilities(images[one.frame], device) for one in members]))
    for name, alone in labels.marginals(found).items():
        columns[name] = [labels.attribute(name).words[value] for value in alone.argmax(axis=1)]
        columns[f"{name}_probability"] = alone.max(axis=1)
    columns["label"] = found.argmax(axis=1).astype(str)
    columns["label_words"] = [labels.describe(label) for label in found.argmax(axis=1)]
    shown = [UNFIT.sub(lambda odd: odd[0].encode("unicode_escape").decode(), name) for name in names]
    why = [("", "") if isinstance(one, dict) else (str(one[0]), photos.printable(one[1])) for one in read]
    table = pd.DataFrame({"file": shown}).join(pd.DataFrame(columns, index=sound))
    return table.join(pd.DataFrame(why, columns=photos.PROBLEM_COLUMNS[1:]))


def decoded(path: Path, frames: Sequence[store.Frame]) -> Images | tuple[str, str]:
    """A photo in each frame, or (problem, detail) of one that cannot be read."""
    try:
        return photos.check_photo(path) or {frame: store.decode(path, frame) for frame in frames}
    except OSError as error:
        return layout.Problem.UNREADABLE, photos.reason(error)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What results say of a photo, by what; why, and what was like it in training, is found when it is asked for."""

    results: "Results"
    images: Images
    photo: np.ndarray  # (H, W, 3) uint8, upright
    said: pd.DataFrame  # columns member, weight, p00 …: first of the ensemble, then of each member if there are several

    @functools.cached_property
    def explained(self) -> tuple[list[tuple[str, np.ndarray, np.ndarray]], list[str]]:
        """Maps: of what, the photo as seen, (H, W, C) uint8, and (H, W) in [0, 1]; sentences on what is not shown."""
        found, notes = [], []
        label = int(self.said[labels.probability_columns()].iloc[0].argmax())
        words = {name: labels.attribute(name).words[value] for name, value in labels.values_of(label).items()}
        for member, name in zip(self.results.members, self.results.names, strict=True):
            try:
                own = member.maps(self.images[member.frame], label)
            except networks.UnsupportedError as error:
                notes.append(f"Where {name} looks is not shown: {error}.")
                continue
            told = {head: f"{head}: {words[head]}" if head in words else labels.describe(label) for head in own}
            found += [(f"{name}\n{told[head]}", self.images[member.frame], one) for head, one in own.items()]
        return found, notes + self.results.notes

    @functools.cached_property
    def nearest(self) -> pd.DataFrame:
        """Training photos: path, person, label, split, likeness, the nearest first."""
        if self.results.known is None:
            return pd.DataFrame(columns=["path", "person", "label", "split", "likeness"])
        table = self.results.known.assign(likeness=self.results.likeness(self.images[self.results.seen]))
        return table.dropna(subset="label").nlargest(self.results.neighbours, "likeness").reset_index(drop=True)

    def thumbnails(self) -> list[np.ndarray]:
        """(H, W, 3) uint8 of the nearest."""
        return photos.thumbnails(self.results.data or "", self.nearest)


class Results:
    """Trained results that answer one photo after another.

    source, run: as of `pack.opened`. neighbours: how many training photos are shown. Raises as `opened` and `load`.
    """

    def __init__(self, source: files.AnyPath, run: str = "", neighbours: int = 6) -> None:
        self.device, self.neighbours, self.notes = devices.pick_device(), neighbours, []
        with pack.opened(source, run) as (output, recipe):
            self.members, self.blend = load(output, recipe, self.device)
            self.names = [member["run"] for member in recipe["members"]]
            self.data = run_folder.data_of(run_folder.folder_of(output, self.names[0]))
            try:
                self.known, self.likeness, self.seen = known_photos(output, self.data)
            except (OSError, ValueError) as error:
                self.notes.append(f"The nearest training photos are not shown: {error}.")
                self.known = None
            self.example = first_evaluated(output, self.data)

    def answer(self, path: Path) -> Answer:
        """What they say of a photo's file. Raises ValueError that says why it is no photo."""
        frames = {one.frame: None for one in self.members} | ({self.seen: None} if self.known is not None else {})
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            images = decoded(path, list(frames))
        if not isinstance(images, dict):
            raise ValueError(f"{str(images[0]).replace('_', ' ')}: {images[1]}")
        (photo,) = photos.thumbnails("", pd.DataFrame({"path": [str(path)], "split": [photos.EXTERNAL]}), SIDE)
        found = np.stack([one.probabilities(images[one.frame][None], self.device) for one in self.members])
        names = [ENSEMBLE, *self.names] if len(found) > 1 else self.names
        keys = pd.DataFrame({"member": names, "weight": [1.0, *self.blend.weights][: len(names)]})
        shares = np.concatenate([self.blend.blend(found), found[:, 0]])[: len(names)]
        return Answer(self, images, photo, predict.probability_table(keys, shares))


def known_photos(
    output_dir: Path, data_dir: Path | None
) -> tuple[pd.DataFrame, Callable[[np.ndarray], np.ndarray], store.Frame]:
    """An experiment's training photos (path, person, label, split), `features.comparer` of them and what it takes.

    Of the first run whose photos were described before, as a frozen backbone's training does. Raises FileNotFoundError.
    """
    why = "these results came without them"
    for run in run_folder.trained_runs(output_dir) if data_dir and not inference.is_alone(output_dir) else ():
        settings = run_folder.run_settings(output_dir, run)
        table, frame = dataset.photo_table(output_dir, settings), store.Frame.of_run(settings)
        # Of a run that trained its backbone, by that which is usual.
        network = settings.model_dump(include={"architecture", "weights"}) if settings.head == config.FROZEN else {}
        try:
            known = dataset.open_photos(data_dir, output_dir, table, frame, build=False)
            likeness = features.comparer(known, output_dir / "features", **network)
        except FileNotFoundError as error:
            why = str(error)
            continue
        split = np.where(splits.is_external(table["path"]), photos.EXTERNAL, "train")
        return table[["path", "person", "label"]].assign(split=split), likeness, frame
    raise FileNotFoundError(why)


def first_evaluated(output_dir: Path, data_dir: Path | None) -> Path | None:
    """The file of an experiment's first evaluation photo; None if it is not there."""
    try:
        (path,) = photos.files_of(data_dir or "", photos.read_evaluated(output_dir)[:1])
    except (OSError, ValueError):
        return None
    return path if data_dir and path.is_file() else None


if __name__ == "__main__":
    table = pack.command(predict_folder, "predict", __doc__, "results_path", "photo_dir", "target")
    bad = list(table["file"][table["label"] == ""])
    named = ", ".join(bad[:9]) or "none"
    print(f"{len(table) - len(bad):,} photos are answered, {len(bad):,} cannot be read: {named}.")
