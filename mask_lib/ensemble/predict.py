"""The answers of trained results to any folder of photos.

    python -m mask_lib.ensemble.predict RESULTS PHOTOS out.csv

RESULTS: an archive by `pack`, what it unpacks to, or an experiment's output folder. Each photo is answered by itself,
without a vote. Broken off, it goes on after the last batch. Photos that cannot be read get no answer, and stand in
`out.problems.csv`.
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mask_lib.base import config, files, labels
from mask_lib.data import archives, layout, photos, store
from mask_lib.ensemble import blending, pack
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import changes, read_checkpoint
from mask_lib.training import run_folder

BATCH = 64  # photos, whose answers are on disk before the next are read
UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # no line of a CSV in UTF-8 can hold them
Images = dict[store.Frame, np.ndarray]  # (H, W, channels) uint8, or (N, H, W, channels), by what they were fit to


@dataclasses.dataclass(frozen=True)
class Member:
    """One run's networks, one a fold; those of frozen backbones are one with several heads."""

    networks: list[predict.Loaded]
    frame: store.Frame
    tta: predict.Tta

    def probabilities(self, images: np.ndarray, device: torch.device) -> np.ndarray:
        """(N, C) float64 of (N, H, W, channels) uint8."""
        source = devices.DevicePhotos(store.Store(images, {}, "", self.frame), device, resident=False)
        found = [one.predict(source, np.arange(len(images)), self.tta).astype(np.float64) for one in self.networks]
        return np.mean([one.reshape(len(images), -1, labels.class_count()) for one in found], axis=(0, 2))


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
    results_path: str | os.PathLike[str],
    photo_dir: str | os.PathLike[str],
    target: str | os.PathLike[str],
    run: str = "",
) -> pd.DataFrame:
    """Answer every photo below a folder, write the table and return it; with `run` by that run alone.

    Columns as `answered` has them, without the last two. Raises as `pack.opened`, `load` and `photo_names`.
    """
    root, target, device = files.project_path(photo_dir), files.project_path(target), devices.pick_device()
    names, parts, written = photo_names(root), target.with_name(f".{target.name}.parts"), []
    with pack.opened(results_path, run) as (output, recipe), files.progress(total=len(names), what="predict") as bar:
        members, blend = load(output, recipe, device)
        for rows in store.blocks(len(names), BATCH):
            batch = [names[row] for row in rows]
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


if __name__ == "__main__":
    table = predict_folder(**pack.arguments("predict", __doc__, "results_path", "photo_dir", "target"))
    bad = list(table["file"][table["label"] == ""])
    print(
        f"{len(table) - len(bad):,} photos are answered, {len(bad):,} cannot be read: {', '.join(bad[:9]) or 'none'}."
    )
