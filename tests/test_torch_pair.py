"""`make setup` installs one of two torches, from one list of versions, and nothing of the other stays."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mask_lib.base import files

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
PINS = [line for line in (files.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line]
DEFAULT = {line for line in PINS if line[0] != "#"}
MARKED = {line.removeprefix("#cuda12 ") for line in PINS if line.startswith("#cuda12 ")}
CUDA_13 = {line for line in DEFAULT if re.match(r"torch|triton|nvidia-|cuda-", line)}


@pytest.fixture
def environment(tmp_path):
    """An environment whose python writes down what it is asked to do and does nothing."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n', encoding="utf-8")
    python.chmod(0o755)
    return tmp_path / "venv"


def setup(environment: Path, *words: str) -> tuple[list[str], set[str]]:
    """The stamps and the packages uninstalled after a `make setup`, whose error it raises."""
    asked = environment.parent / "asked"
    asked.write_text("", encoding="utf-8")
    command = ["make", "setup", f"VENV={environment}", *words]
    free = {**os.environ, "MAKEFLAGS": ""}  # of what a `make test TORCH=…` around this says
    made = subprocess.run(command, cwd=files.PROJECT, env=free, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    lines = asked.read_text(encoding="utf-8").splitlines()
    gone = {name for line in lines if " uninstall " in line for name in re.findall(r" ((?:nvidia|cuda)-\S+)", line)}
    return sorted(path.name for path in environment.glob(".installed*")), gone


def pins(environment: Path, word: str) -> set[str]:
    lines = (environment / f"requirements.{word}.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and line[0] != "#"}


def names(lines: set[str]) -> set[str]:
    return {line.partition("==")[0] for line in lines}


def test_the_older_torch_takes_the_place_of_the_cuda_13_stack_and_of_nothing_else(environment):
    setup(environment, "TORCH=cuda12")
    assert pins(environment, "cuda12") == (DEFAULT - CUDA_13) | MARKED
    assert names(CUDA_13) - names(MARKED) == {name for name in names(CUDA_13) if re.match("nvidia-|cuda-", name)}
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu12"} <= names(MARKED)
    setup(environment, "TORCH=cuda13")
    assert pins(environment, "cuda13") == DEFAULT


def test_switching_removes_what_the_other_torch_needs_and_a_plain_make_keeps_what_is_there(environment):
    older, newer = names(MARKED) - names(DEFAULT), names(CUDA_13) - names(MARKED)
    assert setup(environment) == ([".installed.cuda13"], older)
    assert setup(environment) == ([".installed.cuda13"], set())
    assert setup(environment, "TORCH=cuda12") == ([".installed.cuda12"], newer)
    assert setup(environment) == ([".installed.cuda12"], set())
    assert setup(environment, "TORCH=cuda13") == ([".installed.cuda13"], older)


def test_an_unknown_torch_is_refused_with_the_two_there_are(environment):
    with pytest.raises(AssertionError, match=r"TORCH=cuda11: write cuda13, .*, or cuda12"):
        setup(environment, "TORCH=cuda11")


def test_pip_installs_the_same_list_where_uv_cannot_be_had(environment):
    python, asked = environment / "bin" / "python", environment.parent / "asked"
    python.write_text(python.read_text().replace("\n", '\ncase "$*" in *uv*) exit 1; esac\n', 1), encoding="utf-8")
    stamps, _ = setup(environment, "TORCH=cuda12")
    assert stamps == [".installed.cuda12"]
    assert f"-m pip install -r {environment}/requirements.cuda12.txt" in asked.read_text(encoding="utf-8").splitlines()
