"""The photo table: every usable photo of a data folder, checked, and a list of what is wrong."""

import contextlib
import ctypes
import io
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from mask_lib.base import files, labels
from mask_lib.data import archives, layout, tables
from mask_lib.data.layout import Finding, Problem

PROBLEM_COLUMNS = ["path", "problem", "detail"]
FIXED = {"path", "person", "label", "split"}  # columns of a photo table beside the attributes
EXTERNAL = "external"  # the split of photos from elsewhere; no photos.csv holds it
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # what PIL may open; its other readers include one that runs Ghostscript
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # convert to RGB without losing the picture

LARGE = 25_000_000  # pixels; of larger pictures all threads together hold one at a time
Wrong = tuple[Problem, str]  # with a photo: what, and its detail
Source = files.AnyPath | bytes | IO[bytes]  # of a photo: its file, or what is in it
ONE_LARGE = threading.RLock()  # a thread may hold several: of four bands one is made


def find_data(source: files.AnyPath, unpack_into: files.AnyPath, parts: Sequence[str] = archives.PARTS) -> Path:
    """The folder that holds the parts, by default train/ and eval/, up to three levels inside `source`.

    `source` is a folder, or an archive, which `archives.unpack` unpacks once into `unpack_into`. Raises
    FileNotFoundError if it is not there or holds no data folder, ValueError for several or no archive.
    """
    source = files.project_path(source)
    if source.is_file():
        source = archives.unpack(source, files.project_path(unpack_into))
    found = archives.folders_with_data(source, parts)
    if len(found) > 1:
        raise ValueError(f"{source} holds several data folders, give one: {', '.join(map(str, found))}")
    return found[0] if found else checked_folder(source, parts)


def checked_folder(data_dir: files.AnyPath, parts: Sequence[str] = archives.PARTS) -> Path:
    """The absolute path of a data folder with these parts. Raises FileNotFoundError that says what is not there."""
    folder = files.project_path(data_dir)
    where = labels.task().photos
    absent = [part for part in where.heads(parts) if not (folder / part).is_dir()]
    if absent:
        what = f"{folder} lacks {' and '.join(absent)}" if folder.is_dir() else f"no folder {folder}"
        raise FileNotFoundError(f"{what}: {archives.hint(folder)}")
    for name in where.required(parts):
        part, kind = folder / name, "file" if name in where.lists else "folder"
        if not (part.is_file() if kind == "file" else part.is_dir()):
            meant = layout.by_likeness(os.listdir(part.parent) if part.parent.is_dir() else [])
            wanted = f"a data folder holds {', '.join(where.required())}{layout.near(part.name, meant)}"
            raise FileNotFoundError(f"no {kind} {part}: {wanted}")
    return folder


