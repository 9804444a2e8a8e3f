"""Where things lie, and writes that are either whole or not there at all."""

import contextlib
import csv
import datetime
import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

if TYPE_CHECKING:  # else imported where it is used: it takes most of a second, and headless reads no tables
    import pandas as pd

AnyPath = str | os.PathLike[str]
# The folder that relative paths count from: the checkout, unless data and outputs are kept elsewhere.
PROJECT = Path(os.environ.get("MASK_LIB_PROJECT") or Path(__file__).parents[2]).resolve()


def project_path(path: AnyPath) -> Path:
    """An absolute path; a relative one counts from the project, in whatever folder Jupyter or papermill runs."""
    return Path(os.path.normpath(PROJECT / os.path.expanduser(path)))  # Path.expanduser raises for an unknown user


def shown_path(path: AnyPath) -> str:
    """A path for messages: relative to the project where it lies inside."""
    path = Path(path)
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


@contextlib.contextmanager
def replacing(path: AnyPath) -> Iterator[Path]:
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


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder, which takes the place of `folder` on leaving without an error. Call it under a lock."""
    workshop = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(workshop, ignore_errors=True)  # what a killed process left: the lock says that none is at work
    (workshop / "new").mkdir(parents=True)
    try:
        yield workshop / "new"
        if folder.exists():
            folder.rename(workshop / "old")
        (workshop / "new").rename(folder)
        flush_folder(folder.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Remove the files that processes which were killed within `replacing` left below a folder that is locked."""
    for path in folder.rglob(f".*.{'[0-9a-f]' * 8}.tmp*"):
        if path.is_file():
            path.unlink()


def flush_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut; file systems without this are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_csv(table: "pd.DataFrame", path: AnyPath) -> Path:
    """Write `table` without its index, whole or not at all. Floats come back bit for bit."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)


def write_json(value: Any, path: AnyPath) -> Path:
    """Write plain data as indented JSON, whole or not at all; NaN is refused."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)


def regular(path: AnyPath) -> Path:
    """The path of a file, if it is there. Raises OSError for anything else: opening a pipe would wait for ever."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{shown_path(path)} is a folder, a pipe or a device, not a file")
    return path


def read_text(path: AnyPath, save_as: str = "UTF-8") -> str:
    """The text of a file. Raises OSError for all but regular files, ValueError that names one that is not UTF-8."""
    content = regular(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "is UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "is not UTF-8"
        raise ValueError(f"{shown_path(path)} {found} ({error}): save it again as {save_as}") from error


def read_csv(path: AnyPath, kinds: Mapping[str, str], others: str | None = "str") -> "pd.DataFrame":
    """A table from a CSV in which every line is a row: the one way to read one.

    kinds: dtypes of the columns that must be there; others: of the rest, None where pandas is to find out. Text is
    taken as it is written, `NA` too; an empty field of any other dtype is missing. Raises OSError as `read_text` does,
    and ValueError that names file and line: for a quote that is not closed on its line (it would swallow rows), a row
    with more or fewer fields than the header, and what is not of its column's dtype.
    """
    import numpy as np
    import pandas as pd

    text, where = read_text(path, "'CSV UTF-8'"), shown_path(path)
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    head = _fields(where, *lines[0]) if lines else []
    names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(head)]  # Excel ends lines with commas
    _check_header(where, names, kinds)
    for number, line in lines[1:]:
        if len(found := _fields(where, number, line)) != len(names):
            raise ValueError(f"{where}, line {number} has {len(found)} fields, the header {len(names)}: {line[:60]}")
    dtypes = {name: kind for name, kind in (dict.fromkeys(names, others) | dict(kinds)).items() if kind}
    empty = {name: [""] for name in names if dtypes.get(name) != "str"}
    read = functools.partial(pd.read_csv, header=0, names=names, keep_default_na=False, index_col=False)
    try:
        with np.errstate(invalid="raise"):  # pandas makes some whole number of `inf`
            return read(io.StringIO(text), dtype=dtypes, na_values=empty)
    except (ValueError, ArithmeticError, TypeError) as error:
        written = read(io.StringIO(text), dtype="str")
        raise ValueError(f"{where}{_no_number(written, dtypes, lines) or f': {error}'}") from error


def _fields(where: str, number: int, line: str) -> list[str]:
    if "\0" in line:
        raise ValueError(f"{where}, line {number} holds a null byte")
    with contextlib.suppress(csv.Error):
        if line.count('"') % 2 == 0:
            return next(csv.reader([line], strict=True))
    advice = 'a quote (") is not closed on its line, or stands inside a field, where it is written ""'
    raise ValueError(f"{where}, line {number}: {advice}: {line[:60]}")


def _check_header(where: str, names: list[str], wanted: Iterable[str]) -> None:
    if not names:
        raise ValueError(f"{where} is empty")
    if other := re.search("[;\t]", names[0]) if len(names) == 1 else None:
        raise ValueError(f"{where}: its columns are parted by {other[0]!r}: save it with commas between them")
    if doubled := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"{where} has the column {doubled[0]} twice")
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{where} lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}")


def _no_number(written: "pd.DataFrame", dtypes: Mapping[str, str], lines: list[tuple[int, str]]) -> str:
    """Line, column and text of the first field, of those as written, that is not of its column's dtype."""
    import pandas as pd

    for name, kind in dtypes.items():
        numbers = pd.to_numeric(written[name], errors="coerce").astype("float64")
        is_right = numbers.notna() if kind.startswith("f") else (numbers % 1 == 0) & (numbers.abs() < 2**63)
        bad = ~is_right & ((written[name] != "") | (kind == "int64"))  # which alone cannot be missing
        if kind.lower().startswith(("int", "float")) and bad.any():
            row, wanted = int(bad.argmax()), "a number" if kind.startswith("f") else "a whole number"
            return f", line {lines[row + 1][0]}: {name} is {written[name][row]!r}, not {wanted}"
    return ""


