"""The painted sample: its layout, its planted faults, and the truth that is told about them."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mask_lib import files, labels, sample
from mask_lib.labels import AgeGroup, Gender, Mask

SMALL = {"people": 24, "eval_people": 6, "width": 72, "height": 96}


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "sample"
    sample.paint(out, **SMALL, workers=1)
    return out


@pytest.fixture(scope="module")
def truth(painted) -> dict:
    return sample.read_truth(painted)


@pytest.fixture(scope="module")
def rows(painted) -> pd.DataFrame:
    return pd.read_csv(painted / "train" / "train.csv", dtype={"id": str})


def digests(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def readable(path: Path) -> bool:
    try:
        with Image.open(path) as photo:
            photo.load()
    except OSError:
        return False
    return True


def small_gray(path: Path) -> np.ndarray:
    with Image.open(path) as photo:
        return np.asarray(photo.convert("L").resize((24, 32), Image.Resampling.BOX)).astype(int)


def test_the_layout_is_the_official_one(painted, truth, rows):
    assert list(rows.columns) == ["id", "gender", "race", "age", "path"]
    assert rows["id"].str.fullmatch(r"\d{6}").all()
    info = pd.read_csv(painted / "eval" / "info.csv")
    assert list(info.columns) == ["ImageID", "ans"]
    assert (info["ans"] == 0).all()
    assert info["ImageID"].str.fullmatch(r"[0-9a-f]{40}\.jpg").all()
    assert set(info["ImageID"]) == set(truth["eval"]) == {p.name for p in (painted / "eval" / "images").iterdir()}
    assert list(info["ImageID"]) != sorted(info["ImageID"])


def test_an_honest_folder_is_named_after_its_row_and_holds_the_seven_photos(painted, truth, rows):
    faulty = Counter(re.findall(r"\d{6}_\w+?_\w+?_\d+", str(truth["faults"])))
    honest = [row for row in rows.itertuples() if row.path not in faulty]
    assert honest
    for row in honest:
        assert row.path == f"{row.id}_{row.gender}_{row.race}_{row.age}"
        photos = [path for path in (painted / "train" / "images" / row.path).iterdir() if path.name[0] != "."]
        assert {path.stem for path in photos if path.suffix in (".jpg", ".jpeg", ".png")} == set(sample.STEMS)


def test_every_photo_the_truth_names_is_a_readable_photo_of_the_size_asked_for(painted, truth):
    copies = {f"{twin['folder']}/{name}" for twin in truth["faults"]["duplicate_people"] for name in twin["changes"]}
    for path in truth["photos"]:
        with Image.open(painted / "train" / "images" / path) as photo:
            photo.load()
            assert photo.format == ("PNG" if path.endswith(".png") else "JPEG")
            assert path in copies or photo.size == (72, 96)


def test_labels_given_and_true_differ_exactly_where_a_fault_says_so(truth):
    faults = truth["faults"]
    expected = set(faults["wrong_gender"] + faults["wrong_age"] + faults["swapped"] + faults["bad_age"])
    wrong = {path for path, fact in truth["photos"].items() if fact["given"] != fact["label"]}
    assert {path.split("/")[0] for path in wrong} == expected
    for path in wrong:
        if path.split("/")[0] in faults["swapped"]:
            assert Path(path).stem in ("incorrect_mask", "normal")


def test_the_truth_of_a_photo_agrees_with_itself(truth):
    for fact in [*truth["photos"].values(), *truth["eval"].values()]:
        mask = labels.from_key(Mask, fact["mask"])
        gender = labels.from_key(Gender, fact["gender"])
        assert fact["label"] == labels.encode(mask, gender, labels.age_group(fact["age"]))


def test_wrong_rows_are_wrong_in_the_attribute_they_claim(truth, rows):
    photo_of = {path.split("/")[0]: fact for path, fact in truth["photos"].items()}
    by_path = rows.set_index("path")
    for folder in truth["faults"]["wrong_gender"]:
        assert by_path.loc[folder, "gender"] != photo_of[folder]["gender"]
        assert by_path.loc[folder, "age"] == photo_of[folder]["age"]
    for folder in truth["faults"]["wrong_age"]:
        assert labels.age_group(by_path.loc[folder, "age"]) != labels.age_group(photo_of[folder]["age"])
        assert by_path.loc[folder, "gender"] == photo_of[folder]["gender"]
    (bad,) = truth["faults"]["bad_age"]
    assert by_path.loc[bad, "age"] == 212
    (contradiction,) = truth["faults"]["contradiction"]
    assert by_path.loc[contradiction, "age"] == photo_of[contradiction]["age"] != int(contradiction.split("_")[-1])


def test_one_id_stands_for_two_people_with_different_folders(truth, rows):
    doubled = rows[rows["id"].duplicated(keep=False)]
    assert sorted(doubled["path"]) == sorted(truth["faults"]["double_id"])
    assert doubled["path"].nunique() == 2
    assert rows["path"].is_unique


def test_planted_copies_are_other_bytes_of_the_same_picture(painted, truth):
    images, checked = painted / "train" / "images", set()
    pairs = [
        (painted / "eval" / "images" / leak["ImageID"], leak["of"], leak["change"]) for leak in truth["faults"]["leaks"]
    ]
    for twin in truth["faults"]["duplicate_people"]:
        assert len(twin["changes"]) == len(sample.STEMS)
        for name, change in twin["changes"].items():
            pairs.append((images / twin["folder"] / name, f"{twin['of']}/{name}", change))
            facts = truth["photos"]
            assert facts[f"{twin['folder']}/{name}"] == facts[f"{twin['of']}/{name}"]
    for copy, source, change in pairs:
        assert copy.read_bytes() != (images / source).read_bytes()
        assert np.abs(small_gray(copy) - small_gray(images / source)).mean() < 8
        with Image.open(copy) as photo:
            assert (photo.size == (72, 96)) == (change["kind"] == "reencoded")
        checked.add(change["kind"])
    assert len(checked) > 1


def test_a_leaked_photo_carries_the_truth_of_its_source(truth):
    for leak in truth["faults"]["leaks"]:
        source = dict(truth["photos"][leak["of"]])
        source.pop("given")
        assert truth["eval"][leak["ImageID"]] == source


def test_unreadable_photos_missing_ones_and_junk_are_as_listed(painted, truth, rows):
    images, faults = painted / "train" / "images", truth["faults"]
    assert {spoiled["kind"] for spoiled in faults["unreadable"]} == {"truncated", "empty", "text"}
    for spoiled in faults["unreadable"]:
        assert not readable(images / spoiled["path"])
        assert spoiled["path"] not in truth["photos"]
    (missing,) = faults["missing_photo"]
    assert not list(images.glob(missing + ".*"))
    assert len(list((images / missing).parent.glob("[!.]*"))) == len(sample.STEMS) - 1
    (ghost,) = faults["missing_folder"]
    assert ghost in set(rows["path"])
    assert not (images / ghost).exists()
    (strange,) = faults["unknown_name"]
    assert readable(images / strange)
    assert strange not in truth["photos"]
    assert ".DS_Store" in faults["junk"]
    assert len(faults["junk"]) == 5
    assert all((images / path).is_file() and not readable(images / path) for path in faults["junk"])


def test_every_file_is_either_a_photo_of_the_truth_or_a_listed_fault(painted, truth):
    faults = truth["faults"]
    listed = {*truth["photos"], *faults["junk"], *faults["unknown_name"], *(s["path"] for s in faults["unreadable"])}
    images = painted / "train" / "images"
    assert {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()} == listed


@pytest.mark.parametrize("people", [12, 24, 120])
def test_faults_never_fall_on_one_person_twice_and_number_as_promised(people):
    crowd = sample.invent_people(sample.stream(0, 0, 0), people, 0)
    dealt = Counter(person.fault for person in sample.plan_faults(sample.stream(0, 0, 2), crowd))
    assert dealt["double_id"] == 2
    expected = {fault: max(1, round(number * people / 120)) for fault, number in sample.FAULTS.items()}
    assert {fault: dealt[fault] for fault in sample.FAULTS} == expected
    if people == 120:
        assert [dealt[f] for f in ("wrong_gender", "wrong_age", "swapped", "duplicate_people", "leaks")] == [
            4,
            4,
            4,
            3,
            12,
        ]


@pytest.mark.parametrize("people", [6, 7, 24, 40, 120, 2700])
def test_groups_are_allotted_by_quota_with_a_tenth_at_least_in_each(people):
    sizes = sample.group_sizes(people)
    assert sum(sizes.values()) == people
    assert min(sizes.values()) >= max(1, people // 10)
    assert sizes[Gender.FEMALE, AgeGroup.FROM_30_TO_59] == max(sizes.values())
    crowd = sample.invent_people(sample.stream(3), people, 0)
    assert Counter((person.gender, labels.age_group(person.age)) for person in crowd) == sizes


def test_the_same_arguments_give_the_same_bytes_whatever_the_number_of_workers(painted, tmp_path):
    sample.paint(tmp_path / "again", **SMALL, workers=2)
    assert digests(tmp_path / "again") == digests(painted)


def test_another_seed_gives_other_people(tmp_path):
    settings = {"people": 6, "eval_people": 6, "width": 64, "height": 64, "faults": False, "workers": 1}
    first, second = (sample.paint(tmp_path / str(seed), **settings, seed=seed) for seed in (0, 1))
    assert set(first["eval"]).isdisjoint(second["eval"])
    assert first["faults"] == second["faults"] == {}
    assert all(fact["label"] == fact["given"] for fact in first["photos"].values())


def test_painting_the_same_again_changes_nothing_and_says_so(painted, capsys):
    before = {path: path.stat().st_mtime_ns for path in painted.rglob("*")}
    sample.paint(painted, **SMALL)
    assert "already painted" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in painted.rglob("*")} == before


def test_a_sample_with_other_arguments_is_replaced_whole(tmp_path):
    out = tmp_path / "sample"
    settings = {"people": 6, "eval_people": 6, "width": 64, "height": 64, "faults": False, "workers": 1}
    sample.paint(out, **settings)
    old = digests(out)
    sample.paint(out, **settings | {"seed": 5})
    assert not {name for name in old if "images" in name} & set(digests(out))
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize("names", [["holiday.jpg"], ["truth.json", "train", "holiday.jpg"], ["train"]])
def test_a_folder_that_holds_anything_else_is_refused_and_left_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("{}")
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match="was not painted by this program"):
        sample.paint(tmp_path, **SMALL, workers=1)
    assert digests(tmp_path) == before


def test_a_painting_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(sample, "plant", fail)
    with pytest.raises(OSError, match="disk full"):
        sample.paint(tmp_path / "sample", people=12, eval_people=6, width=64, height=64, workers=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"people": 11}, "people=11"), ({"eval_people": 5}, "eval_people=5"), ({"width": 8}, "width=8")],
)
def test_impossible_arguments_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        sample.paint(tmp_path / "sample", **SMALL | changes)
    assert not (tmp_path / "sample").exists()


def submission_of(truth: dict, change=lambda label: label) -> pd.DataFrame:
    names = sorted(truth["eval"], reverse=True)
    return pd.DataFrame({"ImageID": names, "ans": [change(truth["eval"][name]["label"]) for name in names]})


def test_the_truth_itself_scores_one_and_a_wrong_gender_costs_only_gender(painted, truth, tmp_path):
    right = files.write_csv(submission_of(truth), tmp_path / "right.csv")
    assert sample.score_submission(painted, right) == dict.fromkeys(
        ("macro_f1", "accuracy", "mask", "gender", "age"), 1.0
    )

    def other_gender(label: int) -> int:
        mask, gender, age = labels.decode(label)
        return labels.encode(mask, 1 - gender, age)

    scores = sample.score_submission(
        painted, files.write_csv(submission_of(truth, other_gender), tmp_path / "wrong.csv")
    )
    assert scores == {"macro_f1": 0.0, "accuracy": 0.0, "mask": 1.0, "gender": 0.0, "age": 1.0}


def test_a_submission_that_lacks_photos_or_doubles_them_is_refused(painted, truth, tmp_path):
    answers = submission_of(truth)
    for table in (answers[1:], pd.concat((answers[1:], answers[1:2])), answers.rename(columns={"ans": "label"})):
        with pytest.raises(ValueError, match=r"odd\.csv"):
            sample.score_submission(painted, files.write_csv(table, tmp_path / "odd.csv"))


def test_the_command_line_paints_scores_and_draws_a_sheet(tmp_path, capsys):
    out = tmp_path / "sample"
    small = ["--people=6", "--eval-people=6", "--width=64", "--height=64", "--no-faults", "--workers=1"]
    assert sample.main([str(out), *small]) == 0
    truth = sample.read_truth(out)
    files.write_csv(submission_of(truth), tmp_path / "submission.csv")
    capsys.readouterr()
    assert sample.main(["score", str(out), str(tmp_path / "submission.csv")]) == 0
    assert "macro_f1   1.0000" in capsys.readouterr().out
    assert sample.main(["sheet", str(out), str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 160, 6 * 160)
    assert sample.main(["score", str(tmp_path), str(tmp_path / "submission.csv")]) == 1
    assert "truth.json is not there" in capsys.readouterr().err
