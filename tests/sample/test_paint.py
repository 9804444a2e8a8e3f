"""The painted sample: layout, planted faults, when it is painted anew, what it refuses, how answers are scored.

That each fault of files and folders lies there as it is listed, and no other, `test_chain_real.py` finds.
"""

import hashlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from mask_lib.base import files, labels
from mask_lib.sample import paint, people, portrait
from mask_lib.sample.crowd import STEMS, age_group, invent_people, stream
from mask_lib.sample.faults import FAULTS, SINGLE_FAULTS, change_photo, plan_faults

SMALL = {"people": 16, "eval_people": 6, "width": 72, "height": 96}
PLAIN = {"people": 6, "eval_people": 6, "width": 64, "height": 64, "faults": False, "workers": 1}


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "sample"
    paint.paint(out, **SMALL, workers=1)
    return out


@pytest.fixture(scope="module")
def truth(painted) -> dict:
    return paint.read_truth(painted)


@pytest.fixture
def quick(monkeypatch) -> None:
    """Portraits of one colour, for tests that look at files and not at faces."""

    def one_colour(face, shot, *size):
        return Image.new("RGB", size, tuple(np.array(face.wall).astype(int)))

    monkeypatch.setattr(portrait, "portrait", one_colour)


def digests(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_layout_is_the_official_one(painted, truth):
    rows = pd.read_csv(painted / "train" / "train.csv", dtype={"id": str})
    assert list(rows.columns) == ["id", "gender", "race", "age", "path"]
    assert rows["id"].str.fullmatch(r"\d{6}").all()
    assert list(rows["id"]) == sorted(rows["id"])
    info = pd.read_csv(painted / "eval" / "info.csv")
    assert list(info.columns) == ["ImageID", "ans"]
    assert (info["ans"] == 0).all()
    assert info["ImageID"].str.fullmatch(r"[0-9a-f]{40}\.jpg").all()
    assert len(info) == 7 * SMALL["eval_people"] + len(truth["faults"]["leaks"])
    assert set(info["ImageID"]) == set(truth["eval"]) == {p.name for p in (painted / "eval" / "images").iterdir()}
    assert list(info["ImageID"]) != sorted(info["ImageID"])
    with Image.open(painted / "train" / "images" / next(iter(truth["photos"]))) as photo:
        assert photo.size == (SMALL["width"], SMALL["height"])


def test_the_same_arguments_give_the_same_bytes_whatever_the_number_of_workers(painted, tmp_path):
    paint.paint(tmp_path / "again", **SMALL, workers=2)
    assert digests(tmp_path / "again") == digests(painted)


def test_painting_the_same_again_changes_nothing_and_says_so(painted, capsys):
    before = {path: path.stat().st_mtime_ns for path in painted.rglob("*")}
    paint.paint(painted, **SMALL)
    assert "already painted" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in painted.rglob("*")} == before


@pytest.mark.usefixtures("quick")
def test_another_seed_gives_other_people_and_they_replace_the_old_sample_whole(tmp_path):
    out = tmp_path / "sample"
    first, old = paint.paint(out, **PLAIN), digests(out)
    second = paint.paint(out, **PLAIN, seed=5)
    assert set(first["eval"]).isdisjoint(second["eval"])
    assert first["faults"] == second["faults"] == {}
    assert all(fact["label"] == fact["given"] for fact in first["photos"].values())
    assert not {name for name in old if "images" in name} & set(digests(out))
    assert {path.name for path in tmp_path.iterdir()} == {"sample", ".sample.lock"}


def test_new_masks_are_worn_by_evaluation_people_alone(tmp_path):
    plain, new = (paint.paint(tmp_path / str(is_new), **PLAIN, new_masks=is_new) for is_new in (False, True))
    assert new["arguments"] == plain["arguments"] | {"new_masks": True}
    assert new["photos"] == plain["photos"] and new["eval"] == plain["eval"]
    before, after = (digests(tmp_path / str(is_new)) for is_new in (False, True))
    changed = {name.removeprefix("eval/images/") for name in before if before[name] != after[name]} - {"truth.json"}
    assert changed == {name for name, answer in plain["eval"].items() if answer["mask"] != "not_worn"}


