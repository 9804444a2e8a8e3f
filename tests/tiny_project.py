"""What tests run notebooks on: toy notebooks of a line or two, and the real chain on a tiny painted set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from mask_lib.base import files

CHECKOUT = Path(files.__file__).parents[2]
PARAMETERS = 'name = "a"\nepochs = 2\nlearning_rate = 0.1\nresume = False\nfolds = [0]\nanything = None'


def write_notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS, kernel: str = "python3") -> Path:
    """A notebook with a title, a parameters cell (None: without) and one code cell for each source."""
    cells = [nbformat.v4.new_markdown_cell("# Does it run?")]
    if parameters is not None:
        cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)
    return path


def write_text(path: Path, text: str) -> Path:
    """A text file; its path."""
    path.write_text(text, encoding="utf-8")
    return path


def environment(project: Path) -> dict[str, str]:
    """The environment of a command for which `project` is the folder that relative paths count from."""
    # A notebook draws its pictures into itself unless it is told, as these tests are, to draw nowhere.
    here = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**here, "MASK_LIB_PROJECT": str(project), "PYTHONPATH": str(CHECKOUT)}


def headless_command(name: str, written: Path, values: dict[str, Any]) -> list[str]:
    """The command that runs notebooks/`name`.ipynb into `written` with these values of its parameters."""
    given = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    options = [text for key, value in given.items() for text in ("-p", key, value)]
    return [
        sys.executable,
        "-m",
        "mask_lib.headless",
        str(CHECKOUT / "notebooks" / f"{name}.ipynb"),
        str(written),
        *options,
    ]


def run_headless(project: Path, name: str, written: Path, values: dict[str, Any]) -> str:
    """Run that command in a project and return the text of the report, its white space single blanks."""
    command, here = headless_command(name, written, values), environment(project)
    done = subprocess.run(command, env=here, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return " ".join(written.with_suffix(".html").read_text(encoding="utf-8").split())


def snakemake(project: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run a project's chain (the checkout's Snakefile if it has none), output and errors as one text in `stdout`."""
    snakefile = project / "Snakefile" if (project / "Snakefile").exists() else CHECKOUT / "Snakefile"
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "1", *arguments],
        cwd=project,
        env=environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def paint(project: Path, people: int = 24, eval_people: int = 12) -> None:
    """Paint the sample set of a project, 96 x 128 pixels a photo, by the command a person would use."""
    sizes = {"people": people, "eval-people": eval_people, "width": 96, "height": 128, "workers": 1}
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "mask_lib.sample", "data/sample", *options]
    subprocess.run(command, cwd=project, env=environment(project), check=True, timeout=120, capture_output=True)
