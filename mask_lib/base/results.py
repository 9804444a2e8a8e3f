"""results.json, which `ensemble.pack` writes beside runs that leave without their photos, and an ensemble's recipe."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from mask_lib.base import files, labels

NAME, RECIPE = "results.json", "submissions/recipe.json"  # the second: what 07_ensemble took last
VOTE = "vote.safetensors"  # beside either, if photos of a person voted


class _Member(pydantic.BaseModel):
    run: str  # or files from elsewhere
    views: dict[str, Any] | None = None  # of models.predict.Tta, by which it predicted; None: nothing tells
    out_of_fold: dict[str, str] = {}  # `run_folder.digests` when it predicted


class _Recipe(pydantic.BaseModel):
    members: Annotated[list[_Member], pydantic.Field(min_length=1)]
    blend: dict[str, float | list[float]]  # the fields of ensemble.blending.Recipe, lists in the order of members
    has_voted: bool


class _Results(pydantic.BaseModel):
    format: Literal[1]
    task: list[list[str]]  # `labels.schema`
    class_counts: list[int]  # of the training photos
    recipe: _Recipe
    files: dict[str, str]  # SHA-256 by path


def read(output_dir: Path, with_digests: bool = False) -> dict[str, Any] | None:
    """What results.json of an output folder holds; None for an experiment of this machine.

    Raises ValueError for another task and, `with_digests`, a damaged file, FileNotFoundError for a lost one.
    """
    path, again = Path(output_dir) / NAME, "unpack the archive again"
    found = files.read_json(path, _Results) if path.exists() else None
    if found:
        labels.refuse_other(found["task"], f"{files.shown_path(path)} is")
    for name, digest in found["files"].items() if found and with_digests else ():
        if not (held := path.parent / name).is_file():
            raise FileNotFoundError(f"no {files.shown_path(held)}, which {NAME} lists: {again}")
        if files.file_digest(held) != digest:
            raise ValueError(f"{files.shown_path(held)} is damaged, or was changed since it was packed: {again}")
    return found


def member(output_dir: Path, run: str) -> dict[str, Any] | None:
    """What `read` says of a run that came packed, as the recipe has it; None for any other."""
    found = read(output_dir)
    return next((one for one in found["recipe"]["members"] if one["run"] == run), None) if found else None


def read_recipe(output_dir: Path) -> dict[str, Any]:
    """The recipe that results came with, else the one that 07_ensemble took; FileNotFoundError where there is none."""
    path = Path(output_dir) / RECIPE
    if found := read(output_dir):
        return found["recipe"]
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 07_ensemble first, or name one run")
    return files.read_json(path, _Recipe)