def test_new_kinds_of_masks_are_no_others():
    random = np.random.default_rng(0)
    old, new = (
        {people.invent_shot(random, people.Mask.WORN, is_new).kind for _ in range(60)} for is_new in (False, True)
    )
    assert new == set(people.NEW_KINDS) and len(old) == 4 and not old & new


@pytest.mark.usefixtures("quick")
def test_who_waited_for_another_painting_takes_what_it_painted(tmp_path, monkeypatch):
    FileLock = files.FileLock

    class LockHeldByAnother(FileLock):
        def acquire(self, **given):
            monkeypatch.setattr(files, "FileLock", FileLock)
            paint.paint(tmp_path / "sample", **PLAIN)
            monkeypatch.setattr(paint, "build", None)
            return super().acquire(**given)

    monkeypatch.setattr(files, "FileLock", LockHeldByAnother)
    assert paint.paint(tmp_path / "sample", **PLAIN) == paint.read_truth(tmp_path / "sample")


@pytest.mark.parametrize("names", [["holiday.jpg"], ["truth.json", "train", "holiday.jpg"], ["train"], ["truth.json"]])
def test_a_folder_that_holds_anything_else_is_refused_and_left_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match="was not painted by this program"):
        paint.paint(tmp_path, **SMALL, workers=1)
    assert digests(tmp_path) == before


@pytest.mark.usefixtures("quick")
def test_a_painting_that_fails_leaves_nothing_but_its_lock(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(paint, "plant", fail)
    with pytest.raises(OSError, match="disk full"):
        paint.paint(tmp_path / "sample", **SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [".sample.lock"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"people": 11}, "people=11"), ({"eval_people": 5}, "eval_people=5"), ({"width": 8}, "width=8")],
)
def test_impossible_arguments_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        paint.paint(tmp_path / "sample", **SMALL | changes)
    assert not any(tmp_path.iterdir())


def submission_of(truth: dict, change=lambda label: label) -> pd.DataFrame:
    names = sorted(truth["eval"], reverse=True)
    return pd.DataFrame({"ImageID": names, "ans": [change(truth["eval"][name]["label"]) for name in names]})


def test_the_truth_itself_scores_one_and_a_wrong_gender_costs_only_gender(painted, truth, tmp_path):
    def other_gender(label: int) -> int:
        return labels.with_values(label, {"gender": 1 - labels.values_of(label)["gender"]})

    right = files.write_csv(submission_of(truth), tmp_path / "right.csv")
    wrong = files.write_csv(submission_of(truth, other_gender), tmp_path / "wrong.csv")
    ones = dict.fromkeys(("macro_f1", "accuracy", "mask", "gender", "age"), 1.0)
    assert paint.score_submission(painted, right) == ones
    assert paint.score_submission(painted, wrong) == ones | {"macro_f1": 0.0, "accuracy": 0.0, "gender": 0.0}


def test_a_submission_that_lacks_photos_or_doubles_them_is_refused(painted, truth, tmp_path):
    answers = submission_of(truth)
    for table in (answers[1:], pd.concat((answers[1:], answers[1:2])), answers.rename(columns={"ans": "label"})):
        with pytest.raises(ValueError, match=r"odd\.csv"):
            paint.score_submission(painted, files.write_csv(table, tmp_path / "odd.csv"))


