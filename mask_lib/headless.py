"""One notebook run with nobody watching: papermill with its gaps closed.

    python -m mask_lib.headless NOTEBOOK OUT.ipynb [-f PARAMS.yml ...] [-p NAME VALUE ...]

Papermill only warns of a misspelt parameter, reads 007 as 7, takes `sys.exit(0)` for success and
leaves a half-run notebook under the final name. Here each of these stops with a message and an exit
code (`ExitCode`), and OUT appears when the notebook has run to its end, with an HTML report beside it.
"""

import argparse
import ast
import contextlib
import difflib
import enum
import json
import os
import re
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import yaml

from mask_lib import files

# papermill, jupyter_client and nbconvert are imported where they are used: they take seconds, and the
# Snakefile, which every job of a cluster reads anew, needs only the parameters.

FilePath = str | os.PathLike[str]

TYPE_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # it becomes part of file names
ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}  # cell tags
TRACEBACK_LINES = 15
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
    """A notebook did not run to its end; `exit_code` (an `ExitCode`) says in which way."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def read_notebook(path: FilePath) -> nbformat.NotebookNode:
    """A notebook in format 4. Raises ValueError that names the file if it is none, or not there."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise ValueError(f"there is no notebook {files.shown_path(path)}") from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{files.shown_path(path)} is not a notebook") from error


def source_digest(notebook: FilePath) -> str:
    """16 hex digits for the types and sources of a notebook's cells, whatever outputs are saved in it."""
    return files.digest([[cell.cell_type, cell.source] for cell in read_notebook(notebook).cells])


