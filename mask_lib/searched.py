"""What a search of augmentation came to, as it lies on disk: its best policy, and whether that is worth using.

A run that is to be trained with `augmentation: searched` asks here. The policy counts only with a verdict on it, and
one that it won; until then, and after one that it lost, it is TrivialAugment, which takes no search.
"""

import os
from pathlib import Path
from typing import Any

from mask_lib import files, policies

FOLDER = "search"
SEARCHED = "searched"
FALLBACK = "trivialaugment"
WRITTEN = ("trials.csv", "best_policy.json", "verdict.json", "journal.log")


def policy_digest(policy: policies.Policy) -> str:
    """The same for policies that do the same, whatever their names."""
    return files.digest(policy.plain()["sub_policies"])


def best_path(output_dir: Path) -> Path:
    """Where the policy lies that a search found."""
    return Path(output_dir) / FOLDER / "best_policy.json"


def verdict_path(output_dir: Path) -> Path:
    """Where it lies whether that policy is worth using."""
    return Path(output_dir) / FOLDER / "verdict.json"


def read_verdict(output_dir: Path) -> dict[str, Any] | None:
    """What `verdict.reach` wrote, None if nothing. Raises ValueError that names a file that is no verdict."""
    path = verdict_path(output_dir)
    if not path.exists():
        return None
    found = files.read_json(path)
    kinds = {"policy": str, "beats_trivialaugment": bool, "candidates": dict, "sentence": str}
    if not isinstance(found, dict) or any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(
            f"{files.shown_path(path)} is no verdict of a search: remove it and run 02_search_augmentation"
        )
    return found


def standing_verdict(output_dir: Path) -> dict[str, Any] | None:
    """The verdict on the very policy that lies there; None where there is none, or one on another policy.

    Raises ValueError that names a file that is no policy or no verdict.
    """
    path = best_path(output_dir)
    if not path.exists():
        return None
    policy, found = policies.read(path), read_verdict(output_dir)
    return found if found is not None and found["policy"] == policy_digest(policy) else None


def chosen_augmentation(output_dir: Path) -> str:
    """What a run should be trained with: the best policy's path if it beat TrivialAugment, else `trivialaugment`.

    Also `trivialaugment` where there was no search, no verdict, or one on another policy. Raises as
    `standing_verdict` does.
    """
    found = standing_verdict(output_dir)
    won = found is not None and found["beats_trivialaugment"]
    return files.shown_path(best_path(output_dir)) if won else FALLBACK


def resolved(augmentation: str, output_dir: str | os.PathLike[str] | None) -> str:
    """A run's augmentation, `searched` being what the search in `output_dir` came to; any other stays.

    Raises FileNotFoundError if there was no search, ValueError for no output_dir and as `chosen_augmentation`.
    """
    if augmentation != SEARCHED:
        return augmentation
    if output_dir is None:
        raise ValueError(f"augmentation = {SEARCHED!r} stands for what lies in an output_dir: name that too")
    output = files.project_path(output_dir)
    if not best_path(output).exists():
        raise FileNotFoundError(
            f"augmentation = {SEARCHED!r}, but there is no {files.shown_path(best_path(output))}: run "
            f"02_search_augmentation first, or write {FALLBACK}"
        )
    return chosen_augmentation(output)


def written(output_dir: Path) -> list[str]:
    """Names of the files of a search that are there; a verdict only if it is on the policy that is."""
    names = [name for name in WRITTEN if (Path(output_dir) / FOLDER / name).exists()]
    stale = verdict_path(output_dir).name if standing_verdict(output_dir) is None else None
    return [name for name in names if name != stale]
