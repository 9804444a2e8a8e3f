"""External photos train and do nothing else; whatever is wrong with them is listed, and copies stay out."""

import itertools
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import toys
from photo_files import FRUIT, listed, noise, save

from mask_lib.base import config, files, labels
from mask_lib.data import external, layout, photos, splits, store
from mask_lib.data.layout import Problem
from mask_lib.ensemble import inference
from mask_lib.training import dataset, runs

ANN, BOB = "000001_female_Asian_45", "000002_male_White_29"
OWN = [
    ("ann/mask1.png", "ann", "worn", "female", 45, 4, "train"),
    ("ann/normal.png", "ann", "not_worn", "female", 45, 16, "train"),
    ("bob/mask1.png", "bob", "worn", "male", 29, 0, "train"),
    ("bob/normal.png", "bob", "not_worn", "male", 29, 12, "train"),
    ("asked.png", "", "", "", pd.NA, pd.NA, "eval"),
]


@pytest.fixture
def own(tmp_path) -> tuple[Path, pd.DataFrame]:
    """A data folder and its photo table."""
    data, table = tmp_path / "data", layout.photo_table(OWN)
    for seed, path in enumerate(photos.files_of(data, table)):
        save(noise(seed), path)
    return data, table


def write_list(path: Path, rows: list[dict]) -> Path:
    """A CSV of external photos, each painted beside it unless the row's photo is there or absolute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        if not os.path.isabs(row["path"]) and not (path.parent / row["path"]).exists():
            save(noise(1000 + number), path.parent / row["path"])
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def scan_list(own, tmp_path, rows):
    return external.scan([write_list(tmp_path / "far" / "list.csv", rows)], *own)


def found_problems(problems: pd.DataFrame) -> set[tuple[str, str]]:
    return {(Path(path).name, problem) for path, problem in listed(problems)}


GOOD = {"path": "good.png", "mask": "worn", "gender": "male", "age": "30", "label": ""}


def test_a_csv_gives_absolute_paths_and_labels(own, tmp_path):
    rows = [
        {"path": "a.png", "person": "x", "mask": "worn", "gender": "male", "age": 30},
        {"path": "sub/b.png", "person": "x", "mask": "Not worn", "gender": " FEMALE ", "age": "60.0"},
        {"path": "c.png", "label": 10},
    ]
    table, problems = scan_list(own, tmp_path, rows)
    assert problems.empty and list(problems) == photos.PROBLEM_COLUMNS
    assert list(table) == external.external_columns()
    assert table.fillna({"age": -1}).values.tolist() == [
        [str(tmp_path / "far/a.png"), "external:list/x", "worn", "male", 30, 1],
        [str(tmp_path / "far/sub/b.png"), "external:list/x", "not_worn", "female", 60, 17],
        # Without a person each is one of its own; a label tells all but the years.
        [str(tmp_path / "far/c.png"), "external:list/c.png", "incorrect", "female", -1, 10],
    ]


@pytest.mark.parametrize("layout_of", ["images", "train.csv", "train/train.csv", "bare"])
def test_folders_are_read_in_each_layout(own, tmp_path, layout_of):
    source = tmp_path / "far"
    home = source / "train" if layout_of.startswith("train/") else source
    images = home if layout_of == "bare" else home / "images"
    for seed, (person, name) in enumerate(itertools.product((ANN, BOB), ("mask3", "incorrect_mask"))):
        save(noise(100 + seed), images / person / f"{name}.png")
    if layout_of.endswith("train.csv"):
        people = [("1", "female", "Asian", "45", ANN), ("2", "male", "White", "29", BOB)]
        pd.DataFrame(people, columns=["id", "gender", "race", "age", "path"]).to_csv(home / "train.csv", index=False)
    table, problems = external.scan([source], *own)
    assert problems.empty
    assert table["person"].tolist() == [f"external:far/{ANN}"] * 2 + [f"external:far/{BOB}"] * 2
    assert sorted(table["label"]) == sorted([10, 4, 6, 0])


def test_what_is_odd_in_a_folder_is_listed_with_its_whole_path(own, tmp_path):
    images = tmp_path / "far" / "images"
    strays = [f"{ANN}/selfie.png", "somebody/normal.png", "7_male_White_212/normal.png", "readme.png", "._x.png"]
    for name in (f"{ANN}/normal.png", *strays):
        save(noise(1000), images / name)
    table, problems = external.scan([tmp_path / "far"], *own)
    assert len(table) == 1
    assert found_problems(problems) == {
        ("selfie.png", Problem.UNKNOWN_NAME),
        ("somebody", Problem.UNKNOWN_FOLDER),
        ("normal.png", "age_out_of_range"),
        ("readme.png", Problem.UNKNOWN_NAME),
        ("._x.png", Problem.JUNK_FILE),
    }
    assert all(path.startswith(str(images)) for path in problems["path"])


def test_odd_rows_of_a_train_csv_are_listed(own, tmp_path):
    images = tmp_path / "far" / "images"
    for seed, person in enumerate(("x", ANN)):
        save(noise(1000 + seed), images / person / "normal.png")
    rows = [("x", "", "70"), (ANN, "female", "44"), ("x", "male", "70"), ("gone", "male", "20"), ("../x", "male", "20")]
    pd.DataFrame(rows, columns=["path", "gender", "age"]).to_csv(tmp_path / "far" / "train.csv", index=False)
    table, problems = external.scan([tmp_path / "far"], *own)
    assert table[["gender", "age", "label"]].values.tolist() == [["female", 44, 16]]
    assert found_problems(problems) == {
        ("normal.png", Problem.INCOMPLETE_LABEL),
        ("x", Problem.DOUBLE_ROW),
        ("gone", Problem.MISSING_FOLDER),
        ("x", Problem.UNSAFE_PATH),
        (ANN, Problem.FOLDER_CONTRADICTS_ROW),
    }


def test_people_of_two_sources_and_of_the_data_folder_stay_apart_though_named_alike(own, tmp_path):
    row = {"path": "a.png", "person": "ann", "label": 3}
    lists = [write_list(tmp_path / folder / "list.csv", [row]) for folder in ("one", "two")]
    table, _ = external.scan(lists, *own)
    assert table["person"].tolist() == ["external:list/ann", "external:list-2/ann"]
    assert not set(table["person"]) & set(own[1]["person"])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"mask": "wron"}, "bad_mask"),
        ({"gender": "f"}, "bad_gender"),
        ({"age": "old"}, "bad_age"),
        ({"age": "121"}, "age_out_of_range"),
        ({"age": "-1"}, "age_out_of_range"),
        ({"label": "18"}, "bad_label"),
        ({"label": "-1"}, "bad_label"),
        ({"label": "worn"}, "bad_label"),
        ({"label": "17"}, Problem.LABEL_CONTRADICTS_ROW),
        ({"mask": "", "gender": "", "age": ""}, Problem.INCOMPLETE_LABEL),
        ({"mask": ""}, Problem.INCOMPLETE_LABEL),
        ({"age": ""}, Problem.INCOMPLETE_LABEL),
    ],
)
def test_a_row_that_means_nothing_is_left_out_and_listed(own, tmp_path, wrong, problem):
    table, problems = scan_list(own, tmp_path, [GOOD, {**GOOD, "path": "bad.png", **wrong}])
    assert [Path(path).name for path in table["path"]] == ["good.png"]
    assert found_problems(problems) == {("bad.png", problem)}


def test_photos_that_cannot_be_read_are_left_out_and_listed(own, tmp_path):
    os.truncate(save(noise(5), tmp_path / "far" / "cut.png"), 900)
    rows = [{**GOOD, "path": name} for name in ("cut.png", str(tmp_path / "gone.png"))]
    table, problems = scan_list(own, tmp_path, [GOOD, *rows])
    assert len(table) == 1
    assert found_problems(problems) == {("cut.png", Problem.TRUNCATED), ("gone.png", Problem.UNREADABLE)}


@pytest.mark.parametrize("how", ["path", "link", "bytes"])
@pytest.mark.parametrize("photo", ["train/images/ann/mask1.png", "eval/images/asked.png"])
def test_a_photo_of_the_data_folder_does_not_come_in_again(own, tmp_path, how, photo):
    target, other = own[0] / photo, tmp_path / "far" / "other.png"
    other.parent.mkdir()
    if how == "link":
        other.symlink_to(target)
    elif how == "bytes":
        shutil.copy(target, other)
    table, problems = scan_list(own, tmp_path, [GOOD, {**GOOD, "path": str(target if how == "path" else other)}])
    assert [Path(path).name for path in table["path"]] == ["good.png"]
    assert problems["problem"].tolist() == [Problem.COPY_OF_OWN_PHOTO]
    assert target.name in problems["detail"][0]


def test_a_photo_that_two_rows_or_sources_name_comes_in_once(own, tmp_path):
    first = write_list(tmp_path / "far" / "list.csv", [GOOD, {**GOOD, "path": "./good.png", "age": "70"}])
    link = tmp_path / "far" / "link.png"
    link.symlink_to(tmp_path / "far" / "good.png")
    second = write_list(tmp_path / "far" / "more.csv", [{**GOOD, "path": "new.png"}, {**GOOD, "path": "link.png"}])
    save(noise(77), tmp_path / "far" / "new.png")
    table, problems = external.scan([first, second], *own)
    assert [Path(path).name for path in table["path"]] == ["good.png", "new.png"]
    assert table["age"].tolist() == [30, 30]
    assert found_problems(problems) == {("good.png", Problem.DOUBLE_ROW), ("link.png", Problem.DOUBLE_ROW)}


def test_a_source_that_is_not_there_or_of_no_use_is_an_error_that_names_it(own, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*absent: give a folder of labeled photos or a CSV"):
        external.scan([tmp_path / "absent"], *own)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no usable external photo \(nothing that looks like one\)"):
        external.scan([tmp_path / "empty"], *own)
    with pytest.raises(ValueError, match=r"ann/mask1\.png is neither a folder nor a \.csv"):
        external.scan([own[0] / "train/images/ann/mask1.png"], *own)


def test_a_csv_with_misspelt_or_without_useful_columns_is_an_error(own, tmp_path):
    (own[0] / "train.csv").write_text("file,age\na.png,3\n")
    with pytest.raises(ValueError, match=r"list\.csv has a column 'Gender': write 'gender'"):
        scan_list(own, tmp_path, [{"path": "a.png", "Gender": "male", "age": 3}])
    with pytest.raises(ValueError, match=r"needs the columns mask, gender, age, or label"):
        scan_list(own, tmp_path, [{"path": "a.png", "race": "any", "age": 3}])
    with pytest.raises(ValueError, match=r"lacks the column\(s\) path"):
        external.scan([own[0] / "train.csv"], *own)


def test_a_csv_of_another_task_is_read_by_its_attributes(own, tmp_path):
    with labels.using(FRUIT):
        row = {"path": "a.png", "fruit": "Sour cherry", "weight": "99"}
        rows = [row, {**row, "path": "b.png", "weight": "901"}, {**row, "path": "c.png", "fruit": "kiwi"}]
        path = write_list(tmp_path / "far" / "list.csv", rows)
        table, problems = external.scan([path], own[0], layout.photo_table([]))
        assert list(table) == ["path", "person", "fruit", "weight", "label"]
        assert table[["fruit", "weight", "label"]].values.tolist() == [["sour_cherry", 99, 2]]
        assert found_problems(problems) == {("b.png", "weight_out_of_range"), ("c.png", "bad_fruit")}
        external.write(table, tmp_path / "output")
        pd.testing.assert_frame_equal(external.read(tmp_path / "output"), table)


def test_external_photos_stand_below_the_labeled_ones_and_out_of_the_photo_table(own, tmp_path):
    data, table = own
    files.write_csv(table, tmp_path / "tables" / "photos.csv")
    labeled = photos.read_labeled(tmp_path)
    pd.testing.assert_frame_equal(external.with_external(labeled, tmp_path), labeled)
    found, _ = scan_list(own, tmp_path, [GOOD, {"path": "c.png", "label": "5", "person": "NA"}])
    external.write(found, tmp_path)
    pd.testing.assert_frame_equal(external.read(tmp_path), found)
    pd.testing.assert_frame_equal(photos.read_labeled(tmp_path), labeled)
    both = external.with_external(labeled, tmp_path)
    assert list(both) == layout.photo_columns()
    assert both["label"].tolist() == [*labeled["label"], 1, 5]
    assert set(both["split"]) == {"train"}
    decoded = dataset.open_photos(data, tmp_path, both, store.Frame(20, 30))
    assert (decoded.images[decoded.rows(found["path"])] == [noise(1000), noise(1001)]).all()
    assert (decoded.images[0] == noise(0)).all()


def test_no_sources_empty_the_table_of_earlier_ones(own, tmp_path):
    assert external.read(tmp_path).empty
    external.write(scan_list(own, tmp_path, [GOOD])[0], tmp_path)
    external.write(external.scan([], *own)[0], tmp_path)
    pd.testing.assert_frame_equal(external.read(tmp_path), external.external_table([]))


def test_external_photos_can_be_shown_and_compared_beside_those_of_the_data_folder(own, tmp_path):
    data, table = own
    found, _ = scan_list(own, tmp_path, [GOOD])
    everything = pd.concat([table, external.as_photos(found)], ignore_index=True)
    assert photos.files_of(data, everything)[-2:] == [data / "eval/images/asked.png", tmp_path / "far/good.png"]
    assert len(photos.thumbnails(data, everything)) == 6
    with pytest.raises(ValueError, match=r"external photos need absolute paths: \['far\.png'\]"):
        photos.files_of(data, external.as_photos(found.assign(path="far.png")))
    with pytest.raises(ValueError, match="leave the images folder"):
        photos.files_of(data, external.as_photos(found).assign(split="train"))
    with pytest.raises(ValueError, match=r"leave the images folder: \['\.\./x'\]"):
        photos.files_of(data, table.assign(path="../x")[:1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A toy run on the toy set with external photos, one of them a copy of somebody held out."""
    root = tmp_path_factory.mktemp("external")
    data, output = root / "data", root / "output"
    toys.prepare(data, output)
    own = splits.read_splits(output)
    held_out = own[0].loc[own[0]["split"] == splits.TEST_VAL, "person"].iloc[0]
    rows = [
        {"path": "0.png", "person": "new", "mask": "worn", "gender": "male", "age": 20},
        {"path": "2.png", "person": "copy", "mask": "worn", "gender": "male", "age": 20},
    ]
    own_table = photos.read_photos(output / "tables" / "photos.csv")
    table, _ = external.scan([write_list(root / "far" / "list.csv", rows)], data, own_table)
    groups = pd.Series({held_out: "same", "external:list/copy": "same"})
    external.write(table, output)
    splits.write_splits(splits.join_training(own, table, groups), output, groups)
    run = config.Run(**{**toys.SETTINGS, "epochs": 1, "warmup_epochs": 0.0})
    decoded = dataset.open_trainable(data, output, run)
    runs.write_scores(runs.train_run(run, splits.read_splits(output), decoded, output))
    return data, output


