"""The photo table: every usable photo of a data folder, checked, and a list of what is wrong."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from mask_lib.base import files, labels
from mask_lib.data import archives, layout
from mask_lib.data.layout import Finding, Problem

PROBLEM_COLUMNS = ["path", "problem", "detail"]
EXTERNAL = "external"  # the split of photos from elsewhere; no photos.csv holds it
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # what PIL may open; its other readers include one that runs Ghostscript
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # convert to RGB without losing the picture


def find_data(
    source: str | os.PathLike[str], unpack_into: str | os.PathLike[str], size_limit: int = archives.SIZE_LIMIT
) -> Path:
    """The folder that holds train/ and eval/, up to three levels inside `source`.

    `source` is a folder, or an archive, which `archives.unpack` unpacks once into `unpack_into`, up to `size_limit`
    bytes. Raises FileNotFoundError if it is not there or holds no data folder, ValueError for several or no archive.
    """
    source = files.project_path(source)
    if source.is_file():
        source = archives.unpack(source, files.project_path(unpack_into), size_limit)
    if not source.is_dir():
        raise FileNotFoundError(f"no {source}: give the data folder, with {archives.LAYOUT}, or an archive of it")
    found = archives.folders_with_data(source)
    if len(found) > 1:
        raise ValueError(f"{source} holds several data folders, give one: {', '.join(map(str, found))}")
    return found[0] if found else checked_folder(source)


def checked_folder(data_dir: str | os.PathLike[str]) -> Path:
    """The absolute path of a data folder. Raises FileNotFoundError that says what is not there."""
    folder = files.project_path(data_dir)
    absent = [part for part in ("train", "eval") if not (folder / part).is_dir()]
    if absent:
        what = f"{folder} lacks {' and '.join(absent)}" if folder.is_dir() else f"no folder {folder}"
        raise FileNotFoundError(f"{what}: {archives.hint(folder)}")
    for part in ("train/train.csv", "train/images", "eval/info.csv", "eval/images"):
        if not (folder / part).exists():
            raise FileNotFoundError(f"no {folder / part}: a data folder holds {archives.LAYOUT}")
    return folder


def scan_photos(
    data_dir: str | os.PathLike[str], verify: bool = True, workers: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every usable photo of a data folder, and everything found wrong with it.

    The first table has `layout.photo_columns`: the train photos sorted by path (`<folder>/mask1.jpg`, `person` the
    folder, the attributes as `labels.Attribute.value_of` reads them), then the eval photos in info.csv's order (`path`
    the ImageID, attributes and label empty). Numbers are Int64. The second has `PROBLEM_COLUMNS`. With `verify` every
    photo is decoded, in `workers` threads. Raises FileNotFoundError for a missing folder or csv, ValueError for a csv
    that cannot be used and when no train photo is usable.
    """
    folder = checked_folder(data_dir)
    train, train_findings = layout.scan_train(folder / "train")
    evaluation, eval_findings = layout.scan_eval(folder / "eval")
    found = pd.concat([train, evaluation], ignore_index=True)
    findings = train_findings + eval_findings
    if verify:
        bad = check_photos(files_of(folder, found), found["path"], workers)
        found = found[[finding is None for finding in bad]].reset_index(drop=True)
        findings += [finding for finding in bad if finding]
    problems = problem_table(findings)
    if not (found["split"] == "train").any():
        counts = ", ".join(f"{problem}: {count}" for problem, count in problems["problem"].value_counts().items())
        raise ValueError(f"{folder / 'train'} holds no usable photo ({counts or 'its folders are empty'})")
    return found, problems


