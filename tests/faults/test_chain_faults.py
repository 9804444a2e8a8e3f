"""The chain and headless notebooks where folders have hostile names, homes cannot be written, disks are full."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from amount import amount
from data_folders import within
from tiny_project import environment, snakemake, write_notebook, write_text, write_toy_chain

from mask_lib.base import files
from mask_lib.headless import runner
from mask_lib.headless.chain import Chain

HOSTILE = [
    "$(touch evil)",
    "a b",
    "it's",
    'a"b',
    "a;touch evil",
    "`touch evil`",
    "마스크",
    "-rf",
    "a&b|c",
    "$HOME",
    "*",
]


@pytest.mark.parametrize("name", ["output_dir", "data_dir"])
def test_braces_in_a_path_are_refused_by_name_before_any_step(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    write_toy_chain(tmp_path)
    values = {"output_dir": "results", "data_dir": "data", "fold_count": 2} | {name: "a{run}"}
    path = write_text(tmp_path / "toy.yml", yaml.safe_dump(values))
    with pytest.raises(ValueError, match=rf"{name}: .*a\{{run\}} holds braces"):
        Chain([path], {}, tmp_path, lambda folder: [folder])


@pytest.mark.parametrize("name", [HOSTILE[0], *HOSTILE[1 : amount(1, len(HOSTILE))]])
def test_the_chain_runs_a_step_below_folders_of_any_name_and_nothing_but_it(tmp_path, name):
    project = tmp_path / "project"
    write_toy_chain(project)
    (project / "data").rename(project / name)
    values = {"output_dir": f"{name}/out", "data_dir": name, "fold_count": 2}
    (project / "toy.yml").write_text(yaml.safe_dump(values))
    done = snakemake(project, "--configfile", "toy.yml", "--until", "prepare")
    assert done.returncode == 0, done.stdout
    assert (project / name / "out" / "tables" / "photos.csv").read_text() == "seed 0"
    assert not list(project.rglob("evil"))


def test_a_parameter_file_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path, capsys):
    path, notebook = tmp_path / "toy.yml", write_notebook(tmp_path / "a.ipynb", "1")
    os.mkfifo(path)
    command = [str(notebook), str(tmp_path / "out.ipynb"), "-f", str(path)]
    assert within(30, [path], lambda: runner.main(command)) == runner.ExitCode.WRONG_PARAMETERS
    said = capsys.readouterr().err
    assert "toy.yml is a folder, a pipe or a device" in said and "Traceback" not in said


def test_a_home_that_cannot_be_written_stops_no_notebook(tmp_path):
    source = "import matplotlib.pyplot, os, pathlib\nprint(pathlib.Path.home())\n(pathlib.Path.home() / 'x').touch()"
    notebook, out = write_notebook(tmp_path / "a.ipynb", source), tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "mask_lib.headless", notebook, out]
    variables = environment(files.PROJECT) | {"HOME": "/dev/null/home"}
    done = subprocess.run(command, cwd=files.PROJECT, capture_output=True, text=True, timeout=200, env=variables)
    assert done.returncode == 0, done.stderr
    home = nbformat.read(out, as_version=4).cells[-1].outputs[0].text.strip()
    assert home != "/dev/null/home" and not Path(home).exists()


@pytest.mark.parametrize("where", ["in a cell", "when the notebook is saved"])
def test_a_full_disk_is_said_in_a_line_and_what_is_kept_opens(tmp_path, monkeypatch, capsys, where):
    full, is_cell = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.csv"), where == "in a cell"
    notebook = write_notebook(tmp_path / "a.ipynb", f"print('begun')\nraise {full!r}" if is_cell else "print('begun')")

    def refuse(executed, path):
        Path(path).write_text('{"cells": [')
        raise full

    if not is_cell:
        monkeypatch.setattr(runner.nbformat, "write", refuse)
    assert runner.main([str(notebook), str(tmp_path / "out.ipynb")]) == runner.ExitCode.CELL_FAILED
    said = [line for line in capsys.readouterr().err.splitlines() if line and line != "begun"]
    assert "no space left on the disk of" in said[0] and "MB free" in said[0] and "Traceback" not in " ".join(said)
    kept = list(tmp_path.glob("*.failed.ipynb"))
    assert len(said) == 1 + len(kept) and not list(tmp_path.glob(".*"))
    assert all(nbformat.read(path, as_version=4).cells for path in kept)
    assert not (tmp_path / "out.ipynb").exists()
