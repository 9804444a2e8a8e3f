"""A decision is on disk before it is acknowledged, and what a crash leaves behind is repaired."""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from relabeling import open_log
from tiny_project import environment

from mask_lib.base import files
from mask_lib.relabel.decision_log import PART_OF_ACTION, Decision, DecisionLog, LogMovedOn, log_path

KILLS = 1000


def mark(path: str = "anna/mask1.jpg", new: str | None = "wrong", **more) -> dict:
    return {"path": path, "field": "mark", "old": None, "new": new, **more}


def lines(log: DecisionLog) -> list[dict]:
    return [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]


def test_an_action_is_on_disk_with_every_key_shares_its_time_and_counts_itself(tmp_path):
    log = open_log(tmp_path)
    made = log.append([mark("a/1.jpg", reason="inspect", sha256="ab" * 32), mark("a/2.jpg")], kind="person")
    assert lines(log) == made
    assert [one.keys() for one in made] == [Decision.__annotations__.keys()] * 2
    assert len({one["time"] for one in made}) == 1
    assert [[one[key] for key in ("id", "annotator", "undoes", "reason")] for one in made] == [
        ["ann:0", "ann", None, "person:1/2 inspect"],
        ["ann:1", "ann", None, "person:2/2"],
    ]


def test_flushed_before_it_returns(tmp_path, monkeypatch):
    log, flushed = open_log(tmp_path), []
    monkeypatch.setattr(os, "fsync", lambda _handle: flushed.append(log.path.stat().st_size))
    log.append([mark()])
    assert flushed == [log.path.stat().st_size]


def test_times_only_grow_even_if_the_clock_does_not(tmp_path):
    log = open_log(tmp_path)
    future = "2999-01-01T00:00:00.000000+00:00"
    log.path.write_text(json.dumps(log.append([mark()])[0] | {"time": future}) + "\n", encoding="utf-8")
    log = open_log(tmp_path)
    times = [future, *(log.append([mark()])[0]["time"] for _ in range(3))]
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    "wrong",
    [
        {"field": "label", "new": 18},
        {"field": "label", "new": True},
        {"field": "mark", "new": "maybe"},
        {"field": "colour", "new": None},
        {"path": "../../etc/passwd"},
        {"path": ""},
    ],
)
def test_a_decision_without_meaning_is_refused_and_nothing_is_written(tmp_path, wrong):
    log = open_log(tmp_path)
    with pytest.raises(ValueError, match="no decision about"):
        log.append([mark(), {**mark(), **wrong}])
    assert log.path.read_bytes() == b""


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "x" * 41])
def test_an_annotator_is_a_plain_word(tmp_path, name):
    with pytest.raises(ValueError, match="annotator"):
        log_path(tmp_path, name)


@pytest.mark.parametrize(
    ("written", "torn", "kept"),
    [
        pytest.param(4, b'{"id": "ann:4", "ti', 4, id="a line"),
        pytest.param(4, b"{", 4, id="a line's first byte"),
        pytest.param(4, b"\x00\x00\x00\x00", 4, id="zeros"),
        pytest.param(4, b"\xff\xfe", 4, id="no text"),
        pytest.param(3, b'{"id": "ann:3", "ti', 1, id="an action of three in its third line"),
        pytest.param(2, b'{"id": "ann:2", "ti', 1, id="an action of three in its second line"),
    ],
)
def test_what_was_not_written_to_its_end_is_moved_aside_and_reported(tmp_path, written, torn, kept):
    log = open_log(tmp_path)
    log.append([mark("before.jpg")])
    log.append([mark(f"a/{number}.jpg") for number in range(3)], kind="person")
    rows = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(rows[:written]) + torn)
    again = open_log(tmp_path)
    assert log.path.read_bytes() == b"".join(rows[:kept])
    assert again.decisions == log.decisions[:kept]
    assert len(again.problems) == 1 and ".torn" in again.problems[0]
    aside = log.path.with_name("decisions.ann.jsonl.torn").read_bytes()
    assert aside == b"".join(rows[kept:written]) + torn + b"\n"
    assert again.append([mark()])[0]["id"] == f"ann:{kept}"


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path):
    log = open_log(tmp_path)
    log.append([mark()])
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    again = open_log(tmp_path)
    assert again.decisions == log.decisions and again.problems == []
    again.append([mark(new="right")])
    assert len(lines(again)) == 2