@pytest.mark.usefixtures("quick")
def test_the_command_line_paints_and_scores_below_the_project(tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    small = ["--people=6", "--eval-people=6", "--width=64", "--height=64", "--no-faults", "--workers=1"]
    assert paint.main(["data/sample", *small]) == 0
    assert "data/sample: 42 photos to learn from,\n42 to answer;" in capsys.readouterr().out
    truth = paint.read_truth(tmp_path / "data" / "sample")
    files.write_csv(submission_of(truth), tmp_path / "submission.csv")
    assert paint.main(["score", "data/sample", "submission.csv"]) == 0
    assert "macro_f1   1.0000" in capsys.readouterr().out
    assert paint.main(["score", "elsewhere", "submission.csv"]) == 1
    assert "truth.json is not there" in capsys.readouterr().err


# It takes minutes: the parent is killed long before it is done.
PAINT_LONG = """
import sys
from pathlib import Path
from mask_lib.sample import crowd, paint
from mask_lib.sample.people import Mask

people = crowd.invent_people(crowd.stream(0), 2000, 0)
arguments = {'seed': 0, 'width': 64, 'height': 64}
truth = {'arguments': arguments, 'photos': {}, 'eval': {}}
jobs = crowd.plan_people(Path(sys.argv[1]), truth, people, [])
paint.paint_all(arguments, jobs, workers=2)
"""


def test_painting_processes_end_when_their_parent_is_killed(tmp_path):
    command = [sys.executable, "-c", PAINT_LONG, str(tmp_path)]
    parent = psutil.Popen(command, cwd=files.PROJECT, stdout=subprocess.DEVNULL)
    try:
        while not any(tmp_path.rglob("*.*")):
            assert parent.poll() is None, "the painting ended before it began"
            time.sleep(0.05)
        children = parent.children(recursive=True)
    finally:
        parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for process in alive:
        process.kill()
    assert len(children) >= 2
    assert not alive


# Faults


def test_labels_given_and_true_differ_exactly_where_a_fault_says_so(truth):
    faults = truth["faults"]
    expected = set(faults["wrong_gender"] + faults["wrong_age"] + faults["swapped"] + faults["bad_age"])
    wrong = {path for path, fact in truth["photos"].items() if fact["given"] != fact["label"]}
    assert {path.split("/")[0] for path in wrong} == expected
    for path in wrong:
        if path.split("/")[0] in faults["swapped"]:
            assert Path(path).stem in ("incorrect_mask", "normal")


def test_wrong_rows_are_wrong_in_the_attribute_they_claim(painted, truth):
    photo_of = {path.split("/")[0]: fact for path, fact in truth["photos"].items()}
    by_path = pd.read_csv(painted / "train" / "train.csv").set_index("path")
    for folder in truth["faults"]["wrong_gender"]:
        assert by_path.loc[folder, "gender"] != photo_of[folder]["gender"]
        assert by_path.loc[folder, "age"] == photo_of[folder]["age"]
    for folder in truth["faults"]["wrong_age"]:
        assert age_group(by_path.loc[folder, "age"]) != age_group(photo_of[folder]["age"])
        assert by_path.loc[folder, "gender"] == photo_of[folder]["gender"]
    (bad,) = truth["faults"]["bad_age"]
    assert by_path.loc[bad, "age"] == 212
    (contradiction,) = truth["faults"]["contradiction"]
    assert by_path.loc[contradiction, "age"] == photo_of[contradiction]["age"] != int(contradiction.split("_")[-1])


def test_the_truth_of_a_planted_copy_is_that_of_its_original(truth):
    """That the pictures are the same, `test_duplicates.py` finds."""
    faults, facts = truth["faults"], truth["photos"]
    for twin in faults["duplicate_people"]:
        assert len(twin["changes"]) == len(STEMS)
        assert all(facts[f"{twin['folder']}/{name}"] == facts[f"{twin['of']}/{name}"] for name in twin["changes"])
    for leak in faults["leaks"]:
        assert truth["eval"][leak["ImageID"]] | {"given": facts[leak["of"]]["given"]} == facts[leak["of"]]


@pytest.mark.parametrize("people", [12, 24, 120])
def test_faults_never_fall_on_one_person_twice_and_number_as_promised(people):
    crowd = invent_people(stream(0, 0, 0), people, 0)
    dealt = Counter(person.fault for person in plan_faults(stream(0, 0, 2), crowd))
    assert dealt["double_id"] == 2
    expected = {fault: max(1, round(number * people / 120)) for fault, number in FAULTS.items()}
    assert {fault: dealt[fault] for fault in FAULTS} == expected
    assert all(dealt[fault] == SINGLE_FAULTS.count(fault) for fault in SINGLE_FAULTS)


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_copy_is_as_small_as_its_record_says(tmp_path, seed):
    source = np.random.default_rng(0).integers(0, 255, (200, 100, 3), dtype=np.uint8)
    Image.fromarray(source).save(tmp_path / "photo.png")
    change = change_photo(np.random.default_rng(seed), tmp_path / "photo.png", tmp_path / "copy.jpg")
    scale, edge = change.get("scale", 1.0), change.get("edge", 0.0)
    off = [2 * max(1, round(side * edge)) if edge else 0 for side in (100, 200)]
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert copy.size == (round(100 * scale) - off[0], round(200 * scale) - off[1])
    assert scale == 1.0 or 0.92 <= scale <= 0.97
    assert edge <= 0.01
