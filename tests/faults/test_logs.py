"""Decision logs as sync tools, editors, full disks and other programs leave them."""

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from unittest import mock

import pytest
from amount import amount
from relabeling import PATHS, open_log, open_session, photo_table, replay, shown

from mask_lib.relabel import corrections
from mask_lib.relabel.decision_log import DecisionLog

COPIES = [
    "decisions.ann (1).jsonl",
    "decisions.ann.sync-conflict-20260101-120000-ABCDEFG.jsonl",
    "decisions.ann-2026-01-01.jsonl",  # a plain name, but the lines are by ann
    "decisions.ann.2026-01-01.jsonl",
    "decisions.a.b.jsonl",
    "Decisions.ann.JSONL",
    "decisions.ann.jsonl.bak",
    "ann's conflicted copy of decisions.jsonl",
]
NO_DECISIONS = {  # what a line holds, or what of a decision is otherwise
    "nested deep": b"[" * 100_000,
    "a decision nested deep": b'{"id": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a number of 5,000 digits": b'{"old": ' + b"9" * 5_000 + b"}",
    "a null byte": b'{"id": "\x00"}',
    "no UTF-8": b'{"id": "\xff\xfe"}',
    "a megabyte": b'{"id": "' + b"x" * 1_000_000 + b'"}',
    "no JSON": b"NaN, Infinity",
    "a year ahead of all": {"time": "9999-12-31T23:59:59.999999+00:00"},
    "a lone surrogate": {"path": "a/\ud800.jpg"},
    "a score that is a mapping": {"source_score": {}},
    "a digest that is a list": {"sha256": []},
    "a label that is no whole number": {"field": "label", "old": 0, "new": float("nan")},
}


def decision(path: str = PATHS[0], label: int = 1) -> dict:
    return {"path": path, "field": "label", "old": 0, "new": label}


@pytest.fixture
def diverged(tmp_path: Path) -> Path:
    """A log and a copy of it in which the same annotator went on elsewhere, later; the photos beside them."""
    photo_table(tmp_path)
    log = open_log(tmp_path)
    log.append([decision()])
    copy = tmp_path / "review" / COPIES[0]
    shutil.copy(log.path, copy)
    log.append([decision(PATHS[1], 2)])
    elsewhere = DecisionLog(copy, "ann")
    elsewhere.append([decision(PATHS[1], 5)])
    elsewhere.append([decision(PATHS[2], 7), decision(PATHS[3], 8)])
    return copy


@pytest.mark.parametrize("name", COPIES)
def test_every_file_that_looks_like_a_log_and_is_not_read_is_named_and_nothing_is_made_of_it(tmp_path, name):
    log = open_log(tmp_path)
    log.append([decision()])
    shutil.copy(log.path, log.path.with_name(name))
    before = {path.name: path.read_bytes() for path in log.path.parent.iterdir()}
    with pytest.warns(UserWarning, match="is not read") as warned:
        logs = corrections.read_logs(tmp_path)
    assert name in str(warned[0].message)
    assert list(logs) == ["ann"] and len(logs["ann"].decisions) == 1
    assert list(corrections.unread_logs(tmp_path)) == [name]
    assert {path.name: path.read_bytes() for path in log.path.parent.iterdir()} == before


def test_logs_of_several_annotators_and_what_was_moved_aside_are_no_copies(tmp_path):
    for annotator in ("ann", "ann-2"):
        open_log(tmp_path, annotator).append([decision()])
    (tmp_path / "review" / "decisions.ann.jsonl.torn").write_bytes(b"{")
    (tmp_path / "review" / "suspects.csv").write_text("path\n")
    assert corrections.unread_logs(tmp_path) == {} and set(corrections.read_logs(tmp_path)) == {"ann", "ann-2"}


def test_a_copy_is_taken_in_by_name_where_it_is_newer_and_once(diverged, tmp_path):
    photos = photo_table(tmp_path)
    made = corrections.take_in(tmp_path, [diverged.name], photos)
    assert [one["path"] for one in made] == PATHS[1:4]
    state = replay(open_log(tmp_path).decisions)
    assert [state[path]["label"] for path in PATHS[:4]] == [1, 5, 7, 8]
    assert corrections.take_in(tmp_path, [diverged.name], photos) == []


def test_what_the_log_decided_later_stays(diverged, tmp_path):
    open_log(tmp_path).append([decision(PATHS[2], 11)])
    corrections.take_in(tmp_path, [diverged.name], photo_table(tmp_path))
    assert replay(open_log(tmp_path).decisions)[PATHS[2]]["label"] == 11


def test_an_undo_in_the_copy_is_taken_in_as_well(diverged, tmp_path):
    elsewhere = DecisionLog(diverged, "ann")
    elsewhere.append(elsewhere.actions[0].reversal(), "undo")
    photos = photo_table(tmp_path)
    corrections.take_in(tmp_path, [diverged.name], photos)
    assert open_log(tmp_path).current.value(PATHS[0], "label") == 0


@pytest.mark.parametrize("name", ["decisions.ann.jsonl", "../decisions.ann (1).jsonl", "decisions.b (1).jsonl"])
def test_only_a_copy_that_is_there_can_be_taken_in(diverged, tmp_path, name):
    with pytest.raises(ValueError, match=r"take_in: .*decisions\.ann \(1\)\.jsonl"):
        corrections.take_in(tmp_path, [name], photo_table(tmp_path))


def test_a_log_joined_to_its_own_copy_counts_each_decision_once(tmp_path):
    log = open_log(tmp_path)
    log.append([decision()])
    log.append([decision(PATHS[1], 2), decision(PATHS[2], 3)])
    log.append(log.actions[-1].reversal(), "undo")
    log.path.write_bytes(2 * log.path.read_bytes())
    again = open_log(tmp_path)
    assert again.decisions == log.decisions and again.problems == []
    assert replay(again.decisions) == {PATHS[0]: {"label": 1}}


@pytest.mark.parametrize("line", NO_DECISIONS.values(), ids=NO_DECISIONS)
def test_a_line_that_is_no_decision_is_passed_over_and_listed_and_the_log_goes_on(tmp_path, line):
    log = open_log(tmp_path)
    log.append([decision()])
    if isinstance(line, dict):
        line = json.dumps(json.loads(log.path.read_bytes()) | line).encode()
    with log.path.open("ab") as handle:
        handle.write(line + b"\n")
    log = open_log(tmp_path)
    assert log.problems == ["decisions.ann.jsonl, line 2 was passed over: it is no decision"]
    log.append([decision(PATHS[1], 2)])
    again = open_log(tmp_path)
    assert [one["path"] for one in again.decisions] == PATHS[:2]
    assert again.decisions[0]["time"] < again.decisions[1]["time"] and again.decisions[1]["id"] == "ann:2"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_more_refuses_the_key_in_words_and_keeps_the_log(tmp_path, monkeypatch, code):
    session = open_session(tmp_path)
    session.start("suspects")
    session.press("Enter", shown(session), 1)
    before = session.log.path.read_bytes()

    monkeypatch.setattr(os, "write", mock.Mock(side_effect=OSError(code, os.strerror(code))))
    answer = session.press("Enter", shown(session), 2)
    monkeypatch.undo()
    assert not answer["accepted"] and os.strerror(code) in answer["message"]
    assert session.log.path.read_bytes() == before
    assert session.press("Enter", shown(session), 3)["accepted"]


def test_many_key_presses_leave_no_memory_threads_or_files_behind(tmp_path):
    session, presses = open_session(tmp_path, people=20), amount(1_200, 20_000)
    session.start("inspect", only_unseen=False)
    used = []
    for number in range(presses):
        # A flag is set and taken off, and the place moves on; now and then a decision is taken back.
        key = ("f", "f", "ArrowRight" if number % 70 else "u")[number % 3]
        assert session.press(key, shown(session), number)["sequence"] == number
        if number in (presses // 4, presses - 1):
            used.append((resident_bytes(), threading.active_count(), len(os.listdir("/proc/self/fd"))))
    (before, *left_before), (after, *left_after) = used
    assert after < 1.05 * before and left_after == left_before


def resident_bytes() -> int:
    """What the process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
