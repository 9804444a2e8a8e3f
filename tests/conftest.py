"""What several test files share: a calm machine, and a tiny set in the official layout."""

import os
import sys
from unittest import mock

import pytest

from mask_lib.base import gpus, labels

# Before torch starts its threads: two test processes with two threads each would fight over two cores,
# and OpenMP's waiting threads make that many times slower than one thread.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"


@pytest.fixture(autouse=True)
def own_process():
    """A notebook or command run in this process says which task is at hand, and sets variables: for its test alone."""
    with labels.using(labels.task()), mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the toy's painted photos."""
    import toys  # late: it brings torch

    folder = tmp_path_factory.mktemp("data")
    toys.write_photos(folder, toys.table())
    return folder


@pytest.fixture
def closed_figures():
    """No figure of pyplot's outlives the test."""
    yield
    from matplotlib import pyplot  # late: most tests draw nothing

    pyplot.close("all")


@pytest.fixture
def shell(closed_figures):
    """What a kernel runs cells with, in this process; it keeps no history."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    main = sys.modules["__main__"]  # IPython puts its own there, from which no process can be spawned later
    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()
    sys.modules["__main__"] = main


@pytest.fixture
def ax(closed_figures):
    """The axes of a new figure."""
    from matplotlib import pyplot

    return pyplot.subplots()[1]


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an `nvidia-smi` on PATH of a listing and a driver that ends with a status; all cards are visible."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(text: str, status: int = 0) -> None:
        gpus.asked.cache_clear()
        path, listed = tmp_path / "nvidia-smi", f"cat <<'END'\n{text}END\n"
        path.write_text(f'#!/bin/sh\n[ "$1" = -L ] || exec echo 535.104.05\n{listed}exit {status}\n', encoding="utf-8")
        path.chmod(0o755)

    yield write
    gpus.asked.cache_clear()