def notebook_parameters(notebook: FilePath) -> dict[str, Any]:
    """Names and defaults from the one cell tagged `parameters`, in its order.

    Raises ValueError that names the notebook and the line unless there is exactly one such cell and
    it holds plain `name = literal` lines only.
    """
    shown = files.shown_path(notebook)
    cells = [cell for cell in read_notebook(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise ValueError(f"{shown}: {len(cells)} cells are tagged 'parameters'; tag exactly one code cell")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ValueError(f"{shown}, parameters cell, line {error.lineno}: {error.msg}") from None
    parameters: dict[str, Any] = {}
    for statement in statements:
        where = f"{shown}, parameters cell, line {statement.lineno}"
        name, value = literal_assignment(statement, where)
        if name in parameters:
            raise ValueError(f"{where}: {name} is set twice")
        parameters[name] = value
    return parameters


def literal_assignment(statement: ast.stmt, where: str) -> tuple[str, Any]:
    """Name and value of a `name = literal` statement. Raises ValueError that starts with `where`."""
    with contextlib.suppress(ValueError, TypeError):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return name, ast.literal_eval(value)
    raise ValueError(f"{where}: write a plain `name = literal`")


def folder_parameters(folder: FilePath) -> set[str]:
    """Every parameter name that some notebook in `folder` declares; scratch notebooks are passed over."""
    names: set[str] = set()
    for notebook in sorted(Path(folder).glob("[!.]*.ipynb")):
        with contextlib.suppress(ValueError):
            names.update(notebook_parameters(notebook))
    return names


class UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML in which a key written twice is an error; YAML itself keeps the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is set twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_parameter_file(path: FilePath) -> dict[str, Any]:
    """The mapping in a YAML file, {} if it is empty. Raises ValueError that names the file and line."""
    try:
        with open(path, encoding="utf-8") as text:
            values = yaml.load(text, Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None  # it names the file itself
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} holds {TYPE_WORDS.get(type(values), 'something else')}; write `name: value` lines")
    return values or {}


def planned_runs(values: Mapping[str, Any], notebook: str = "03_one_model") -> dict[str, str]:
    """Per run of an experiment the name of the notebook that trains it, `notebook` unless it says other.

    Without a `runs` section there is one run: the parameter `run`, or `one_model`. Raises ValueError
    for a name that cannot be part of a file name.
    """
    runs = run_overrides(values) or {values.get("run", "one_model"): {}}
    for run in runs:
        if not (isinstance(run, str) and RUN_NAME.fullmatch(run)):
            raise ValueError(f"a run cannot be called {run!r}: use letters, digits, _ and - (and quotes round digits)")
    return {run: str(overrides.get("notebook", notebook)).removesuffix(".ipynb") for run, overrides in runs.items()}


def run_overrides(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The `runs` section: per run what it changes. Raises ValueError if it has another shape."""
    runs = values.get("runs") or {}
    if not (isinstance(runs, Mapping) and all(isinstance(changes, Mapping | None) for changes in runs.values())):
        raise ValueError("`runs` maps a run's name to a mapping of what it changes: `runs: {deep: {epochs: 9}}`")
    return {run: dict(changes or {}) for run, changes in runs.items()}


def resolve(notebook: FilePath, files_given: Sequence[FilePath] = (), given: Mapping[str, Any] | None = None) -> dict:
    """The parameters of one notebook from YAML files, later ones first, and on top of them `given`.

    See `choose` for what is refused; the message names the file.
    """
    merged: dict[str, Any] = {}
    for path in files_given:
        values = read_parameter_file(path)
        choose(notebook, values, where=str(path))
        runs = run_overrides(merged)
        for run, changes in run_overrides(values).items():
            runs[run] = {**runs.get(run, {}), **changes}
        merged = {**merged, **values, "runs": runs}
    return choose(notebook, merged, given)


def choose(
    notebook: FilePath, values: Mapping[str, Any], given: Mapping[str, Any] | None = None, where: str = "parameters"
) -> dict[str, Any]:
    """What one notebook is to be run with, in types that match its declared defaults.

    values: shared by all notebooks of an experiment, so that names of the others are passed over; its
        `runs` section may hold, by run, overrides of the flat names and the run's `notebook`.
    given: for this notebook alone; text is read as the declared type asks, as on a command line.

    Raises ValueError for a name in `values` that no notebook in the same folder declares, a name in
    `given` that this notebook does not, and a value of another type than the declared default's.
    """
    declared, given = notebook_parameters(notebook), dict(given or {})
    refuse_unknown(given, declared, files.shown_path(notebook))
    flat = {name: value for name, value in values.items() if name != "runs"}
    runs = run_overrides(values)
    shared = folder_parameters(Path(notebook).parent)
    refuse_unknown(flat, shared, where)
    for run, changes in runs.items():
        refuse_unknown(changes, (shared | {"notebook"}) - {"run"}, f"{where}, run {run}")
    given = {name: understood(value, declared[name]) for name, value in given.items()}
    run = given.get("run", flat.get("run", declared.get("run")))
    chosen = {**flat, **runs.get(run, {}), **given}
    return {name: held_to_type(name, chosen[name], declared[name], where) for name in declared if name in chosen}


def refuse_unknown(names: Collection[str], known: Collection[str], where: str) -> None:
    """Raise ValueError that lists the names outside `known`, with the nearest known ones."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=3)
            advice = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{where}: no parameter is called {name!r}; {advice}")


def understood(value: Any, default: Any) -> Any:
    """What a text from the command line means beside a declared default; other values stay as they are."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    if isinstance(default, float) and is_number(value):
        return float(value)
    try:
        return yaml.load(value, Loader=UniqueKeyLoader)
    except yaml.YAMLError:
        return value  # the check of its type says what is wrong with it


def held_to_type(name: str, value: Any, default: Any, where: str = "parameters") -> Any:
    """`value`, which must be of its default's type; a whole number will do for a float, None takes anything.

    The elements of a list are held to those of the default list. Raises ValueError that starts with
    `where` and says what to write.
    """
    kind = list if isinstance(default, tuple) else type(default)
    if isinstance(value, tuple):
        value = list(value)
    if kind is float and type(value) is int:
        return float(value)
    if default is not None and type(value) is not kind:
        raise ValueError(f"{where}: {name} is {TYPE_WORDS[kind]}, not {value!r}{advice_on_type(value, kind)}")
    if kind is list and len({type(item) for item in default}) == 1:
        return [held_to_type(f"{name}[{index}]", item, default[0], where) for index, item in enumerate(value)]
    if not is_plain(value):
        raise ValueError(f"{where}: {name} may hold text, numbers, true, false, null, lists and mappings of text")
    return value


def is_plain(value: Any) -> bool:
    """Whether JSON and papermill both carry the value unchanged."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and is_plain(list(value.values()))
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def is_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def advice_on_type(value: Any, kind: type) -> str:
    """What to write instead of `value`, where that is a common slip; else nothing."""
    if kind is str and value is not None:
        return "; put it in quotes"
    if not (kind in (int, float) and isinstance(value, str) and is_number(value)):
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    if not exponent:
        return f"; write {value} without quotes"
    if kind is int:
        return f"; write {float(value):.0f}"
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    # YAML 1.1 takes a number for text unless it has both the point and the exponent's sign.
    return f"; in YAML write {mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def run_notebook(
    notebook: FilePath,
    out: FilePath,
    parameters: Mapping[str, Any],
    report: FilePath | None = None,
    cell_seconds: float | None = None,
) -> Path:
    """Run a notebook in a fresh kernel of this Python, from the project folder; `out` when all went well.

    Writes `out` and an HTML `report` (by default beside it), both whole or not at all. What ran of a
    notebook that stopped is kept as `<out>.failed.ipynb`; an older `out` is left as it was.

    Raises NotebookError for wrong parameters or paths and for a notebook that stopped.
    """
    notebook, out = Path(notebook).absolute(), Path(out).absolute()
    report = Path(report).absolute() if report else out.with_suffix(".html")
    if out.suffix != ".ipynb" or out == notebook:
        message = f"{files.shown_path(out)}: name another .ipynb file to write the executed notebook to"
        raise NotebookError(message, ExitCode.WRONG_PARAMETERS)
    try:
        values = choose(notebook, {}, parameters)
    except (ValueError, OSError) as error:
        raise NotebookError(str(error), ExitCode.WRONG_PARAMETERS) from None
    failed = out.with_name(f"{out.stem}.failed.ipynb")
    with files.replacing(out) as temporary:
        try:
            executed = execute(notebook, temporary, values, cell_seconds)
            write_report(executed, report, notebook)
            nbformat.write(executed, temporary)
        except BaseException as error:
            if temporary.exists():
                temporary.replace(failed)
                error.add_note(f"What ran of it: {files.shown_path(failed)}")
            raise
    failed.unlink(missing_ok=True)
    return out


def execute(
    notebook: Path, temporary: Path, values: Mapping[str, Any], cell_seconds: float | None
) -> nbformat.NotebookNode:
    """The notebook with its outputs; papermill saves to `temporary` after each cell.

    Raises NotebookError if a cell fails or takes longer than `cell_seconds`, the kernel dies, or cells
    were skipped.
    """
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError, strip_color
    from papermill.execute import execute_notebook

    def stop(reason: str, exit_code: ExitCode) -> NoReturn:
        partial = read_notebook(temporary if temporary.exists() else notebook)
        place = last_started_cell(partial)
        raise NotebookError(f"{files.shown_path(notebook)}, {place}: {reason}", exit_code) from None

    endings: list[int | None] = []
    try:
        with environment(MASK_LIB_HEADLESS="1", JUPYTER_PREFER_ENV_PATH="1"):
            executed = execute_notebook(
                # papermill fills in {names} in paths
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, temporary)),
                parameters=dict(values),
                kernel_name="python3",
                language="python",
                cwd=files.PROJECT,
                progress_bar=False,
                stderr_file=sys.stderr,
                execution_timeout=cell_seconds,
                store_widget_state=False,
                kernel_manager_class=watched_kernel(endings),
            )
    except PapermillExecutionError as error:
        lines = strip_color("\n".join(error.traceback)).splitlines()[-TRACEBACK_LINES:]
        stop("\n".join([f"{error.ename}: {error.evalue}", *lines]), ExitCode.CELL_FAILED)
    except CellTimeoutError:
        stop(f"the cell ran longer than {cell_seconds:g} s", ExitCode.CELL_FAILED)
    except RuntimeError:  # nbclient's DeadKernelError, and its plain RuntimeError for one that never started
        stop(f"the kernel died: {explained_ending(endings[-1] if endings else None)}", ExitCode.KERNEL_DIED)
    if skipped_cells(executed):
        stop("sys.exit() ended it here and the rest did not run; let it run to its last cell", ExitCode.CELLS_SKIPPED)
    executed.metadata.papermill.update(input_path=notebook.name, output_path="")
    executed.metadata.pop("widgets", None)
    return executed


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while; kernels started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def watched_kernel(endings: list[int | None]) -> type:
    """A kernel manager class that notes in `endings` how its kernel ended; nbclient tells only that it did.

    It also encrypts what goes to and from the kernel, which others on a shared machine could else read.
    """
    import traitlets
    from jupyter_client.manager import AsyncKernelManager

    class WatchedKernel(AsyncKernelManager):
        @traitlets.default("transport_encryption")
        def _encrypt_where_possible(self) -> str:
            return "auto"

        async def is_alive(self) -> bool:
            alive = await self._async_is_alive()
            if not alive and self.has_kernel:
                endings.append(await self.provisioner.poll())
            return alive

    return WatchedKernel


