"""A decision is on disk before it is acknowledged, and what a crash leaves behind is repaired."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from tiny_project import environment

from mask_lib.base import files
from mask_lib.relabel.decision_log import DECISION_KEYS, PART_OF_ACTION, DecisionLog, LogMovedOn, log_path

KILLS = 1000


def mark(path: str = "anna/mask1.jpg", new: str | None = "wrong", **more) -> dict:
    return {"path": path, "field": "mark", "old": None, "new": new, **more}


def opened(folder, annotator: str = "ann") -> DecisionLog:
    return DecisionLog(folder / f"decisions.{annotator}.jsonl", annotator)


def lines(log: DecisionLog) -> list[dict]:
    return [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]


def test_what_is_appended_is_on_disk_with_every_key(tmp_path):
    log = opened(tmp_path)
    (made,) = log.append([mark(reason="inspect", sha256="ab" * 32)])
    assert lines(log) == [made]
    assert tuple(made) == DECISION_KEYS
    assert (made["id"], made["annotator"], made["undoes"]) == ("ann:0", "ann", None)


def test_flushed_before_it_returns(tmp_path, monkeypatch):
    log, flushed = opened(tmp_path), []
    monkeypatch.setattr(os, "fsync", lambda _handle: flushed.append(log.path.stat().st_size))
    log.append([mark()])
    assert flushed == [log.path.stat().st_size]


def test_times_only_grow_even_if_the_clock_does_not(tmp_path):
    log = opened(tmp_path)
    future = "2999-01-01T00:00:00.000000+00:00"
    log.path.write_text(json.dumps(log.append([mark()])[0] | {"time": future}) + "\n", encoding="utf-8")
    log = opened(tmp_path)
    times = [future, *(log.append([mark()])[0]["time"] for _ in range(3))]
    assert times == sorted(set(times))


def test_an_action_shares_its_time_and_counts_itself(tmp_path):
    made = opened(tmp_path).append([mark("a/1.jpg"), mark("a/2.jpg")], kind="person")
    assert len({one["time"] for one in made}) == 1
    assert [one["reason"] for one in made] == ["person:1/2", "person:2/2"]


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
    log = opened(tmp_path)
    with pytest.raises(ValueError, match="no decision about"):
        log.append([mark(), {**mark(), **wrong}])
    assert log.path.read_bytes() == b""


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "x" * 41])
def test_an_annotator_is_a_plain_word(tmp_path, name):
    with pytest.raises(ValueError, match="annotator"):
        log_path(tmp_path, name)


@pytest.mark.parametrize("torn", [b'{"id": "ann:2", "ti', b"{", b"\x00\x00\x00\x00", b"\xff\xfe"])
def test_a_torn_last_line_is_moved_aside_and_reported(tmp_path, torn):
    log = opened(tmp_path)
    log.append([mark()])
    log.append([mark(new="right")])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    again = opened(tmp_path)
    assert log.path.read_bytes() == whole
    assert again.decisions == log.decisions
    assert len(again.problems) == 1 and ".torn" in again.problems[0]
    assert (tmp_path / "decisions.ann.jsonl.torn").read_bytes() == torn + b"\n"
    assert again.append([mark()])[0]["id"] == "ann:2"


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path):
    log = opened(tmp_path)
    log.append([mark()])
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    again = opened(tmp_path)
    assert again.decisions == log.decisions
    assert again.problems == []
    again.append([mark(new="right")])
    assert len(lines(again)) == 2


@pytest.mark.parametrize("kept", [1, 2])
def test_half_an_action_is_none(tmp_path, kept):
    log = opened(tmp_path)
    log.append([mark("before.jpg")])
    log.append([mark(f"a/{number}.jpg") for number in range(3)], kind="person")
    written = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(written[: 1 + kept]) + written[1 + kept][:20])
    again = opened(tmp_path)
    assert [made["path"] for made in again.decisions] == ["before.jpg"]
    assert lines(again) == again.decisions


def test_a_reason_that_looks_like_part_of_an_action_is_not_taken_for_a_torn_one(tmp_path):
    opened(tmp_path).append([mark(reason="page:1/9 of my notes")])
    assert len(opened(tmp_path).decisions) == 1


def test_a_bad_line_in_the_middle_is_passed_over_and_reported(tmp_path):
    log = opened(tmp_path)
    first, second = log.append([mark()]), log.append([mark(new="right")])
    rows = log.path.read_text(encoding="utf-8").splitlines()
    log.path.write_text("\n".join([rows[0], "nonsense", '{"id": 3}', rows[1], ""]), encoding="utf-8")
    again = opened(tmp_path)
    assert again.decisions == first + second
    assert ["line 2" in again.problems[0], "line 3" in again.problems[1]] == [True, True]
    assert again.append([mark()])[0]["id"] == "ann:4"  # no id is given twice


def test_two_logs_on_one_file_see_each_other(tmp_path):
    here, there = opened(tmp_path), opened(tmp_path)
    here.append([mark()])
    there.refresh()
    assert there.decisions == here.decisions
    there.append([mark(new="right")])
    assert here.append([mark(new=None)])[0]["id"] == "ann:2"
    assert here.decisions == lines(here)


def test_a_write_that_builds_on_an_older_log_is_refused(tmp_path):
    here, there = opened(tmp_path), opened(tmp_path)
    there.append([mark()])
    with pytest.raises(LogMovedOn, match="at the same moment"):
        here.append([mark(new="right")], if_refreshed=True)
    assert len(lines(here)) == 1


def test_a_log_that_was_replaced_is_read_anew(tmp_path):
    log = opened(tmp_path)
    log.append([mark(), mark("b/mask1.jpg")])
    kept = log.path.read_bytes()
    log.append([mark(new="right")])
    files.write_json({}, tmp_path / "other")  # takes a file number, so that the next file has another
    (tmp_path / "new").write_bytes(kept)
    (tmp_path / "new").replace(log.path)
    assert log.refresh() == {mark()["path"], "b/mask1.jpg"}
    assert len(log.decisions) == 2 and "read anew" in log.problems[0]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    log = opened(tmp_path)
    log.append([mark()])
    whole, write = log.path.read_bytes(), os.write

    def fill_up(handle, content):
        if len(content) < 50:
            raise OSError(28, "No space left on device")
        return write(handle, content[:50])

    monkeypatch.setattr(os, "write", lambda handle, content: fill_up(handle, content[:60]))
    with pytest.raises(OSError, match="No space"):
        log.append([mark(new="right")])
    monkeypatch.undo()
    assert log.path.read_bytes() == whole
    assert log.append([mark(new="right")])[0]["id"] == "ann:1"


def test_threads_and_openings_write_no_line_into_another(tmp_path):
    logs = [opened(tmp_path) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda log=log: [log.append([mark("x" * 300)]) for _ in range(25)])
        for log in logs + logs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made["id"] for made in lines(logs[0])] == [f"ann:{number}" for number in range(100)]


def killed(folder, kills: int) -> list[dict]:
    """What annotators were told who were killed one after another: see `killing.py`."""
    command = [sys.executable, str(files.PROJECT / "tests" / "killing.py"), str(folder), str(kills)]
    return json.loads(subprocess.run(command, env=environment(folder), check=True, stdout=subprocess.PIPE).stdout)


def test_a_kill_after_each_of_a_thousand_key_presses_loses_no_acknowledged_decision(tmp_path, record_property):
    counts = Counter()
    for found in killed(tmp_path, KILLS):
        log = DecisionLog(found["log"], "ann")
        acknowledged = [tuple(made) for made in found["acknowledged"]]
        on_disk = {(made["id"], made["time"]) for made in log.decisions}
        counts.update(kills=found["kills"], acknowledged=len(acknowledged), torn=found["torn"])
        counts.update(lost=len(set(acknowledged) - on_disk))
        assert len({made["id"] for made in log.decisions}) == len(log.decisions) == len(lines(log)), "ids are unique"
        assert len(set(acknowledged)) == len(acknowledged) >= found["kills"]
        lines_of = Counter(made["time"] for made in log.decisions)
        parts = [(made["time"], PART_OF_ACTION.match(made["reason"])) for made in log.decisions]
        assert all(lines_of[time] == int(numbers[2]) for time, numbers in parts if numbers), "actions are whole"
        problems = found["problems"] + log.problems
        assert len(problems) == found["torn"] and all(".torn" in problem for problem in problems)
    for name, count in counts.items():
        record_property(name, count)
    print(dict(counts))
    assert counts["kills"] == KILLS and counts["lost"] == 0 and counts["torn"] > 0, dict(counts)
