"""benchmarks/gpu.py runs at toy size on a CPU, and whatever fails or lacks time is a line of its table."""

import subprocess
import sys
import time

import pytest
import torch
from tiny_project import CHECKOUT, environment

SECTIONS = (
    "copy on the device", "pipeline / fixed batch", "share of the bounds", "waits in a step, faces", "decoded",
    "/ DataLoader", "/ timm's loader", "the same bits", "augmentation trivialaugment", "views: 8", "upload", "3 folds",
)  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    import gpu

    return gpu


def test_every_section_gives_its_lines_at_toy_size(tmp_path):
    out = tmp_path / "table.md"
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "gpu.py"), "--toy", "--out", str(out)]
    done = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    table = out.read_text(encoding="utf-8")
    assert table in done.stdout
    lines = {what: measured for what, _, measured in (row[2:-2].split(" | ") for row in table.splitlines()[4:])}
    assert all(any(section in what for what in lines) for section in SECTIONS)
    assert not [line for line in lines.items() if line[1].startswith(("failed", "left out"))]
    assert lines["stopped and resumed, the same bits"].startswith("yes")


def test_what_fails_or_lacks_time_is_a_line(gpu):
    def out_of_memory():
        raise torch.OutOfMemoryError("no room")

    assert gpu.measured(gpu.Line("", "", out_of_memory), 60) == "failed: OutOfMemoryError: no room"
    assert gpu.measured(gpu.Line("", "", out_of_memory, seconds=61), 60) == "left out: 60 s were left"
    assert "TimeoutError" in gpu.measured(gpu.Line("", "", lambda: time.sleep(60), seconds=0), 0.1)


def test_without_a_gpu_it_says_so_and_writes_nothing(gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu.devices, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "table.md")])
    gpu.main()
    assert "no GPU" in capsys.readouterr().out and not list(tmp_path.iterdir())
