"""Four single-channel images a sample, as microscopes leave them, combined into one image of four channels.

    python -m mask_lib.data.rgby SOURCE OUT

makes `OUT/<folder>/<name>.png` of `SOURCE/<folder>/<name>_{red,green,blue,yellow}.<png, jpg, …>`. The file is an RGBA
PNG whose fourth channel is yellow and not transparency: programs that do not know so show it see-through. The naming
is that of the Human Protein Atlas.
"""

import argparse
import enum
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock
from PIL import Image, ImageOps

from mask_lib.base import files
from mask_lib.data import layout, photos

COLOURS = ("red", "green", "blue", "yellow")  # in the order of the channels
NAMED = re.compile(rf"(?P<name>.+)_(?P<colour>{'|'.join(COLOURS)})", re.IGNORECASE | re.DOTALL)
LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.tmp\.png", re.DOTALL)  # as files.replacing names what it has not finished
COMPRESSION = 1  # of PNG, 1-9: less than half the time of the usual 6 for a sixth more room
PROBLEMS = "problems.csv"


class Problem(enum.StrEnum):
    """What keeps images from being combined, beside what `layout.Problem` says of a single file."""

    MISSING_COLOUR = enum.auto()
    DOUBLED_COLOUR = enum.auto()  # cell_red.jpg beside cell_red.png: either may be the right one
    SIZES_DIFFER = enum.auto()


class Combined(NamedTuple):
    """What `combine` did."""

    made: int  # images written
    kept: int  # images that were there, no older than their four files
    problems: pd.DataFrame  # columns path (relative to the source folder), problem, detail


Sources = dict[str, list[Path]]  # of one image: the files of each colour, relative to the source folder


def combine(
    source_dir: str | os.PathLike[str], output_dir: str | os.PathLike[str], workers: int | None = None
) -> Combined:
    """Combine every four images below `source_dir` into one below `output_dir`, in `workers` threads.

    Can be stopped and called again: an image that is no older than its four files is kept, a changed file makes its
    image anew. What cannot be combined is listed, also in `output_dir`'s `problems.csv`; the rest is made all the same.
    Hidden files, such as a Mac's `._cell_red.png`, and linked folders are passed over; source files are only read.
    Whoever calls it for the same `output_dir` meanwhile waits. Raises FileNotFoundError for a folder that is not there
    or holds no such images, ValueError for folders one inside the other.
    """
    source, output = checked_folders(source_dir, output_dir)
    groups, findings = find_images(source)
    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / ".rgby.lock"):
        remove_leftovers(output)
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # Pillow works outside the interpreter lock
            done = pool.map(lambda item: combine_one(source, output, *item), groups.items())
            results = list(files.progress(done, len(groups), "combine", unit="image"))
        findings += [finding for result in results if isinstance(result, list) for finding in result]
        problems = photos.problem_table(findings)
        files.write_csv(problems, output / PROBLEMS)
    return Combined(results.count(True), results.count(False), problems)


