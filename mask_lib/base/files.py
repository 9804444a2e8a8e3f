"""Where things lie, and writes that are either whole or not there at all."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

# The folder that relative paths count from: the checkout, unless data and outputs are kept elsewhere.
PROJECT = Path(os.environ.get("MASK_LIB_PROJECT") or Path(__file__).parents[2]).resolve()


def project_path(path: str | os.PathLike[str]) -> Path:
    """An absolute path; a relative one counts from the project, in whatever folder Jupyter or papermill runs."""
    return Path(os.path.normpath(PROJECT / Path(path).expanduser()))


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for messages: relative to the project where it lies inside."""
    path = Path(path)
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path, renamed to `path` on leaving without an error: readers see the old file or a whole one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending is kept: pandas, numpy and safetensors read the format from it.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut; file systems without this are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write `table` without its index, whole or not at all. Floats come back bit for bit."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)


def write_json(value: Any, path: str | os.PathLike[str]) -> Path:
    """Write plain data as indented JSON, whole or not at all; NaN is refused."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Plain data from a JSON file. Raises ValueError that names the file if it does not parse."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # bytes that are no text, or text that is no JSON
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of plain data: the same for equal data, in any process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def put_aside(folder: Path) -> Path:
    """Rename a fold's folder to `replaced.<name>`, in place of an earlier one of that name."""
    aside = folder.with_name(f"replaced.{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def is_headless() -> bool:
    """Whether this notebook runs with nobody watching, by `mask_lib.headless`, papermill or nbconvert."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    request = shell.kernel.get_parent() if hasattr(shell, "kernel") else {}
    can_be_asked = request.get("content", {}).get("allow_stdin", True)  # by what sent this cell
    return os.environ.get("MASK_LIB_HEADLESS") == "1" or not can_be_asked


def progress(items: Iterable | None = None, total: int | None = None, what: str = "", unit: str = "photo") -> tqdm:
    """A plain-text progress line with pace and time left."""
    seconds = 15 if is_headless() else 1  # every update is a message to papermill, which thousands can time out
    pace = {"mininterval": seconds, "maxinterval": seconds}
    return tqdm(items, total=total, desc=what, unit=unit, ncols=90, file=sys.stdout, **pace)
