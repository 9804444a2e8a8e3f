"""The planted faults of a painted set: each is there, is as it is listed, and is the only one of its kind."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mask_lib.sample import paint
from mask_lib.sample.crowd import STEMS, age_group, invent_people, stream
from mask_lib.sample.faults import FAULTS, SINGLE_FAULTS, change_photo, plan_faults

SMALL = {"people": 16, "eval_people": 6, "width": 72, "height": 96}


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "sample"
    paint.paint(out, **SMALL, workers=1)
    return out


@pytest.fixture(scope="module")
def truth(painted) -> dict:
    return paint.read_truth(painted)


@pytest.fixture(scope="module")
def rows(painted) -> pd.DataFrame:
    return pd.read_csv(painted / "train" / "train.csv", dtype={"id": str})


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


def test_an_honest_folder_is_named_after_its_row_and_holds_the_seven_photos(painted, truth, rows):
    faulty = Counter(re.findall(r"\d{6}_\w+?_\w+?_\d+", str(truth["faults"])))
    honest = [row for row in rows.itertuples() if row.path not in faulty]
    assert honest
    for row in honest:
        assert row.path == f"{row.id}_{row.gender}_{row.race}_{row.age}"
        photos = [path for path in (painted / "train" / "images" / row.path).iterdir() if path.name[0] != "."]
        assert {path.stem for path in photos if path.suffix in (".jpg", ".jpeg", ".png")} == set(STEMS)


def test_labels_given_and_true_differ_exactly_where_a_fault_says_so(truth):
    faults = truth["faults"]
    expected = set(faults["wrong_gender"] + faults["wrong_age"] + faults["swapped"] + faults["bad_age"])
    wrong = {path for path, fact in truth["photos"].items() if fact["given"] != fact["label"]}
    assert {path.split("/")[0] for path in wrong} == expected
    for path in wrong:
        if path.split("/")[0] in faults["swapped"]:
            assert Path(path).stem in ("incorrect_mask", "normal")


def test_wrong_rows_are_wrong_in_the_attribute_they_claim(truth, rows):
    photo_of = {path.split("/")[0]: fact for path, fact in truth["photos"].items()}
    by_path = rows.set_index("path")
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
        assert len(twin["changes"]) == len(STEMS)
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
    for leak in truth["faults"]["leaks"]:
        source = {key: value for key, value in truth["photos"][leak["of"]].items() if key != "given"}
        assert truth["eval"][leak["ImageID"]] == source


def test_unreadable_photos_missing_ones_and_junk_are_as_listed(painted, truth, rows):
    images, faults = painted / "train" / "images", truth["faults"]
    assert {spoiled["kind"] for spoiled in faults["unreadable"]} == {"truncated", "empty", "text"}
    for spoiled in faults["unreadable"]:
        assert not readable(images / spoiled["path"])
        assert spoiled["path"] not in truth["photos"]
    (missing,) = faults["missing_photo"]
    assert not list(images.glob(missing + ".*"))
    assert len(list((images / missing).parent.glob("[!.]*"))) == len(STEMS) - 1
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
    crowd = invent_people(stream(0, 0, 0), people, 0)
    dealt = Counter(person.fault for person in plan_faults(stream(0, 0, 2), crowd))
    assert dealt["double_id"] == 2
    expected = {fault: max(1, round(number * people / 120)) for fault, number in FAULTS.items()}
    assert {fault: dealt[fault] for fault in FAULTS} == expected
    assert all(dealt[fault] == SINGLE_FAULTS.count(fault) for fault in SINGLE_FAULTS)
    if people == 120:
        assert (dealt["wrong_gender"], dealt["wrong_age"], dealt["swapped"]) == (4, 4, 4)
        assert (dealt["duplicate_people"], dealt["leaks"], dealt["unreadable"]) == (3, 12, 3)


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_copy_is_as_small_as_its_record_says(tmp_path, seed):
    source = np.random.default_rng(0).integers(0, 255, (200, 100, 3), dtype=np.uint8)
    Image.fromarray(source).save(tmp_path / "photo.png")
    change = change_photo(np.random.default_rng(seed), tmp_path / "photo.png", tmp_path / "copy.jpg")
    with Image.open(tmp_path / "copy.jpg") as copy:
        width, height = copy.size
    if change["kind"] == "resized":
        assert (width, height) == (round(100 * change["scale"]), round(200 * change["scale"]))
        assert 0.92 <= change["scale"] <= 0.97
    elif change["kind"] == "cropped":
        assert (100 - width, 200 - height) == (2, 2 * max(1, round(200 * change["edge"])))
    else:
        assert (width, height) == (100, 200)