def read_json(path: AnyPath, model: Any = Any) -> Any:
    """Plain data from a JSON file, of the shape of the pydantic `model` if one is given.

    Raises OSError as `read_text` does, and ValueError that names the file and the place in it.
    """
    where = shown_path(path)
    try:
        found = json.loads(read_text(path))
        adapter = TypeAdapter(model)
        return adapter.dump_python(adapter.validate_python(found), exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, wanted = ".".join(map(str, first["loc"])), first["msg"].partition(" or instance of")[0]
        raise ValueError(f"{where}: {place}{': ' if place else ''}{wanted}") from error
    except (ValueError, RecursionError) as error:  # bytes that are no text, text that is no JSON, or nested too deep
        raise ValueError(f"{where} is not valid JSON: {error}") from error


class BusyError(RuntimeError):
    """Another process is at work on the same thing."""


@contextlib.contextmanager
def lock(path: Path, doing: str = "", wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which ends with its process; others wait, or without `wait` get a BusyError that names ours
    and what is done meanwhile: `doing`, such as `fold 0 of deep is being trained`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_name(f"{path.name}.json")
    try:
        held = FileLock(path).acquire(blocking=wait)
    except Timeout:
        with contextlib.suppress(OSError, ValueError, KeyError):
            doing += " by process {process} on {machine} since {since}".format(**read_json(holder, dict[str, Any]))
        raise BusyError(f"{doing}: wait until it is done, or end that process") from None
    with held:
        if not wait:
            now = datetime.datetime.now().isoformat(" ", "seconds")
            write_json({"process": os.getpid(), "machine": socket.gethostname(), "since": now}, holder)
        yield


def is_held(path: Path) -> bool | None:
    """Whether a process holds a lock file, asked without taking it; None where only another machine could tell."""
    with contextlib.suppress(OSError, ValueError, KeyError):  # no note, or a damaged one, or not Linux
        holder = read_json(path.with_name(f"{path.name}.json"), dict[str, Any])
        if holder["machine"] == socket.gethostname():
            # ... WRITE <process> <device>:<inode> ...; devices are not as os.stat has them on every file system
            held = re.findall(r"(\d+) \w+:\w+:(\d+) ", Path("/proc/locks").read_text())
            return (str(holder["process"]), str(path.stat().st_ino)) in held
    return None if path.exists() else False


def digest(value: Any) -> str:
    """16 hex digits of the SHA-256 of plain data: the same for equal data, in any process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def file_digest(path: AnyPath) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with regular(path).open("rb") as handle:
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
