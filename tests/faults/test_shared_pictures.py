"""A picture on people who cannot be one person names itself and unites nobody; people entered twice are still one."""

from pathlib import Path

import kernelless
import numpy as np
import pandas as pd
import pytest
from data_folders import SEVEN, noise, sound_folder
from photo_files import save

from mask_lib.base import files
from mask_lib.data import duplicates, hashes, layout, photos, splits
from mask_lib.data.layout import Problem
from mask_lib.plots import data_plots

PLACEHOLDER = noise(5000)
CROWD = [f"{number:06d}_{('male', 'female')[number % 2]}_Asian_{20 + 3 * number}" for number in range(12)]


def copies(data: Path, output: Path) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    table, _ = photos.scan_photos(data)
    opened = hashes.open_hashes(output / "hashes", data, table)
    return table, duplicates.write(table, opened, duplicates.find(table, data, opened), output)


def parted(data: Path, output: Path) -> tuple[int, pd.DataFrame]:
    """How many people there are once copies are united, and which pictures unite nobody."""
    table, found = copies(data, output)
    told, problems = duplicates.without_shared(table, found)
    return duplicates.unite(table, *told).nunique(), problems


@pytest.mark.parametrize("of_each", [["normal.png"], SEVEN])
def test_a_placeholder_unites_nobody_and_is_a_problem(tmp_path, of_each):
    people = CROWD[:6]
    data = sound_folder(tmp_path / "data", people, pictures=dict.fromkeys(of_each, PLACEHOLDER))
    table, found = copies(data, tmp_path)
    told, problems = duplicates.without_shared(table, found)
    assert duplicates.unite(table, *told).nunique() == len(people)
    assert set(problems["problem"]) == {Problem.SHARED_PICTURE} and len(problems) == len(people) * len(of_each)
    assert "6 people of different gender or age, such as 000000_male_Asian_20" in problems["detail"][0]
    train = table[table["split"] == "train"]
    folds = splits.make_splits(train, 3, 0.1, 0, duplicates.unite(table, *told))
    splits.audit_splits(folds, None, told)
    assert len(found["duplicates.ahash"]) == len(people) * len(of_each)  # the table itself lists them still


def test_a_re_encoded_placeholder_is_one_too(tmp_path):
    data = sound_folder(tmp_path / "data", CROWD)
    for number, person in enumerate(CROWD):
        path = data / "train" / "images" / person / "normal.png"
        path.unlink()
        save(PLACEHOLDER, path.with_suffix(".jpg" if number % 2 else ".png"))
    assert parted(data, tmp_path)[0] == len(CROWD)


def test_two_people_of_different_gender_who_share_one_picture_stay_two(tmp_path):
    data = sound_folder(tmp_path / "data", CROWD)
    for person in CROWD[:2]:
        save(PLACEHOLDER, data / "train" / "images" / person / "mask1.png")
    count, problems = parted(data, tmp_path)
    assert count == len(CROWD) and set(problems["path"]) == {f"{person}/mask1.png" for person in CROWD[:2]}


@pytest.mark.parametrize("again", ["900000_male_Asian_20", "900000_female_Asian_63"], ids=["same row", "wrong row"])
def test_a_person_entered_twice_is_one_though_a_row_be_wrong(tmp_path, again):
    data = sound_folder(tmp_path / "data", [*CROWD, again])
    for place, name in enumerate(SEVEN):
        save(noise(place), data / "train" / "images" / again / name)  # those of the first
    count, problems = parted(data, tmp_path)
    assert count == len(CROWD) and problems.empty


def test_without_copies_and_without_attributes_of_a_person_there_is_nothing_to_part(tmp_path):
    table, found = copies(sound_folder(tmp_path / "data"), tmp_path)
    assert duplicates.without_shared(table, found)[1].empty
    shared = pd.DataFrame([("x", "1.jpg", "a", 0, "train", 0), ("x", "2.jpg", "b", 0, "train", 0)])
    shared.columns = duplicates.DUPLICATE_COLUMNS
    bare = pd.DataFrame({"person": ["a", "b"], "split": "train"})
    assert duplicates.shared_pictures(bare, shared).empty


def test_errors_say_that_people_who_share_pictures_count_as_one():
    rows = layout.photo_table([(f"{one}/normal.jpg", one, "worn", "male", 30, 1, "train") for one in "abcdefgh"])
    united = pd.Series("a", index=list("abcdefgh"))
    with pytest.raises(ValueError, match=r"less than one person of 1.*people who share pictures count as one"):
        splits.make_splits(rows, 3, 0.1, 0, united)
    with pytest.raises(ValueError, match=r"1 people cannot fill 3 parts.*people who share pictures count as one"):
        splits.make_splits(rows, 3, 0.0, 0, united)


def test_the_first_notebook_lists_them_and_unites_nobody(tmp_path, shell):
    data = sound_folder(tmp_path / "data", CROWD, pictures={"normal.png": PLACEHOLDER})
    table, found = copies(data, tmp_path)
    space = {"everything": table, "copies": found, "train": table[table["split"] == "train"], "extra": table[:0]}
    space |= {"fold_count": 3, "test_val_share": 0.1, "seed": 0, "output": tmp_path, "written": []}
    modules = {"pd": pd, "files": files, "duplicates": duplicates, "splits": splits, "data_plots": data_plots}
    kernelless.run_cells(shell, "00_prepare_data", ["folds"], **space, **modules, problems=photos.problem_table([]))
    assert (pd.read_csv(tmp_path / "tables" / "problems.csv")["problem"] == "shared_picture").sum() == len(CROWD)
    people = pd.read_csv(tmp_path / "tables" / "groups.csv")
    assert np.all(people["group"] == people["person"])
