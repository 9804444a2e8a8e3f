"""Results that travel: runs, how an ensemble weighs them and what its answers mean, in one archive without photos.

    python -m mask_lib.ensemble.pack OUTPUT_DIR results.tar.gz

Unpacked as any `output_dir` (`tar xzf results.tar.gz -C outputs/theirs`), `06_inference` and `07_ensemble` answer an
evaluation folder by it. Nothing in it is of a single photo: no path, label or feature.
"""

import argparse
import contextlib
import dataclasses
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mask_lib.base import config, files, labels, results
from mask_lib.data import archives, photos
from mask_lib.ensemble import blending, voting
from mask_lib.ensemble.members import Members
from mask_lib.models import checkpoint
from mask_lib.training import run_folder


def write_recipe(output_dir: Path, members: Members, recipe: blending.Recipe, vote: voting.VoteResult) -> Path:
    """Write submissions/recipe.json, and what found people if photos voted."""
    path, rows = Path(output_dir) / results.RECIPE, []
    for name, own in zip(members.names, members.own, strict=True):
        note = Path(output_dir) / "inferences" / f"{name}.test.json"
        noted = files.read_json(note, dict[str, Any]) if own and note.exists() else {}
        rows.append({**noted, "run": name})
    if vote.has_voted:
        voting.write_finder(*vote.found_by, path.with_name(results.VOTE))
    return files.write_json({"members": rows, "blend": dataclasses.asdict(recipe), "has_voted": vote.has_voted}, path)


def current_recipe(output_dir: Path, run: str = "") -> dict[str, Any]:
    """`results.read_recipe`, or of `run` alone. FileNotFoundError or ValueError unless all files are as they were."""
    results.read(output_dir, with_digests=True)
    if run:
        run_folder.run_settings(output_dir, run)
        came = results.member(output_dir, run) or {"views": {}}
        noted = {"run": run, "out_of_fold": run_folder.digests(run_folder.folder_of(output_dir, run))}
        return {"members": [came | noted], "blend": {"weights": [1.0]}, "has_voted": False}
    found = results.read_recipe(output_dir)
    for member in found["members"]:
        run_folder.run_settings(output_dir, member["run"])
        folder = run_folder.folder_of(output_dir, member["run"])
        if member.get("views") is None or member.get("out_of_fold") != run_folder.digests(folder):
            again = f"run 06_inference with run: {folder.name}, then 07_ensemble again"
            raise ValueError(f"the ensemble was not made of the run {folder.name} as it is now: {again}")
    return found


def pack(output_dir: files.AnyPath, target: files.AnyPath) -> Path:
    """Write the archive, whole or not at all. Raises as `current_recipe`, and ValueError for what came packed."""
    output, target = files.project_path(output_dir), files.project_path(target)
    if results.read(output):
        raise ValueError(f"{files.shown_path(output)} holds results that came packed: pass on their archive")
    recipe = current_recipe(output)
    counts = np.bincount(photos.read_labeled(output)["label"], minlength=labels.class_count())
    about = {"format": 1, "task": labels.schema(), "class_counts": counts.tolist(), "recipe": recipe}
    with files.replacing(target) as temporary, tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for run in [member["run"] for member in recipe["members"]]:
            copy_run(run_folder.folder_of(output, run), Path(folder) / "runs" / run)
        if recipe["has_voted"]:
            shutil.copy((output / results.RECIPE).with_name(results.VOTE), folder)
        held = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*")) if path.is_file()}
        digests = {name: files.file_digest(path) for name, path in held.items()}
        held[results.NAME] = files.write_json({**about, "files": digests}, Path(folder) / results.NAME)
        with tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
            for name, path in files.progress(held.items(), what="packing", unit="file"):
                archive.add(path, name, filter=anonymous)
    return target


def copy_run(source: Path, target: Path) -> None:
    """A run's settings and scores, and its weights in use without what only training needs."""
    for name in ("config.json", run_folder.SCORES, run_folder.AVERAGING):
        if (source / name).exists():
            files.write_json(files.read_json(source / name), target / name)
    for path, _ in run_folder.in_use(source).values():
        checkpoint.write_checkpoint(target / path.relative_to(source), *checkpoint.read_checkpoint(path))


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file without whose it was."""
    member.uid, member.gid, member.mode = 0, 0, 0o644
    member.uname = member.gname = ""
    return member


@contextlib.contextmanager
def opened(source: files.AnyPath, run: str = "") -> Iterator[tuple[Path, dict[str, Any]]]:
    """The output folder of results and its `current_recipe`: `source` itself, or an archive, unpacked meanwhile.

    Raises as `archives.unpack` and `current_recipe`, and FileNotFoundError for what holds no results.
    """
    source = files.project_path(source)
    with tempfile.TemporaryDirectory() as temporary:
        output = archives.unpack(source, Path(temporary), nested=0) if source.is_file() else source
        if not (output / "runs").is_dir():
            wanted = "an archive by mask_lib.ensemble.pack, what it unpacks to, or an experiment's output folder"
            raise FileNotFoundError(f"no results in {files.shown_path(source)}: give {wanted}")
        yield output, current_recipe(output, run)


def command(function: Callable[..., Any], module: str, about: str, *names: str) -> Any:
    """What a function gives, called with these arguments of a command line; its error ends that with its sentence."""
    parser = argparse.ArgumentParser(f"python -m mask_lib.ensemble.{module}", description=about.partition("\n")[0])
    for name in names:
        parser.add_argument(name)
    parser.add_argument("--task", default=labels.DEFAULT, help="the task's file (default: %(default)s)")
    if "results_path" in names:
        parser.add_argument("--run", default="", help="one run, in place of the ensemble")
        parser.add_argument("--plugin", action="append", default=[], help="a module that registers runs' networks")
    asked = vars(parser.parse_args())
    try:
        labels.use(asked.pop("task"))
        config.import_plugins(asked.pop("plugin", []))
        return function(**asked)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    written = command(pack, "pack", __doc__, "output_dir", "target")
    print(f"Written: {files.shown_path(written)}, {written.stat().st_size / 1e6:.1f} MB.")