def explained_ending(status: int | None) -> str:
    """A process's exit status in words; a signal counts as negative."""
    if status == -signal.SIGKILL:
        return "killed by signal 9: often out of memory; try a smaller batch_size, or ask for more memory"
    if status is not None and status < 0:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    if status == 0:
        return "it ended itself with status 0; look for a call of os._exit"
    return "it could not be started" if status is None else f"it ended with exit status {status}"


def last_started_cell(partial: nbformat.NotebookNode) -> str:
    """`cell 7 of 12, under "Does it learn?"`, counted as in the notebook a person opens."""
    cells = [cell for cell in partial.cells if not ADDED_BY_PAPERMILL & set(cell.metadata.get("tags", []))]
    started = [number for number, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    number = max(started, default=1)
    text = "\n".join(cell.source for cell in cells[:number] if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ *(.*)", text, flags=re.MULTILINE)
    return f"cell {number} of {len(cells)}" + (f', under "{headings[-1]}"' if headings else "")


def skipped_cells(executed: nbformat.NotebookNode) -> bool:
    """Whether a cell left by `sys.exit()`, which papermill passes over, or code cells never ran."""
    for cell in executed.cells:
        if cell.cell_type != "code" or "skip-execution" in cell.metadata.get("tags", []):
            continue
        left = any(output.get("ename") == "SystemExit" for output in cell.outputs)
        if left or (cell.source.strip() and cell.execution_count is None):
            return True
    return False


def write_report(executed: nbformat.NotebookNode, report: Path, notebook: Path) -> None:
    """One HTML file that needs no network: pictures are inside, formulas stay as they are written."""
    from jinja2 import DictLoader
    from nbconvert.exporters import HTMLExporter

    exporter = HTMLExporter(
        template_name="lab",
        template_file="offline.html.j2",
        extra_loaders=[DictLoader({"offline.html.j2": OFFLINE_TEMPLATE})],
        embed_images=True,
    )
    resources = {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}}
    body, _ = exporter.from_notebook_node(executed, resources)
    with files.replacing(report) as temporary:
        temporary.write_text(body, encoding="utf-8")


def argument_parser() -> argparse.ArgumentParser:
    """The command line, as the head of this module shows it."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.headless", description="Run one notebook unattended.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="where the executed notebook goes")
    parser.add_argument("-f", "--file", action="append", default=[], type=Path, help="YAML of an experiment's values")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--values", type=json.loads, default={}, help="JSON of values, as the Snakefile gives them")
    parser.add_argument("--report", type=Path, help="where the HTML goes (default: beside OUT)")
    parser.add_argument("--timeout-per-cell", type=float, metavar="SECONDS", help="stop a cell after so long")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an exit code, 0 or one of `ExitCode`. Messages go to stderr."""
    asked = argument_parser().parse_args(arguments)
    try:
        parameters = resolve(asked.notebook, asked.file, {**asked.values, **dict(asked.parameter)})
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_PARAMETERS
    try:
        run_notebook(asked.notebook, asked.out, parameters, asked.report, asked.timeout_per_cell)
    except NotebookError as error:
        print("\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # A batch system ends jobs by SIGTERM: leave as on an error, so that kernel and files are seen to.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
