"""One notebook run with nobody watching: papermill with its gaps closed.

Papermill only warns of misspelt parameters, reads 007 as 7, takes `sys.exit(0)` and half a notebook for success.
"""

import argparse
import contextlib
import dataclasses
import enum
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import nbformat
from pydantic import TypeAdapter

from mask_lib.base import files, gpus, interrupts
from mask_lib.headless.parameters import resolve

# papermill, jupyter_client and nbconvert are imported where they are used: they take seconds.

ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}  # cell tags
TRACEBACK_LINES = 15
PATIENCE = 300.0  # seconds that a cell which was asked to end may take
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What makes training on the CPU nearly twice as fast; OpenMP and glibc read it when a process starts. Threads that wait
# spin for microseconds, and memory is kept: given back after each step, it would be filled with zeros before the next.
KEPT = str(4 << 30)  # bytes
QUICKER = {"GOMP_SPINCOUNT": "2000", "MALLOC_MMAP_THRESHOLD_": KEPT, "MALLOC_TRIM_THRESHOLD_": KEPT}
OFFLINE_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""  # the lab template without the scripts that it fetches from the network


class ExitCode(enum.IntEnum):
    """How the command ends when it does not end well."""

    CELL_FAILED = 1
    WRONG_PARAMETERS = 2
    KERNEL_DIED = 3
    CELLS_SKIPPED = 4


class NotebookError(Exception):
    """A notebook did not run to its end; `exit_code` (an `ExitCode`, or 128 + a signal) says in which way."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_notebook(
    notebook: Path, out: Path, values: Mapping, report: Path | None = None, cell_seconds: float | None = None
) -> Path:
    """Run a notebook in a fresh kernel of this Python, from the project folder; `out` when all went well.

    values: of its parameters, as `resolve` gives them. Writes `out` and an HTML `report` (by default beside it), whole
    or not at all. Raises NotebookError for wrong paths and a notebook that stopped, kept as `<out>.failed.ipynb`.
    """
    notebook, out = notebook.absolute(), out.absolute()
    report = report.absolute() if report else out.with_suffix(".html")
    if out.suffix != ".ipynb" or out == notebook:
        wanted = "name another .ipynb file to write the executed notebook to"
        raise NotebookError(f"{files.shown_path(out)}: {wanted}", ExitCode.WRONG_PARAMETERS)
    if not files.PROJECT.is_dir():
        raise NotebookError(f"MASK_LIB_PROJECT names no folder: {files.PROJECT}", ExitCode.WRONG_PARAMETERS)
    failed = out.with_name(f"{out.stem}.failed.ipynb")
    with files.replacing(out) as temporary:
        try:
            executed = execute(notebook, temporary, values, cell_seconds)
            write_report(executed, report, notebook)
            nbformat.write(executed, temporary)
        except BaseException as error:
            found = error
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                found = NotebookError(f"{files.shown_path(out)}: {disk_full(out.parent)}", ExitCode.CELL_FAILED)
            if keep_what_ran(temporary, failed):
                found.add_note(f"What ran of it: {files.shown_path(failed)}")
            raise found from (None if found is not error else error.__cause__)
    failed.unlink(missing_ok=True)
    return out


def keep_what_ran(temporary: Path, failed: Path) -> bool:
    """Whether a half-run notebook could be kept: one that a full disk cut short cannot be opened, and is not."""
    try:
        partial = nbformat.read(temporary, as_version=4)
    except Exception:  # nbformat says in many ways that it is none, or is not there
        return False
    temporary.replace(failed)
    with contextlib.suppress(OSError), files.replacing(failed) as tidied:
        nbformat.write(with_last_progress(partial), tidied)
    return True


def disk_full(folder: Path) -> str:
    """What to say where a disk takes no more."""
    free = shutil.disk_usage(folder).free / 1e6
    return f"no space left on the disk of {files.shown_path(folder)} ({free:.0f} MB free)"


@dataclasses.dataclass
class Watch:
    """What is known of a notebook's kernel, of which nbclient tells only that it died."""

    kernel: Any = None  # its manager
    ending: int | None = None  # its exit status, negative for a signal
    signals: list[signal.Signals] = dataclasses.field(default_factory=list)  # that asked us to end
    since: float = 0.0  # when the first of them did

    def interrupt(self, number: int, frame: object) -> None:
        """Pass the first signal on to the cell that runs, where training finishes its step and saves; else end.

        Only SIGINT ends by coming again: at a time limit SLURM sends SIGTERM twice, for the job and for its step.
        """
        if number in self.signals and number != signal.SIGINT:
            return
        self.signals.append(interrupts.NAMED[number])  # at once: the same may come again within this handler
        process = self.kernel and self.kernel.has_kernel and getattr(self.kernel.provisioner, "process", None)
        if len(self.signals) > 1 or not process:
            sys.exit(128 + number)
        self.since = time.monotonic()
        os.kill(process.pid, signal.SIGINT)