def test_training_and_prediction_take_external_photos_and_score_none_of_them(trained):
    data, output = trained
    for split in splits.read_splits(output).values():
        assert [Path(path).name for path in split["path"] if os.path.isabs(path)] == ["0.png"]
    test_val = inference.predict_run(data, output, "toy")["test_val"]
    split = splits.read_splits(output)[0]
    assert sorted(test_val["path"]) == sorted(split["path"][split["split"] == splits.TEST_VAL])
    for fold in (0, 1):
        validated = pd.read_csv(output / "runs" / "toy" / f"fold{fold}" / "oof.csv")["path"]
        assert not validated.map(os.path.isabs).any()


def test_a_checkpoint_of_other_external_photos_or_of_other_bytes_is_refused(trained, tmp_path):
    data, trained_output = trained
    output = shutil.copytree(trained_output, tmp_path / "output")
    table = external.read(output)
    external.write(table.iloc[:-1], output)
    with pytest.raises(ValueError, match=r"fold0.*was trained on other photos, labels or folds"):
        inference.predict_run(data, output, "toy")
    external.write(table, output)
    path = Path(table["path"][0])
    before = path.read_bytes()
    try:
        save(noise(31), path)
        with pytest.raises(ValueError, match=r"fold0.*was trained on other photos"):
            inference.predict_run(data, output, "toy")
    finally:
        path.write_bytes(before)