def checked_folders(source_dir: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Both folders' absolute paths. Raises as `combine` does."""
    source, output = files.project_path(source_dir).resolve(), files.project_path(output_dir).resolve()
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {files.shown_path(source)}")
    if source.is_relative_to(output) or output.is_relative_to(source):
        raise ValueError(
            f"{files.shown_path(output)} and {files.shown_path(source)} lie one inside the other: give a folder "
            "apart, so that no source file can be written over"
        )
    return source, output


def find_images(source: Path) -> tuple[dict[Path, Sources], list[layout.Finding]]:
    """The files of each image, by its path without ending, and what has no colour in its name.

    Paths are relative to `source`. Raises FileNotFoundError where there is no image at all.
    """
    groups: dict[Path, Sources] = defaultdict(lambda: defaultdict(list))
    findings = []
    for path in sorted(found_below(source)):
        named = NAMED.fullmatch(path.stem)
        if named:
            groups[path.with_name(named["name"])][named["colour"].lower()].append(path)
        else:
            findings.append(layout.Finding(str(path), layout.Problem.UNKNOWN_NAME, "no colour at the end of its name"))
    if not groups:
        wanted = ", ".join(f"*_{colour}" for colour in COLOURS)
        endings = " or ".join(sorted(layout.ENDINGS))
        raise FileNotFoundError(f"{files.shown_path(source)} holds no images named {wanted} and {endings}")
    return groups, findings


def found_below(source: Path) -> Iterator[Path]:
    """Every image file by its ending, relative to `source`. Raises OSError for a folder that cannot be listed."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(source, onerror=refuse):
        for name in names:
            if Path(name).suffix.lower() in layout.ENDINGS and not name.startswith("."):
                yield (Path(folder) / name).relative_to(source)


def combine_one(source: Path, output: Path, name: Path, sources: Sources) -> bool | list[layout.Finding]:
    """Make one image: True if it was made, False if it was there, else what is wrong.

    A full disk and the like are no fault of an image and raise OSError.
    """
    flaws = flaws_of_names(name, sources)
    if flaws:
        return flaws
    chosen = [sources[colour][0] for colour in COLOURS]
    target = output / name.with_name(f"{name.name}.png")
    newest = max(last_change(source / path) for path in chosen)  # before reading: a later change will be noticed
    if target.exists() and target.stat().st_mtime_ns >= newest:
        return False
    bands = [read_band(source, path) for path in chosen]
    flaws = [band for band in bands if isinstance(band, layout.Finding)] or flaws_of_sizes(name, bands)
    if flaws:
        return flaws
    with files.replacing(target) as temporary:
        Image.merge("RGBA", bands).save(temporary, compress_level=COMPRESSION)
        os.utime(temporary, ns=(newest, newest))  # so that no clock need agree with that of the source's disk
    return True


def flaws_of_names(name: Path, sources: Sources) -> list[layout.Finding]:
    """A finding for the colours that are missing and one for those that are there twice."""
    missing = [colour for colour in COLOURS if colour not in sources]
    doubled = [str(path) for colour in COLOURS if len(sources.get(colour, ())) > 1 for path in sources[colour]]
    found = [(Problem.MISSING_COLOUR, f"no {', '.join(missing)}")] if missing else []
    found += [(Problem.DOUBLED_COLOUR, f"keep one a colour of {', '.join(doubled)}")] if doubled else []
    return [layout.Finding(str(name), *one) for one in found]


def flaws_of_sizes(name: Path, bands: list[Image.Image]) -> list[layout.Finding]:
    """A finding where the four images differ in size."""
    if len({band.size for band in bands}) == 1:
        return []
    sizes = ", ".join(f"{colour} {band.width}x{band.height}" for colour, band in zip(COLOURS, bands, strict=True))
    return [layout.Finding(str(name), Problem.SIZES_DIFFER, sizes)]


def last_change(path: Path) -> int:
    """When a file last changed, ns since 1970: another file put in its place may bring an old `mtime` with it."""
    try:
        found = path.stat()
    except OSError:
        return sys.maxsize  # a dead link: no image is newer, and reading it tells what is wrong
    return max(found.st_mtime_ns, found.st_ctime_ns)


def read_band(source: Path, path: Path) -> Image.Image | layout.Finding:
    """One colour's image, mode L, turned upright by its EXIF; a finding for what is not one sound channel."""
    try:
        if not (source / path).is_file():  # opening a pipe would wait forever
            raise OSError("not a file")
        with Image.open(source / path, formats=photos.FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged file can raise nearly anything from Pillow's readers
        problem = photos.check_photo(source / path) or (layout.Problem.UNREADABLE, str(error))
        return layout.Finding(str(path), *problem)
    if upright.mode in ("RGB", "P"):  # grey that was saved as colour is one channel all the same
        red, green, blue = (band.tobytes() for band in upright.convert("RGB").split())
        upright = upright.convert("L") if red == green == blue else upright
    if upright.mode not in ("L", "1"):
        detail = f"PIL mode {upright.mode}: a colour's file is 8-bit grey, its one channel"
        return layout.Finding(str(path), layout.Problem.ODD_MODE, detail)
    return upright.convert("L")


def remove_leftovers(output: Path) -> None:
    """Delete what a killed run had not finished; the lock is held, so nobody is writing it."""
    for path in list(output.rglob(".*.tmp.png")):
        if LEFTOVER.fullmatch(path.name):
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 1 if nothing could be combined."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.data.rgby", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", help="folder of *_red, *_green, *_blue and *_yellow images, searched to its depths")
    parser.add_argument("out", help="folder for the combined images")
    parser.add_argument("--workers", type=int, help="threads; one a core when left out")
    asked = parser.parse_args(arguments)
    try:
        found = combine(asked.source, asked.out, asked.workers)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{files.shown_path(files.project_path(asked.out))}: {found.made} images made, {found.kept} kept")
    if len(found.problems):
        print(f"{len(found.problems)} problem{'s' * (len(found.problems) > 1)}, listed in its {PROBLEMS}")
    return 0 if found.made + found.kept else 1


if __name__ == "__main__":
    sys.exit(main())