def problem_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a table with `PROBLEM_COLUMNS`, sorted, fit to be written as UTF-8."""
    # A file name that is not UTF-8 reaches us with stray surrogates, which no text file may hold.
    rows = [(printable(path), str(problem), printable(detail)) for path, problem, detail in findings]
    rows.sort(key=lambda row: (row[1], row))  # by problem
    return pd.DataFrame(rows, columns=PROBLEM_COLUMNS, dtype="str")


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot hold written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_photos(paths: Sequence[Path], names: Iterable[str], workers: int | None = None) -> list[Finding | None]:
    """Decode each file; per file None, or what is wrong with it under the given name."""
    with ThreadPoolExecutor(workers) as pool:
        results = list(files.progress(pool.map(check_photo, paths), total=len(paths), what="checking photos"))
    return [result and Finding(name, *result) for name, result in zip(names, results, strict=True)]


def check_photo(path: Path) -> tuple[Problem, str] | None:
    """Decode one file as far as finding damage takes; None if it is sound."""
    if not path.is_file():  # a folder, a pipe or a dead link of that name; opening a pipe would wait forever
        return Problem.UNREADABLE, "not a file"
    if path.stat().st_size == 0:
        return Problem.EMPTY_FILE, "0 bytes"
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode = image.mode
            # JPEG at 1/8 size takes about half the time and still reads the file to its end.
            image.draft("L", (1, 1))
            image.load()
    except UnidentifiedImageError:  # its message holds the full path
        return Problem.UNREADABLE, "not a JPEG, PNG, BMP or WebP picture"
    except Exception as error:  # a damaged file can raise nearly anything from PIL's readers
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return (Problem.TRUNCATED if "truncated" in reason.lower() else Problem.UNREADABLE), reason
    return None if mode in MODES else (Problem.ODD_MODE, f"PIL mode {mode}: save it as 8-bit colour")


def files_of(data_dir: str | os.PathLike[str], photos: pd.DataFrame) -> list[Path]:
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
    folder = files.project_path(data_dir)
    images = {split: folder / split / "images" for split in ("train", "eval")} | {EXTERNAL: folder}
    return [images[split] / path for split, path in zip(photos["split"], photos["path"], strict=True)]


def read_photos(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The photo table from a csv, in the dtypes of `layout.photo_table`; ValueError for what cannot stand there."""
    text = layout.read_table(Path(path), layout.photo_columns())[layout.photo_columns()]
    try:
        found = layout.with_numbers(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: labels and numbers are whole numbers or empty: {error}") from error
    if not found["split"].isin(["train", "eval"]).all():
        raise ValueError(f"{path}: a split is neither train nor eval: {sorted(set(found['split']))[:5]}")
    if not found["label"].dropna().between(0, labels.class_count() - 1).all():
        raise ValueError(f"{path}: labels are 0-{labels.class_count() - 1}")
    return found


def read_labeled(output_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """The train rows of an experiment's `tables/photos.csv`, labels int64; FileNotFoundError says what to run first."""
    return _read_split(output_dir, "train").astype({"label": "int64"})


def read_evaluated(output_dir: str | os.PathLike[str]) -> pd.DataFrame:
    """The eval rows of an experiment's `tables/photos.csv`: those photos of info.csv that can be read."""
    return _read_split(output_dir, "eval")


def _read_split(output_dir: str | os.PathLike[str], split: str) -> pd.DataFrame:
    path = Path(output_dir) / "tables" / "photos.csv"
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 00_prepare_data first")
    table = read_photos(path)
    return table[table["split"] == split].reset_index(drop=True)


def file_state(path: Path) -> tuple[int, int, int]:
    """Size and times of a file: what a change of its bytes cannot leave as it was, `ctime` above all."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sizes(data_dir: str | os.PathLike[str], photos: pd.DataFrame, workers: int | None = None) -> np.ndarray:
    """(N, 2) int64 width and height of each row's photo in pixels, upright or not, from the files' heads."""

    def size(path: Path) -> tuple[int, int]:
        with Image.open(path, formats=FORMATS) as image:
            return image.size

    with ThreadPoolExecutor(workers) as pool:
        return np.array(list(pool.map(size, files_of(data_dir, photos))), np.int64).reshape(-1, 2)


def thumbnails(data_dir: str | os.PathLike[str], photos: pd.DataFrame, side: int = 192) -> list[np.ndarray]:
    """Each row's photo as (H, W, 3) uint8 with no side above `side` pixels, for galleries."""
    found = []
    for path in files_of(data_dir, photos):
        with Image.open(path, formats=FORMATS) as image:
            image.draft("RGB", (2 * side, 2 * side))
            picture = ImageOps.exif_transpose(image).convert("RGB")
            picture.thumbnail((side, side))
            found.append(np.asarray(picture))
    return found
