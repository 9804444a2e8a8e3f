"""Runs toy notebooks unattended: what is refused, what is explained, and what is left on disk."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill.execute
import pytest
from nbclient.exceptions import DeadKernelError
from tiny_project import write_notebook, write_text

from mask_lib.base import files, gpus
from mask_lib.headless import runner
from mask_lib.headless.runner import ExitCode, NotebookError, run_notebook

PROGRESS = "for step in range(4):\n    print(f'\\rstep {step}', end='', flush=True)\nprint('\\ndone')"


def test_a_run_writes_notebook_and_report_with_the_given_values(tmp_path: Path, capfd, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    names = "MASK_LIB_HEADLESS", "GOMP_SPINCOUNT", "MALLOC_TRIM_THRESHOLD_"
    source = f"import os, sys\nprint(repr(name), learning_rate, *map(os.environ.get, {names}), os.getcwd(), sys.prefix)"
    picture = "import base64\nfrom IPython.display import Image\nImage(base64.b64decode('iVBORw0KGgo='))"
    slider = "import ipywidgets\nipywidgets.IntSlider()"
    sources = source, picture, slider, PROGRESS
    (tmp_path / "with {braces}").mkdir()
    notebook = write_notebook(tmp_path / "with {braces}" / "a.ipynb", *sources, kernel="elsewhere")
    out = tmp_path / "results" / "a.{run}.ipynb"
    report = tmp_path / "reports" / "a.html"
    assert run_notebook(notebook, out, {"name": "007", "learning_rate": 0.001}, report) == out

    executed = nbformat.read(out, as_version=4)
    quicker = f"7 {runner.QUICKER['MALLOC_TRIM_THRESHOLD_']}"  # what is set already stays
    assert executed.cells[3].outputs[0].text == f"'007' 0.001 1 {quicker} {files.PROJECT} {sys.prefix}\n"
    assert executed.cells[-1].outputs[0].text == "step 3\ndone\n"
    assert "widgets" not in executed.metadata
    html = report.read_text(encoding="utf-8")
    assert "'007' 0.001" in html and "data:image/png;base64" in html
    assert "step 2" not in html.replace("range(4)", "")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"']?(https?:|//)", html)
    assert "cdn" not in html.lower()
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]
    assert "MASK_LIB_HEADLESS" not in os.environ
    assert "WARNING" not in capfd.readouterr().err


def test_a_failing_cell_is_named_and_an_earlier_result_stays(tmp_path: Path, capfd: pytest.CaptureFixture):
    notebook = write_notebook(tmp_path / "a.ipynb", "print('so far')", PROGRESS + "\n{}['missing']", "print('never')")
    out = write_text(tmp_path / "results.ipynb", "earlier")
    report = write_text(tmp_path / "results.html", "earlier report")
    assert runner.main([str(notebook), str(out), "-p", "epochs", "3"]) == ExitCode.CELL_FAILED
    message = capfd.readouterr().err
    for part in ("cell 4 of 5", "Does it run?", "KeyError: 'missing'", "results.failed.ipynb"):
        assert part in message
    assert "Traceback (most recent call last)\n  File" not in message
    assert out.read_text() == "earlier"
    assert report.read_text() == "earlier report"
    partial = nbformat.read(tmp_path / "results.failed.ipynb", as_version=4)
    assert "so far" in str(partial.cells)
    assert [cell.outputs[0].text for cell in partial.cells if "step" in cell.source] == ["step 3\ndone\n"]


def test_a_notebook_takes_a_gpu_if_it_is_asked_to_and_its_kernel_holds_it_too(tmp_path: Path, nvidia_smi, monkeypatch):
    nvidia_smi("GPU 0: Tesla (UUID: GPU-00)\nGPU 1: Tesla (UUID: GPU-11)\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    source = "import os\nfor one in os.listdir('/proc/self/fd'):\n"
    source += "    if os.path.exists(f'/proc/self/fd/{one}'):\n        print(os.readlink(f'/proc/self/fd/{one}'))\n"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{source}print(os.environ['CUDA_VISIBLE_DEVICES'])")
    assert runner.main([str(notebook), str(tmp_path / "out.ipynb"), "--gpu"]) == 0
    text = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert "-gpus/GPU-00\n" in text and text.endswith("\nGPU-00\n") and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-00"
    for descriptor in gpus.held:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("source", "exit_code", "message"),
    [
        (
            "import os\nos.kill(os.getpid(), 9)",
            ExitCode.KERNEL_DIED,
            "signal 9: often out of memory; try a smaller batch",
        ),
        ("import sys\nsys.exit(0)", ExitCode.CELLS_SKIPPED, "the rest did not run"),
        ("import time\ntime.sleep(30)", ExitCode.CELL_FAILED, "longer than 1 s"),
    ],
)
def test_a_notebook_that_does_not_reach_its_end_is_explained(tmp_path: Path, source: str, exit_code, message: str):
    notebook = write_notebook(tmp_path / "a.ipynb", source, "print('never')")
    out = tmp_path / "out.ipynb"
    with pytest.raises(NotebookError, match=message) as stopped:
        run_notebook(notebook, out, {}, cell_seconds=1)
    assert stopped.value.exit_code == exit_code
    assert "cell 3 of 4" in str(stopped.value)
    assert not out.exists()
    assert (tmp_path / "out.failed.ipynb").exists()


def test_a_kernel_that_dies_before_the_first_cell_is_started_once_more(tmp_path: Path, monkeypatch):
    """As one does that finds its TCP ports taken by another that starts at the same time."""
    execute, calls = papermill.execute.execute_notebook, []

    def execute_at_last(*given, **settings):
        calls.append(given)
        if len(calls) == 1:
            raise DeadKernelError("Kernel died")
        return execute(*given, **settings)

    monkeypatch.setattr(papermill.execute, "execute_notebook", execute_at_last)
    out = run_notebook(write_notebook(tmp_path / "a.ipynb", "print('ran')"), tmp_path / "out.ipynb", {})
    assert len(calls) == 2 and "ran" in out.read_text()


def test_every_other_way_a_kernel_can_end_has_its_words():
    words = {-signal.SIGSEGV: "signal 11 (SIGSEGV)", 5: "status 5", None: "could not be started"}
    for status, said in words.items():
        assert said in runner.explained_ending(status)


def test_wrong_parameters_end_the_command_with_a_message_alone(tmp_path: Path, capsys):
    notebook, out, none = (str(tmp_path / name) for name in ("03_toy.ipynb", "out.ipynb", "none"))
    write_notebook(Path(notebook))
    for arguments, message in (
        ([notebook, out, "-p", "epoch", "3"], "did you mean epochs?"),
        ([none, out], "there is no notebook"),
        ([notebook, out, "-f", none], none),
        ([notebook, notebook], "name another .ipynb file"),
    ):
        assert runner.main(arguments) == ExitCode.WRONG_PARAMETERS
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [Path(notebook)]


def test_the_end_of_a_batch_job_takes_the_kernel_with_it(tmp_path: Path):
    source = f"import os, time\nopen({str(tmp_path / 'kernel')!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(60)"
    notebook = write_notebook(tmp_path / "a.ipynb", source)
    command = [sys.executable, "-m", "mask_lib.headless", str(notebook), str(tmp_path / "out.ipynb")]
    process = subprocess.Popen(command, cwd=files.PROJECT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (tmp_path / "kernel").exists() or not (tmp_path / "kernel").read_text().endswith("."):
        assert time.monotonic() < deadline, "the kernel did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "kernel").read_text().rstrip(".")), 0)
    assert {path.name for path in tmp_path.iterdir()} == {"a.ipynb", "kernel", "out.failed.ipynb"}


def test_a_signal_that_comes_again_within_its_handler_ends_nothing(monkeypatch):
    """SLURM sends two at once; the second is met while the first looks for the kernel."""
    sent = []

    class Kernel:
        @property
        def has_kernel(self) -> bool:
            if not sent:
                sent.append("again")
                watch.interrupt(signal.SIGTERM, None)
            return True

        provisioner = SimpleNamespace(process=SimpleNamespace(pid=7))

    watch = runner.Watch(Kernel())
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    watch.interrupt(signal.SIGTERM, None)
    assert sent == ["again", (7, signal.SIGINT)] and watch.signals == [signal.SIGTERM]