def scan_photos(
    data_dir: files.AnyPath, listed_in: files.AnyPath | None = None, parts: Sequence[str] = archives.PARTS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every usable photo of a data folder, or of some parts, and everything found wrong with it.

    The first table has `layout.photo_columns`: the train photos sorted by path (below the task's folder of them,
    `person` whose they are, the attributes as `labels.Attribute.value_of` reads them), then the eval photos in
    info.csv's order (`path` the ImageID, attributes and label empty). Numbers are Int64. The second has
    `PROBLEM_COLUMNS`. Every photo is decoded. Raises FileNotFoundError for a missing folder or csv, ValueError for an
    unusable csv and, once `listed_in` has the problems, where train or eval lacks usable photos or most of its csv's.
    """
    folder = checked_folder(data_dir, parts)
    scanned, findings, errors = [], [], []
    scan_train = layout.scan_train if labels.task().photos.layout == "competition" else tables.scan_train
    for split in parts:
        found, odd = {"train": scan_train, "eval": layout.scan_eval}[split](folder)
        found, odd = without(found, odd, check_photos(files_of(folder, found)))
        scanned.append(found)
        findings += odd
        errors += unusable(str(folder_of(folder, split)).removesuffix("/images"), found, odd)
    problems = problem_table(findings)
    where = f"; all are listed in {files.shown_path(files.write_csv(problems, listed_in))}" if listed_in else ""
    if errors:
        raise ValueError("; ".join(errors) + where)
    return pd.concat(scanned, ignore_index=True), problems


def without(
    rows: pd.DataFrame, findings: list[Finding], problems: Sequence[Wrong | None]
) -> tuple[pd.DataFrame, list[Finding]]:
    """The rows, of columns with `path`, that have no problem, and all findings."""
    is_sound = np.array([problem is None for problem in problems], dtype=bool)
    found = [Finding(path, *one) for path, one in zip(rows["path"], problems, strict=True) if one]
    return rows[is_sound], findings + found


def unusable(part: str, found: pd.DataFrame, findings: list[Finding]) -> list[str]:
    """A sentence on a part of the data that holds no usable photo, or lacks most of its people or photos, if so."""
    missing = sum(finding.problem in layout.MISSING for finding in findings)
    counted = "person" if any(finding.problem == Problem.MISSING_FOLDER for finding in findings) else "path"
    if len(found) and missing <= len(found.drop_duplicates(counted)):
        return []
    what = "lacks more of what its csv lists than it holds" if len(found) else "holds no usable photo"
    return [f"{part} {what} {summary(findings)}"]


def summary(findings: Sequence[Finding]) -> str:
    """How many findings of each kind there are, and an example of each."""
    if not findings:
        return "(nothing that looks like one)"
    example = {finding.problem: finding for finding in reversed(findings)}
    kinds = Counter(finding.problem for finding in findings).most_common()
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds)
    told = "; ".join(f"{printable(example[kind].path)!r}: {printable(example[kind].detail)}" for kind, _ in kinds)
    return f"({counts}), such as {told}"


def problem_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a table with `PROBLEM_COLUMNS`, sorted, fit to be written as UTF-8."""
    # A file name that is not UTF-8 reaches us with stray surrogates, which no text file may hold.
    rows = [(printable(path), str(problem), printable(detail)) for path, problem, detail in findings]
    rows.sort(key=lambda row: (row[1], row))  # by problem
    return pd.DataFrame(rows, columns=PROBLEM_COLUMNS, dtype="str")


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot hold written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_photos(paths: Sequence[Path]) -> list[Wrong | None]:
    """`check_photo` of each file."""
    with ThreadPoolExecutor() as pool:
        return list(files.progress(pool.map(check_photo, paths), total=len(paths), what="checking photos"))


def check_photo(path: Path) -> Wrong | None:
    """Decode one file as far as finding damage takes; None if it is sound."""
    if not path.is_file():  # a folder, a pipe or a dead link of that name; opening a pipe would wait forever
        return Problem.UNREADABLE, "not a file"
    if path.stat().st_size == 0:
        return Problem.EMPTY_FILE, "0 bytes"
    try:
        # JPEG at 1/8 size takes about half the time and still reads the file to its end.
        with open_photo(path, "L", (1, 1)) as image:
            mode = image.mode
    except OSError as error:
        why = reason(error.__cause__)
        return (Problem.TRUNCATED if "truncated" in why.lower() else Problem.UNREADABLE), why
    return None if mode in MODES else (Problem.ODD_MODE, f"PIL mode {mode}: save it as 8-bit colour")


def reason(error: BaseException) -> str:
    """Why a picture cannot be read, in words without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG, PNG, BMP or WebP picture"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def unreadable(source: Source, error: Exception) -> OSError:
    """The error to raise for a photo, which names its file, if it is one."""
    return OSError(f"cannot read {source}: {reason(error)}" if not isinstance(source, bytes) else reason(error))


@contextlib.contextmanager
def open_photo(source: Source, mode: str | None = None, size: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """A photo from a file or its bytes, decoded whole and turned upright by its EXIF: the one way to one.

    Gives a `PIL.Image.Image`, a JPEG in `mode` and at 1/2, 1/4 or 1/8 of its size, if that is still `size` or more.
    An orientation that cannot be read counts as upright. Raises OSError that names the file and says why it is no
    photo. Of pictures above `LARGE` pixels one at a time is held, until its `with` is left.
    """
    with contextlib.ExitStack() as held:
        try:
            content = files.regular(source).read_bytes() if isinstance(source, str | os.PathLike) else source
            file = io.BytesIO(content) if isinstance(content, bytes) else content
            image = held.enter_context(Image.open(file, formats=FORMATS))
            # A progressive JPEG is held whole, however small it is made.
            most = image.width * image.height if "progressive" in image.info else 0
            image.draft(mode, size)
            if max(most, image.width * image.height) > LARGE:
                held.enter_context(ONE_LARGE)
                with contextlib.suppress(AttributeError):  # of glibc alone, which keeps what each thread has freed
                    ctypes.CDLL(None).malloc_trim(0)
            image.load()
        except Exception as error:  # a damaged file can raise nearly anything from PIL's readers
            raise unreadable(source, error) from error
        with contextlib.suppress(Exception):  # so can EXIF from elsewhere, and the pixels are sound
            ImageOps.exif_transpose(image, in_place=True)
        yield image


def files_of(data_dir: files.AnyPath, photos: pd.DataFrame) -> list[Path]:
    """The absolute path of each row's file; rows of the split `external` hold it themselves.

    Raises ValueError for a `path` that leaves its images folder, or of an external photo that is not absolute.
    """
    is_external = photos["split"] == EXTERNAL
    unsafe = [path for path in photos["path"][~is_external] if archives.leaves_folder(path)]
    if unsafe:
        raise ValueError(f"paths that leave the images folder: {unsafe[:3]}")
    relative = [path for path in photos["path"][is_external] if not os.path.isabs(path)]
    if relative:
        raise ValueError(f"external photos need absolute paths: {relative[:3]}")
    images = {split: folder_of(data_dir, split) for split in ("train", "eval", EXTERNAL)}
    return [images[split] / path for split, path in zip(photos["split"], photos["path"], strict=True)]


def folder_of(data_dir: files.AnyPath, split: str) -> Path:
    """The folder that the paths of a split, `train` or `eval`, count from; of any other the data folder."""
    where = labels.task().photos
    return files.project_path(data_dir) / {"train": where.train, "eval": where.eval}.get(split, "")


def read_photos(path: files.AnyPath) -> pd.DataFrame:
    """The photo table from a csv, in the dtypes of `layout.photo_table`; ValueError for what cannot stand there."""
    kinds = layout.photo_table([]).dtypes.astype("str").to_dict()
    refuse_other_task(path)
    found = files.read_csv(path, kinds)[list(kinds)]
    if not found["split"].isin(["train", "eval"]).all():
        raise ValueError(f"{path}: a split is neither train nor eval: {sorted(set(found['split']))[:5]}")
    if not found["label"].dropna().between(0, labels.class_count() - 1).all():
        raise ValueError(f"{path}: labels are 0-{labels.class_count() - 1}")
    told = found.dropna().drop_duplicates([*labels.names(), "label"])
    for row in told[(told[list(labels.names())] != "").all(axis=1)].astype("str").to_dict("records"):
        _, values, wrong = layout.read_values(row)
        if wrong or str(labels.encode(**values)) != row["label"]:
            what = f"{row['path']} has the label {row['label']} of other values"
            why = "the task's values or edges have changed since: run 00_prepare_data again"
            raise ValueError(f"{files.shown_path(path)}: {what}; {why}")
    return found


def refuse_other_task(path: files.AnyPath) -> None:
    """Raise ValueError that says so where a photo table, if it is there, has the attributes of another task."""
    head = files.read_text(path, "'CSV UTF-8'").partition("\n")[0].strip().split(",") if os.path.exists(path) else []
    theirs = ", ".join(name for name in head if name not in FIXED)
    if theirs and set(head) >= FIXED and theirs != ", ".join(labels.names()):
        both = f"of another task ({theirs}) than the one at hand ({', '.join(labels.names())})"
        raise ValueError(f"{files.shown_path(path)} is {both}: give that task ({labels.HOW_TO_GIVE})")


def read_labeled(output_dir: files.AnyPath) -> pd.DataFrame:
    """The train rows of an experiment's `tables/photos.csv`, labels int64; FileNotFoundError says what to run first."""
    return _read_split(output_dir, "train").astype({"label": "int64"})


def read_evaluated(output_dir: files.AnyPath) -> pd.DataFrame:
    """The eval rows of an experiment's `tables/photos.csv`: those photos of info.csv that can be read."""
    return _read_split(output_dir, "eval")


def without_photo(data_dir: files.AnyPath, output_dir: files.AnyPath) -> list[str]:
    """The ImageIDs of info.csv that the photo table lacks, answered without a photo; none if it holds no eval photo."""
    table = read_photos(Path(output_dir) / "tables" / "photos.csv")
    known = set(table["path"][table["split"] == "eval"])
    return [name for name in layout.eval_ids(data_dir) if known and name not in known]


def _read_split(output_dir: files.AnyPath, split: str) -> pd.DataFrame:
    path = Path(output_dir) / "tables" / "photos.csv"
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 00_prepare_data first")
    table = read_photos(path)
    if not (table["split"] == split).any():
        raise ValueError(f"{files.shown_path(path)} holds no {split} photo: problems.csv says why; run 00_prepare_data")
    return table[table["split"] == split].reset_index(drop=True)


def file_state(path: Path) -> tuple[int, int, int]:
    """Size and times of a file: what a change of its bytes cannot leave as it was, `ctime` above all.

    Raises OSError as `files.regular` does.
    """
    found = files.regular(path).stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sizes(data_dir: files.AnyPath, photos: pd.DataFrame) -> np.ndarray:
    """(N, 2) int64 width and height of each row's photo in pixels, upright or not, from the files' heads."""

    def size(path: Path) -> tuple[int, int]:
        with Image.open(io.BytesIO(files.regular(path).read_bytes()), formats=FORMATS) as image:
            return image.size

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(size, files_of(data_dir, photos))), np.int64).reshape(-1, 2)


def thumbnails(data_dir: files.AnyPath, photos: pd.DataFrame, side: int = 192) -> list[np.ndarray]:
    """Each row's photo as (H, W, 3) uint8 with no side above `side` pixels, for galleries."""
    found = []
    for path in files_of(data_dir, photos):
        with open_photo(path, "RGB", (2 * side, 2 * side)) as image:
            picture = image.convert("RGB")
            picture.thumbnail((side, side))
            found.append(np.asarray(picture))
    return found