def execute(notebook: Path, temporary: Path, values: Mapping, cell_seconds: float | None) -> nbformat.NotebookNode:
    """The notebook with its outputs, saved to `temporary` after each cell. Raises NotebookError if it stopped."""
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError, strip_color

    watch = Watch()

    def stop(reason: str, exit_code: int) -> NoReturn:
        if watch.signals:
            reason, exit_code = f"ended by {watch.signals[0].name}; {reason}", 128 + watch.signals[0]
        partial = nbformat.read(temporary if temporary.exists() else notebook, as_version=4)
        place = last_started_cell(partial)
        raise NotebookError(f"{files.shown_path(notebook)}, {place}: {reason}", exit_code) from None

    try:
        executed = run_cells(notebook, temporary, values, cell_seconds, watch)
    except PapermillExecutionError as error:
        if watch.signals:
            stop(error.evalue or "nothing that it would go on from was lost", ExitCode.CELL_FAILED)
        if any(f"[Errno {code}]" in error.evalue for code in DISK_FULL):
            stop(f"{disk_full(temporary.parent)}: {error.evalue}", ExitCode.CELL_FAILED)
        lines = strip_color("\n".join(error.traceback)).splitlines()[-TRACEBACK_LINES:]
        stop("\n".join([f"{error.ename}: {error.evalue}", *lines]), ExitCode.CELL_FAILED)
    except CellTimeoutError:
        stop(f"the cell ran longer than {cell_seconds:g} s", ExitCode.CELL_FAILED)
    except RuntimeError:  # nbclient's DeadKernelError, and its plain RuntimeError for one that never started
        stop(f"the kernel died: {explained_ending(watch.ending)}", ExitCode.KERNEL_DIED)
    if skipped_cells(executed):
        stop("sys.exit() ended it here and the rest did not run; let it run to its last cell", ExitCode.CELLS_SKIPPED)
    executed.metadata.papermill.update(input_path=notebook.name, output_path="")
    executed.metadata.pop("widgets", None)
    return with_last_progress(executed)


def with_last_progress(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each line that was written over by carriage returns as a terminal showed it last."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    return CoalesceStreamsPreprocessor().preprocess(notebook, {})[0]


def quicker() -> dict[str, str]:
    """What a process that trains on the CPU should find in its environment when it starts; what is there goes first."""
    return QUICKER | {name: os.environ[name] for name in QUICKER if name in os.environ}


def run_cells(
    notebook: Path, temporary: Path, values: Mapping[str, Any], cell_seconds: float | None, watch: Watch
) -> nbformat.NotebookNode:
    """The notebook as papermill leaves it; `watch` is told of its kernel. Raises what papermill does."""
    from papermill.execute import execute_notebook

    # What the kernel, which is started meanwhile, inherits.
    inherited = quicker() | {"MASK_LIB_HEADLESS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    with contextlib.ExitStack() as stack:
        if not os.access(Path("~").expanduser(), os.W_OK):  # where Jupyter, Matplotlib and others keep files
            inherited["HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, inherited))
        if threading.current_thread() is threading.main_thread():
            for number in interrupts.SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, watch.interrupt))
        settings = {
            "parameters": dict(values),
            "kernel_name": "python3",
            "language": "python",
            "cwd": files.PROJECT,
            "progress_bar": False,
            "stdout_file": sys.stderr,  # progress lines
            "stderr_file": sys.stderr,
            "execution_timeout": cell_seconds,
            "store_widget_state": False,
            "kernel_manager_class": watched_kernel(watch),
        }
        # papermill fills in {names} in paths
        paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, temporary)]
        try:
            return execute_notebook(*paths, **settings)
        except RuntimeError:  # of nbclient: a kernel died
            if watch.signals or (temporary.exists() and started_cells(nbformat.read(temporary, as_version=4))):
                raise
        return execute_notebook(*paths, **settings)  # of kernels that start at once one may find its ports taken


