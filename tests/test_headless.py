"""Runs toy notebooks unattended: what is refused, what is explained, and what is left on disk."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from mask_lib import files, headless
from mask_lib.headless import ExitCode, NotebookError, run_notebook

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


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook that takes six parameters and does nothing."""
    return write_notebook(tmp_path / "03_toy.ipynb")


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        (None, "0 cells are tagged"),
        ("epochs = 2\nseed = 1 + 1", "line 2"),
        ("import os", "line 1"),
        ("epochs: int = 2", "line 1"),
        ("a = b = 2", "line 1"),
        ("epochs = 2\n\nepochs = 3", "line 3: epochs is set twice"),
        ("epochs = 2\nepochs +", "line 2"),
    ],
)
def test_a_parameters_cell_that_is_not_plain_literals_is_refused_by_line(tmp_path: Path, parameters, where: str):
    notebook = write_notebook(tmp_path / "odd.ipynb", parameters=parameters)
    with pytest.raises(ValueError, match=rf"odd\.ipynb.*{re.escape(where)}"):
        headless.notebook_parameters(notebook)


def test_two_parameters_cells_are_refused(tmp_path: Path, notebook: Path):
    twice = nbformat.read(notebook, as_version=4)
    twice.cells.append(nbformat.v4.new_code_cell("b = 1", metadata={"tags": ["parameters"]}))
    nbformat.write(twice, notebook)
    with pytest.raises(ValueError, match="2 cells are tagged"):
        headless.notebook_parameters(notebook)


def test_defaults_are_read_with_their_types(tmp_path: Path):
    parameters = "low = -1  # years\nedges = (30, 60)\nextra = {'a': [1.5]}"
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=parameters)
    assert headless.notebook_parameters(notebook) == {"low": -1, "edges": (30, 60), "extra": {"a": [1.5]}}


def test_the_source_digest_follows_cells_and_not_outputs(notebook: Path):
    before = headless.source_digest(notebook)
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    content.cells[1].execution_count = 7
    content.metadata["title"] = "new"
    nbformat.write(content, notebook)
    assert headless.source_digest(notebook) == before
    content.cells[1].source += "\nmore = 1"
    nbformat.write(content, notebook)
    assert headless.source_digest(notebook) != before


def test_later_files_win_and_given_values_win_over_files(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "06_other.ipynb", parameters="num_tta = 1")
    first = write_text(tmp_path / "a.yml", "epochs: 3\nname: first\nnum_tta: 4\n")
    second = write_text(tmp_path / "b.yml", "name: second\nlearning_rate: 1\n")
    chosen = headless.resolve(notebook, [first, second], {"epochs": "9"})
    assert chosen == {"epochs": 9, "name": "second", "learning_rate": 1.0}
    assert type(chosen["learning_rate"]) is float


