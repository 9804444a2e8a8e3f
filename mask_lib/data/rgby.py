"""Four single-channel images a sample, as microscopes leave them, combined into one image of four channels.

    python -m mask_lib.data.rgby SOURCE OUT

makes `OUT/<folder>/<name>.png`, an RGBA PNG whose fourth channel is yellow and not transparency, of
`SOURCE/<folder>/<name>_{red,green,blue,yellow}.<png, jpg, …>`, the naming of the Human Protein Atlas.
"""

import argparse
import contextlib
import os
import re
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image

from mask_lib.base import files
from mask_lib.data import layout, photos
from mask_lib.data.layout import Finding, Problem

COLOURS = ("red", "green", "blue", "yellow")  # in the order of the channels
NAMED = re.compile(rf"(?P<name>.+)_(?P<colour>{'|'.join(COLOURS)})", re.IGNORECASE | re.DOTALL)
PROBLEMS = "problems.csv"


class Combined(NamedTuple):
    """What `combine` did."""

    made: int  # images written
    kept: int  # images that were there, no older than their four files
    problems: pd.DataFrame  # columns path (relative to the source folder), problem, detail


Sources = dict[str, list[Path]]  # of one image: the files of each colour, relative to the source folder


def combine(source_dir: files.AnyPath, output_dir: files.AnyPath, workers: int | None = None) -> Combined:
    """Combine every four images below `source_dir` into one below `output_dir`, in `workers` threads.

    Images no older than their files are kept. What cannot be combined is listed, in `problems.csv` too. Hidden files
    and links are passed over. Raises FileNotFoundError for a folder without such images, ValueError for nested ones.
    """
    source, output = files.project_path(source_dir).resolve(), files.project_path(output_dir).resolve()
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {files.shown_path(source)}")
    if source.is_relative_to(output) or output.is_relative_to(source):
        where = f"{files.shown_path(output)} and {files.shown_path(source)} lie one inside the other"
        raise ValueError(f"{where}: give a folder apart, so that no source file can be written over")
    images, findings = find_images(source)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # Pillow works outside the interpreter lock
        done = pool.map(lambda image: combine_one(source, output, *image), images.items())
        results = list(files.progress(done, len(images), "combine", unit="image"))
    findings += [finding for result in results if isinstance(result, list) for finding in result]
    problems = photos.problem_table(findings)
    files.write_csv(problems, output / PROBLEMS)
    return Combined(results.count(True), results.count(False), problems)


def find_images(source: Path) -> tuple[dict[Path, Sources], list[Finding]]:
    """The files of each image, by its path in `source` without colour and ending; what has no colour in its name."""
    images: dict[Path, Sources] = defaultdict(lambda: defaultdict(list))
    findings = []
    found = (Path(folder, name).relative_to(source) for folder, _, names in os.walk(source) for name in names)
    for path in sorted(found):
        if path.suffix.lower() not in layout.ENDINGS or path.name.startswith("."):
            continue
        if named := NAMED.fullmatch(path.stem):
            images[path.with_name(named["name"])][named["colour"].lower()].append(path)
        else:
            findings.append(Finding(str(path), Problem.UNKNOWN_NAME, "no colour at the end of its name"))
    if not images:
        wanted = f"{', '.join(f'*_{colour}' for colour in COLOURS)} and {' or '.join(sorted(layout.ENDINGS))}"
        raise FileNotFoundError(f"{files.shown_path(source)} holds no images named {wanted}")
    return images, findings


def combine_one(source: Path, output: Path, name: Path, sources: Sources) -> bool | list[Finding]:
    """Make one image: True if it was made, False if it was there, else what is wrong. OSError for a full disk."""
    missing = [colour for colour in COLOURS if colour not in sources]
    doubled = [str(path) for colour in COLOURS if len(sources.get(colour, ())) > 1 for path in sources[colour]]
    problems = [("missing_colour", f"no {', '.join(missing)}")] if missing else []
    problems += [("doubled_colour", f"keep one a colour of {', '.join(doubled)}")] if doubled else []
    if problems:
        return [Finding(str(name), *problem) for problem in problems]
    paths, target = [source / sources[colour][0] for colour in COLOURS], output / name.with_name(f"{name.name}.png")
    states = [path.stat() for path in paths if path.is_file()]
    # Another file put in a file's place may bring an old modification time with it, but no old change time.
    newest = max((max(state.st_mtime_ns, state.st_ctime_ns) for state in states), default=0)
    if len(states) == len(paths) and target.exists() and target.stat().st_mtime_ns >= newest:
        return False
    with contextlib.ExitStack() as opened:
        bands = [read_band(source, path, opened) for path in paths]
        flaws = [band for band in bands if isinstance(band, Finding)]
        if flaws:
            return flaws
        if len({band.size for band in bands}) > 1:
            sizes = (f"{colour} {band.width}x{band.height}" for colour, band in zip(COLOURS, bands, strict=True))
            return [Finding(str(name), "sizes_differ", ", ".join(sizes))]
        with files.replacing(target) as temporary:
            Image.merge("RGBA", bands).save(temporary, compress_level=1)  # half the time of 6 for a sixth more room
            os.utime(temporary, ns=(newest, newest))  # so that no clock need agree with that of the source's disk
    return True


def read_band(source: Path, path: Path, opened: contextlib.ExitStack) -> Image.Image | Finding:
    """One colour's image, mode L, upright, held by `opened`; a finding for what is not one sound channel."""
    name = str(path.relative_to(source))
    try:
        band = opened.enter_context(photos.open_photo(path))
    except OSError as error:
        return Finding(name, *(photos.check_photo(path) or (Problem.UNREADABLE, str(error))))
    if band.mode != "L":
        return Finding(name, Problem.ODD_MODE, f"PIL mode {band.mode}: a colour's file is 8-bit grey, its one channel")
    return band


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
