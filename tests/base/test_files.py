"""A file is the old one or the new one, whatever happens in between; and paths count from the project."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib.base import files

KILLED_WHILE_WRITING = """
import os, signal, sys
from mask_lib.base import files
with files.replacing(sys.argv[1]) as temporary:
    temporary.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_AGAIN_AND_AGAIN = """
import itertools, sys
from mask_lib.base import files
print("writing", flush=True)
for number in itertools.count():
    files.write_json({"numbers": [number] * 20000}, sys.argv[1])
"""
TOO_LITTLE_ROOM = """
import resource, signal, sys
import numpy as np, pandas as pd
from mask_lib.base import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write past the limit is an OSError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    files.write_csv(pd.DataFrame({"x": np.random.default_rng(0).random(10000)}), sys.argv[1])
except OSError:
    sys.exit(7)
"""
PRINT = """
from mask_lib.base import files
print(files.digest({'b': [1, 2.5, None], 'a': {'ü': 'x'}}), files.project_path('data/sample'))
"""


def python(code: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, from the checkout."""
    command, there = [sys.executable, "-c", code, *map(str, arguments)], {**os.environ, **environment}
    return subprocess.run(command, cwd=files.PROJECT, env=there, capture_output=True, text=True)


@pytest.fixture
def old(tmp_path) -> Path:
    """An old file, which no half-written one may replace, nor a temporary one lie beside in the end."""
    path = tmp_path / "table.csv"
    path.write_text("the old file\n")
    return path


def is_untouched(old: Path) -> bool:
    return old.read_text() == "the old file\n" and list(old.parent.iterdir()) == [old]


def test_replacing_puts_the_new_file_in_place_and_leaves_nothing_else(old):
    with files.replacing(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "the old file\n"
    assert old.read_text() == "new"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file_and_no_temporary_one(old, error):
    with pytest.raises(error), files.replacing(old) as temporary:
        temporary.write_text("half")
        raise error
    assert is_untouched(old)


def test_a_kill_at_any_time_leaves_a_whole_file(tmp_path):
    path = tmp_path / "numbers.json"
    command = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, str(path)]
    writer = subprocess.Popen(command, cwd=files.PROJECT, stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"writing\n"
        seen, deadline = 0, time.monotonic() + 20
        while seen < 25 and time.monotonic() < deadline:
            if path.exists():
                assert len(set(json.loads(path.read_text())["numbers"])) == 1
                seen += 1
        assert seen == 25
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert len(files.read_json(path)["numbers"]) == 20000


def test_what_a_kill_leaves_behind_is_hidden_and_matches_no_pattern_that_the_program_reads(tmp_path):
    path = tmp_path / "one.test.csv"
    assert python(KILLED_WHILE_WRITING, path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.glob("*.test.csv")) == []  # nor is the file itself there


def test_a_full_disk_leaves_the_old_file(old):
    assert python(TOO_LITTLE_ROOM, old).returncode == 7
    assert is_untouched(old)


def test_two_writers_of_one_file_do_not_meet(old):
    with files.replacing(old) as first, files.replacing(old) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert old.read_text() == "first"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
def test_floats_come_back_from_a_table_bit_for_bit(tmp_path_factory, numbers):
    path = tmp_path_factory.getbasetemp() / "floats.csv"
    files.write_csv(pd.DataFrame({"x": numbers}), path)
    read = pd.read_csv(path, dtype={"x": "float64"})["x"].to_numpy()
    assert read.tobytes() == np.array(numbers, dtype=np.float64).tobytes()


def test_a_folder_is_replaced_whole_or_not_at_all_and_what_a_kill_left_is_cleared(tmp_path):
    (tmp_path / ".set.tmp" / "new" / "half").mkdir(parents=True)
    for name in ("old", "new"):
        with files.replacing_folder(tmp_path / "set") as fresh:
            assert not any(fresh.iterdir())
            (fresh / name).touch()
    with pytest.raises(KeyboardInterrupt), files.replacing_folder(tmp_path / "set") as fresh:
        (fresh / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "set", tmp_path / "set" / "new"]


def test_a_table_is_written_without_its_index_and_keeps_odd_names(tmp_path):
    table = pd.DataFrame({"path": ['a,"b"\nc.jpg', "é ü.png", " =1+1"]}, index=[7, 8, 9])
    found = pd.read_csv(files.write_csv(table, tmp_path / "x.csv"))
    pd.testing.assert_frame_equal(found, table.reset_index(drop=True), check_dtype=False)


def test_json_comes_back_as_it_was(tmp_path):
    value = {"name": "é → 1", "list": [1, 2.5, None, True], "inner": {"x": 1e-300}}
    path = files.write_json(value, tmp_path / "deep" / "down" / "x.json")
    assert files.read_json(path) == value
    assert path.read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}], ids=["nan", "inf", "set"])
def test_what_json_cannot_say_is_refused_and_leaves_the_old_file(old, value):
    with pytest.raises((ValueError, TypeError)):
        files.write_json({"x": value}, old)
    assert is_untouched(old)


def test_another_process_gives_the_same_digest_and_may_have_another_project(tmp_path):
    digest, path = python(PRINT, PYTHONHASHSEED="1", MASK_LIB_PROJECT=str(tmp_path)).stdout.split()
    assert digest == files.digest({"a": {"ü": "x"}, "b": [1, 2.5, None]})
    assert len(digest) == 16
    assert Path(path) == tmp_path.resolve() / "data" / "sample"


def test_digests_tell_data_apart(tmp_path):
    different = [{"a": [1, 2]}, {"a": [2, 1]}, {"a": "12"}, {"a": [1, 2], "b": 0}, ["a", 1, 2], {"a": [1.5, 2]}]
    assert len({files.digest(one) for one in different}) == len(different)
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180, of "abc"
    assert files.file_digest(tmp_path / "x") == known


def test_paths_count_from_the_project_whatever_the_working_folder_and_are_shown_short_inside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.project_path("data/sample") == files.PROJECT / "data" / "sample"
    assert files.project_path("a/../b/./c") == files.PROJECT / "b" / "c"
    assert files.project_path(tmp_path / "x") == tmp_path / "x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.project_path("~/photos") == tmp_path / "photos"
    assert files.shown_path(files.PROJECT / "outputs" / "demo") == os.path.join("outputs", "demo")
    assert files.shown_path(tmp_path / "x") == str(tmp_path / "x")


@pytest.mark.parametrize(("headless", "seconds"), [("1", 15.0), ("0", 1.0)])
def test_progress_is_rarer_when_nobody_watches(monkeypatch, capsys, headless, seconds):
    monkeypatch.setenv("MASK_LIB_HEADLESS", headless)
    line = files.progress(range(3), what="decode")
    assert list(line) == [0, 1, 2]
    assert (line.mininterval, line.maxinterval) == (seconds, seconds)
    assert "decode" in "".join(capsys.readouterr())