def test_a_run_overrides_the_shared_values_and_given_values_override_the_run(tmp_path: Path):
    notebook = write_notebook(tmp_path / "03_toy.ipynb", parameters='run = "one"\nepochs = 1\nseed = 0')
    first = write_text(tmp_path / "a.yml", "epochs: 2\nruns:\n  one:\n  deep: {epochs: 3, seed: 4, notebook: 03_toy}\n")
    second = write_text(tmp_path / "b.yml", "runs: {deep: {seed: 5}}")
    assert headless.resolve(notebook, [first]) == {"epochs": 2}
    assert headless.resolve(notebook, [first], {"run": "deep"}) == {"run": "deep", "epochs": 3, "seed": 4}
    assert headless.resolve(notebook, [first, second], {"run": "deep", "epochs": "7"}) == {
        "run": "deep",
        "epochs": 7,
        "seed": 5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "did you mean epochs?"),
        ("runs: {deep: {epoch: 3}}", "run deep: .*did you mean epochs?"),
        ("runs: [deep]", "maps a run's name"),
        ("epochs: 3\nname: a\nepochs: 4", r"epochs is set twice\n.*line 3"),
        ("- epochs", "holds a list"),
        ("epochs: [", r"a\.yml"),
        ("name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("learning_rate: 1e-3", r"learning_rate is a number, not '1e-3'; in YAML write 1\.0e-3"),
        ("learning_rate: 2.5e3", r"in YAML write 2\.5e\+3"),
        ("epochs: 1e3", "epochs is a whole number, not '1e3'; write 1000"),
        ("epochs: '3'", "write 3 without quotes"),
        ("epochs: 3.0", r"epochs is a whole number, not 3\.0"),
        ("epochs: true", "epochs is a whole number, not True"),
        ("epochs:", "epochs is a whole number, not None"),
        ("resume: 1", "resume is true or false, not 1"),
        ("name: 007", "name is text, not 7; put it in quotes"),
        ("name: no", "name is text, not False; put it in quotes"),
        ("name: 2024-01-31", "put it in quotes"),
        ("folds: 1", "folds is a list, not 1"),
        ("folds: [0, one]", r"folds\[1\] is a whole number, not 'one'"),
        ("anything: {1: a}", "mappings of text"),
    ],
)
def test_a_wrong_parameter_file_is_refused_with_what_to_write(tmp_path: Path, notebook: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        headless.resolve(notebook, [write_text(tmp_path / "a.yml", text)])
    assert "a.yml" in str(refused.value) or "runs" in text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("name", "007", "007"),
        ("name", "[a]", "[a]"),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", "1", 1.0),
        ("epochs", "12", 12),
        ("resume", "true", True),
        ("folds", "[0, 1]", [0, 1]),
        ("anything", "{a: 1.5}", {"a": 1.5}),
    ],
)
def test_text_from_the_command_line_takes_the_declared_type(notebook: Path, name: str, text: str, value):
    chosen = headless.resolve(notebook, [], {name: text})
    assert chosen == {name: value}
    assert type(chosen[name]) is type(value)


@pytest.mark.parametrize(("name", "text"), [("epochs", "1.5"), ("epochs", "["), ("resume", "1"), ("folds", "0")])
def test_text_that_cannot_be_the_declared_type_is_refused(notebook: Path, name: str, text: str):
    with pytest.raises(ValueError, match=f"{name} is "):
        headless.resolve(notebook, [], {name: text})


def test_a_given_name_must_be_declared_by_this_notebook(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "06_other.ipynb", parameters="num_tta = 1")
    with pytest.raises(ValueError, match=r"03_toy.*'num_tta'"):
        headless.resolve(notebook, [], {"num_tta": "4"})


def test_scratch_notebooks_beside_do_not_stop_a_run(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "Untitled.ipynb", parameters=None)
    write_text(tmp_path / "broken.ipynb", "not a notebook")
    assert headless.resolve(notebook, [], {"epochs": 3}) == {"epochs": 3}


def test_runs_are_planned_with_their_notebooks():
    assert headless.planned_runs({}) == {"one_model": "03_one_model"}
    assert headless.planned_runs({"run": "quick"}) == {"quick": "03_one_model"}
    runs = {"a": None, "b-2": {"notebook": "04_three_model.ipynb"}}
    assert headless.planned_runs({"runs": runs}) == {"a": "03_one_model", "b-2": "04_three_model"}
    with pytest.raises(ValueError, match=r"cannot be called '\.\./a'"):
        headless.planned_runs({"runs": {"../a": {}}})


def test_a_run_writes_notebook_and_report_with_the_given_values(tmp_path: Path, capfd: pytest.CaptureFixture):
    source = (
        "import os, sys\nprint(repr(name), learning_rate, os.environ['MASK_LIB_HEADLESS'], os.getcwd(), sys.prefix)"
    )
    picture = "import base64\nfrom IPython.display import Image\nImage(base64.b64decode('iVBORw0KGgo='))"
    slider = "import ipywidgets\nipywidgets.IntSlider()"
    (tmp_path / "with {braces}").mkdir()
    notebook = write_notebook(tmp_path / "with {braces}" / "a.ipynb", source, picture, slider, kernel="elsewhere")
    out = tmp_path / "results" / "a.{run}.ipynb"
    report = tmp_path / "reports" / "a.html"
    assert run_notebook(notebook, out, {"name": "007", "learning_rate": "1e-3"}, report) == out

    executed = nbformat.read(out, as_version=4)
    expected = f"'007' 0.001 1 {files.PROJECT} {sys.prefix}\n"
    assert executed.cells[3].outputs[0].text == expected
    assert "widgets" not in executed.metadata
    html = report.read_text(encoding="utf-8")
    assert "'007' 0.001" in html
    assert "data:image/png;base64" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"']?(https?:|//)", html)
    assert "cdn" not in html.lower()
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]
    assert "MASK_LIB_HEADLESS" not in os.environ
    assert "WARNING" not in capfd.readouterr().err