def test_a_reason_that_looks_like_part_of_an_action_is_not_taken_for_a_torn_one(tmp_path):
    open_log(tmp_path).append([mark(reason="page:1/9 of my notes")])
    assert len(open_log(tmp_path).decisions) == 1


def test_two_logs_on_one_file_see_each_other_and_none_builds_on_an_older_one(tmp_path):
    here, there = open_log(tmp_path), open_log(tmp_path)
    here.append([mark()])
    there.refresh()
    assert there.decisions == here.decisions
    there.append([mark(new="right")])
    with pytest.raises(LogMovedOn, match="at the same moment"):
        here.append([mark()], if_refreshed=True)
    assert here.append([mark(new=None)])[0]["id"] == "ann:2"
    assert here.decisions == lines(here)


def test_a_log_that_was_replaced_is_read_anew(tmp_path):
    log = open_log(tmp_path)
    log.append([mark(), mark("b/mask1.jpg")])
    kept = log.path.read_bytes()
    log.append([mark(new="right")])
    (tmp_path / "new").write_bytes(kept)  # while the old one is there: else it might get the same file number
    (tmp_path / "new").replace(log.path)
    assert log.refresh() == {mark()["path"], "b/mask1.jpg"}
    assert len(log.decisions) == 2 and "read anew" in log.problems[0]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    log = open_log(tmp_path)
    log.append([mark()])
    whole, write = log.path.read_bytes(), os.write

    def fill_up(handle, content):
        if len(content) < 50:
            raise OSError(28, "No space left on device")
        return write(handle, content[:50])

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OSError, match="No space"):
        log.append([mark(new="right")])
    monkeypatch.undo()
    assert log.path.read_bytes() == whole
    assert log.append([mark(new="right")])[0]["id"] == "ann:1"


def test_threads_and_openings_write_no_line_into_another(tmp_path):
    logs = [open_log(tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda log: [log.append([mark("x" * 300)]) for _ in range(25)], logs + logs))
    assert [made["id"] for made in lines(logs[0])] == [f"ann:{number}" for number in range(100)]


def test_a_kill_after_each_of_many_key_presses_loses_no_acknowledged_decision(tmp_path):
    counts = Counter()
    command = [sys.executable, str(files.PROJECT / "tests" / "killing.py"), str(tmp_path), str(KILLS)]
    printed = subprocess.run(command, env=environment(tmp_path), check=True, stdout=subprocess.PIPE).stdout
    for found in json.loads(printed):
        log = DecisionLog(found["log"], "ann")
        acknowledged = [tuple(made) for made in found["acknowledged"]]
        on_disk = {(made["id"], made["time"]) for made in log.decisions}
        counts.update(kills=found["kills"], torn=found["torn"], lost=len(set(acknowledged) - on_disk))
        assert len({made["id"] for made in log.decisions}) == len(log.decisions) == len(lines(log)), "ids are unique"
        assert len(set(acknowledged)) == len(acknowledged) >= found["kills"]
        lines_of = Counter(made["time"] for made in log.decisions)
        parts = [(made["time"], PART_OF_ACTION.match(made["reason"])) for made in log.decisions]
        assert all(lines_of[time] == int(numbers[2]) for time, numbers in parts if numbers), "actions are whole"
        problems = found["problems"] + log.problems
        assert len(problems) == found["torn"] and all(".torn" in problem for problem in problems)
    assert counts["kills"] == KILLS and counts["lost"] == 0 and counts["torn"] > 0, dict(counts)
