"""Training reads the labels that cleaning left, in every part of every fold, and the set's own without cleaning."""

import pandas as pd
import pytest
import toys

from mask_lib.base import files
from mask_lib.data import clean_labels
from mask_lib.data.splits import SPLIT_COLUMNS, join_training, read_splits, write_splits

DROPPED, RELABELED = "003/mask1.png", "004/normal.png"


@pytest.fixture
def output(tmp_path):
    """Splits of the toy set, of which cleaning dropped a photo and relabeled another."""
    output, photos = tmp_path / "output", toys.table()
    write_splits(toys.splits(photos), output)
    whole = photos.assign(path="/somewhere/data/train/images/" + photos["path"], **{"class": photos["label"]})
    whole.loc[photos["path"] == RELABELED, "class"] = 11
    is_dropped = photos["path"] == DROPPED
    clean_labels.write(whole[~is_dropped], whole[is_dropped], output)
    return output


def test_the_labels_of_every_part_are_the_cleaned_ones_and_dropped_photos_are_in_none(output):
    given, clean = read_splits(output), clean_labels.read_clean_splits(output)
    assert list(given) == list(clean)
    for fold, split in clean.items():
        expected = given[fold][given[fold]["path"] != DROPPED].reset_index(drop=True)
        expected.loc[expected["path"] == RELABELED, "label"] = 11
        pd.testing.assert_frame_equal(split, expected)
    assert clean_labels.touched(output) == {DROPPED, RELABELED}


def test_the_given_labels_stand_where_they_are_asked_for_or_nothing_was_cleaned(output):
    asked_for = clean_labels.read_clean_splits(output, "given")
    (output / "tables" / "clean.csv").unlink()
    uncleaned = clean_labels.read_clean_splits(output)
    for fold, split in read_splits(output).items():
        pd.testing.assert_frame_equal(asked_for[fold], split)
        pd.testing.assert_frame_equal(uncleaned[fold], split)


def test_decisions_that_no_table_holds_yet_are_not_passed_over(output):
    (output / "tables" / "clean.csv").unlink()
    (output / "review").mkdir()
    (output / "review" / "decisions.ann.jsonl").touch()
    with pytest.raises(FileNotFoundError, match=r"no .*clean\.csv, though labels were decided on: run 01"):
        clean_labels.read_clean_splits(output)
    assert clean_labels.read_clean_splits(output, "given")


def label_of(output, path):
    return clean_labels.read_clean_splits(output)[0].set_index("path")["label"][path]


def test_photos_from_outside_the_set_keep_their_labels(output):
    outside = pd.DataFrame([["/elsewhere/x/photo.png", "x", 5]], columns=SPLIT_COLUMNS[:3])
    write_splits(join_training(read_splits(output), outside), output)
    assert label_of(output, "/elsewhere/x/photo.png") == 5


def test_photos_added_since_the_cleaning_are_named(output):
    write_splits(toys.splits(toys.table(people=toys.PEOPLE + 1)), output)
    with pytest.raises(ValueError, match=r"it lacks 2, such as \['015/mask1.png', '015/normal.png'\].*run 01_label"):
        clean_labels.read_clean_splits(output)


def relabel(output, path, label):
    """What running 00_prepare_data again leaves once the data set gives a photo another label."""
    splits = read_splits(output)
    for split in splits.values():
        split.loc[split["path"] == path, "label"] = label
    write_splits(splits, output)


@pytest.mark.parametrize("path", ["007/mask1.png", DROPPED, RELABELED])
def test_labels_that_the_data_set_changed_since_the_cleaning_are_not_passed_over(output, path):
    old = read_splits(output)[0].set_index("path")["label"][path]
    relabel(output, path, 12)
    with pytest.raises(ValueError, match=rf"1 have changed since, such as {path} \({old} → 12\); run 01_label_clean"):
        clean_labels.read_clean_splits(output)
    assert clean_labels.read_clean_splits(output, "given")  # which has nothing to do with cleaning
    relabel(output, path, old)
    assert clean_labels.read_clean_splits(output)


def clean_again(output):
    given = read_splits(output)[0]
    table = given.assign(path="/somewhere/train/images/" + given["path"], **{"class": given["label"]})
    clean_labels.write(table, table.head(0), output)


def test_cleaning_again_takes_the_changed_labels_and_a_kill_before_they_are_noted_is_noticed(output, monkeypatch):
    relabel(output, "007/mask1.png", 12)
    write_csv = files.write_csv

    def killed(table, path):
        return write_csv(table, path) if path.stem != "given" else 1 / 0

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(files, "write_csv", killed)
        clean_again(output)
    with pytest.raises(ValueError, match="run 01_label_cleaning again"):
        clean_labels.read_clean_splits(output)
    clean_again(output)
    assert label_of(output, "007/mask1.png") == 12


def test_a_clean_table_of_which_nothing_was_noted_stands(output):
    (output / "tables" / "given.csv").unlink()
    relabel(output, "007/mask1.png", 12)
    assert label_of(output, "007/mask1.png") != 12