def test_a_failing_cell_is_named_and_an_earlier_result_stays(tmp_path: Path, capfd: pytest.CaptureFixture):
    notebook = write_notebook(tmp_path / "a.ipynb", "print('so far')", "{}['missing']", "print('never')")
    out = write_text(tmp_path / "results.ipynb", "earlier")
    report = write_text(tmp_path / "results.html", "earlier report")
    assert headless.main([str(notebook), str(out), "-p", "epochs", "3"]) == ExitCode.CELL_FAILED
    message = capfd.readouterr().err
    assert "cell 4 of 5" in message
    assert "Does it run?" in message
    assert "KeyError: 'missing'" in message
    assert "results.failed.ipynb" in message
    assert "Traceback (most recent call last)\n  File" not in message
    assert out.read_text() == "earlier"
    assert report.read_text() == "earlier report"
    partial = nbformat.read(tmp_path / "results.failed.ipynb", as_version=4)
    assert "so far" in str(partial.cells)


@pytest.mark.parametrize(
    ("source", "exit_code", "message"),
    [
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            ExitCode.KERNEL_DIED,
            "signal 9: often out of memory",
        ),
        ("import os\nos._exit(5)", ExitCode.KERNEL_DIED, "exit status 5"),
        ("import sys\nsys.exit(0)", ExitCode.CELLS_SKIPPED, "the rest did not run"),
        ("import time\ntime.sleep(30)", ExitCode.CELL_FAILED, "longer than 2 s"),
    ],
)
def test_a_notebook_that_does_not_reach_its_end_is_explained(tmp_path: Path, source: str, exit_code, message: str):
    notebook = write_notebook(tmp_path / "a.ipynb", source, "print('never')")
    out = tmp_path / "out.ipynb"
    with pytest.raises(NotebookError, match=message) as stopped:
        run_notebook(notebook, out, {}, cell_seconds=2)
    assert stopped.value.exit_code == exit_code
    assert "cell 3 of 4" in str(stopped.value)
    assert not out.exists()
    assert (tmp_path / "out.failed.ipynb").exists()


def test_wrong_parameters_end_the_command_with_a_message_alone(tmp_path: Path, notebook: Path, capsys):
    out = tmp_path / "out.ipynb"
    assert headless.main([str(notebook), str(out), "-p", "epoch", "3"]) == ExitCode.WRONG_PARAMETERS
    assert "did you mean epochs?" in capsys.readouterr().err
    assert headless.main([str(tmp_path / "none.ipynb"), str(out)]) == ExitCode.WRONG_PARAMETERS
    assert "there is no notebook" in capsys.readouterr().err
    assert headless.main([str(notebook), str(out), "-f", str(tmp_path / "none.yml")]) == ExitCode.WRONG_PARAMETERS
    assert "none.yml" in capsys.readouterr().err
    assert headless.main([str(notebook), str(notebook)]) == ExitCode.WRONG_PARAMETERS
    assert list(tmp_path.iterdir()) == [notebook]


def test_the_end_of_a_batch_job_takes_the_kernel_with_it(tmp_path: Path):
    source = f"import os, time\nopen({str(tmp_path / 'kernel')!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(60)"
    notebook = write_notebook(tmp_path / "a.ipynb", source)
    command = [sys.executable, "-m", "mask_lib.headless", str(notebook), str(tmp_path / "out.ipynb")]
    process = subprocess.Popen(command, cwd=files.PROJECT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "kernel").exists() or not (tmp_path / "kernel").read_text().endswith("."):
        assert time.monotonic() < deadline, "the kernel did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "kernel").read_text().rstrip(".")), 0)
    assert {path.name for path in tmp_path.iterdir()} == {"a.ipynb", "kernel", "out.failed.ipynb"}