def watched_kernel(watch: Watch) -> type:
    """A kernel manager class that tells `watch` of its kernel, and gives it up when it does not end though asked to."""
    from jupyter_client.manager import AsyncKernelManager

    class WatchedKernel(AsyncKernelManager):
        def __init__(self, **settings: Any) -> None:
            # Encrypted where possible, or others on a shared machine could read what goes to and from the kernel.
            super().__init__(transport_encryption="auto", **settings)
            watch.kernel = self

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(**options, pass_fds=tuple(gpus.held))

        async def is_alive(self) -> bool:
            alive = await self._async_is_alive()
            if not alive and self.has_kernel:
                watch.ending = await self.provisioner.poll()
            return alive and not (watch.signals and time.monotonic() - watch.since > PATIENCE)

    return WatchedKernel


def explained_ending(status: int | None) -> str:
    """A process's exit status in words; a signal counts as negative."""
    if status == -signal.SIGKILL:
        return "killed by signal 9: often out of memory; try a smaller batch_size, or ask for more memory"
    if status is not None and status < 0:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    return "it could not be started" if status is None else f"it ended with exit status {status}"


def last_started_cell(partial: nbformat.NotebookNode) -> str:
    """`cell 7 of 12, under "Does it learn?"`, counted as in the notebook a person opens."""
    cells, number = own_cells(partial), max(started_cells(partial), default=1)
    text = "\n".join(cell.source for cell in cells[:number] if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ *(.*)", text, flags=re.MULTILINE)
    return f"cell {number} of {len(cells)}" + (f', under "{headings[-1]}"' if headings else "")


def own_cells(partial: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells of a notebook that papermill has not added."""
    return [cell for cell in partial.cells if not ADDED_BY_PAPERMILL & set(cell.metadata.get("tags", []))]


def started_cells(partial: nbformat.NotebookNode) -> list[int]:
    """The numbers, from 1, of those of them that have begun to run."""
    papermill = [cell.metadata.get("papermill", {}) for cell in own_cells(partial)]
    return [number for number, noted in enumerate(papermill, 1) if noted.get("start_time")]


def skipped_cells(executed: nbformat.NotebookNode) -> bool:
    """Whether a cell left by `sys.exit()`, which papermill passes over, or code cells never ran."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    meant = [cell for cell in code if "skip-execution" not in cell.metadata.get("tags", [])]
    left = any(output.get("ename") == "SystemExit" for cell in meant for output in cell.outputs)
    return left or any(cell.source.strip() and cell.execution_count is None for cell in meant)


def write_report(executed: nbformat.NotebookNode, report: Path, notebook: Path) -> None:
    """One HTML file that needs no network: pictures are inside, formulas stay as they are written."""
    from nbconvert.exporters import HTMLExporter

    exporter = HTMLExporter(raw_template=OFFLINE_TEMPLATE, embed_images=True)
    resources = {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}}
    body, _ = exporter.from_notebook_node(executed, resources)
    with files.replacing(report) as temporary:
        temporary.write_text(body, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an exit code, 0 or one of `ExitCode`. Messages go to stderr."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.headless", description="Run one notebook unattended.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="where the executed notebook goes")
    parser.add_argument("-f", "--file", action="append", default=[], type=Path, help="YAML of an experiment's values")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument(
        "--values", type=TypeAdapter(dict).validate_json, default={}, help="JSON of values, as the Snakefile gives them"
    )
    parser.add_argument("--report", type=Path, help="where the HTML goes (default: beside OUT)")
    parser.add_argument("--timeout-per-cell", type=float, metavar="SECONDS", help="stop a cell after so long")
    parser.add_argument("--gpu", action="store_true", help="of several GPUs take one that is free, or wait for it")
    asked = parser.parse_args(arguments)
    try:
        parameters = resolve(asked.notebook, asked.file, {**asked.values, **dict(asked.parameter)})
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_PARAMETERS
    try:
        asked.gpu and gpus.take()
        run_notebook(asked.notebook, asked.out, parameters, asked.report, asked.timeout_per_cell)
    except NotebookError as error:
        print("\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return error.exit_code
    return 0
