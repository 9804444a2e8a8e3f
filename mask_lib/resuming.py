"""What a fold's folder holds from before: whether training may go on from it, and what of it becomes untrue then."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mask_lib import config, files, lineage


class ChangedSettingsError(ValueError):
    """A run's folder holds results of other settings or other photos."""


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise ChangedSettingsError that names what differs between a checkpoint's manifest in `folder` and today's."""
    differences = changes(before, now)
    if differences:
        raise ChangedSettingsError(
            f"{files.shown_path(folder)} was trained with other settings ({'; '.join(differences)}). "
            "Give the new run another name, or set when_changed: restart to put the old one aside and begin anew."
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between a checkpoint's manifest and today's in a way that changes results.

    Both as `training.FoldTraining.manifest` gives them; what today's leaves out is not compared.
    """
    # Earlier versions wrote neither policy nor arithmetic into a checkpoint, and knew no ages in years.
    before = {"data": None, "policy": now["policy"], "years": None, "dtype": now.get("dtype"), **before}
    words = {
        "data": "the photos, their labels or the split",
        "policy": f"the policy in {now['run']['augmentation']}",
        "years": "the ages in years",
        "dtype": f"arithmetic in {before['dtype']}, here {now.get('dtype')}",
    }
    return config.changed(before["run"], now["run"]) + [
        words[name] for name in words if name in now and before[name] != now[name]
    ]


def forget_results(folder: Path) -> None:
    """Remove what a fold's folder that trains on makes untrue: its run's scores, and which average was picked."""
    (folder.parent / "scores.json").unlink(missing_ok=True)
    (folder / lineage.TRAINED).unlink(missing_ok=True)
    picks = folder.parent / lineage.AVERAGING
    if picks.exists():
        saved = files.read_json(picks)
        saved["folds"].pop(folder.name.removeprefix("fold"), None)
        files.write_json(saved, picks)


def put_aside(folder: Path) -> Path:
    """Rename a fold's folder to `replaced.<name>`, in place of an earlier one of that name."""
    aside = folder.with_name(f"replaced.{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)
