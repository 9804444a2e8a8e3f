"""Training reads the labels that cleaning left, in every part of every fold, and the set's own without cleaning."""

import pandas as pd
import pytest
import toys

from mask_lib import clean_labels, files, folds

DROPPED, RELABELED = "003/mask1.png", "004/normal.png"


@pytest.fixture
def output(tmp_path):
    """Splits of the toy set, of which cleaning dropped a photo and relabeled another."""
    output, photos = tmp_path / "output", toys.table()
    folds.write_splits(toys.splits(photos), output)
    whole = photos.assign(path="/somewhere/data/train/images/" + photos["path"], **{"class": photos["label"]})
    whole.loc[photos["path"] == RELABELED, "class"] = 11
    is_dropped = photos["path"] == DROPPED
    clean_labels.write(whole[~is_dropped], whole[is_dropped], output)
    return output


def test_the_labels_of_every_part_are_the_cleaned_ones_and_dropped_photos_are_in_none(output):
    given, clean = folds.read_splits(output), clean_labels.read_splits(output)
    assert list(given) == list(clean)
    for fold, split in clean.items():
        expected = given[fold][given[fold]["path"] != DROPPED].reset_index(drop=True)
        expected.loc[expected["path"] == RELABELED, "label"] = 11
        pd.testing.assert_frame_equal(split, expected)


def test_a_run_on_the_given_labels_sees_nothing_of_cleaning(output):
    for fold, split in clean_labels.read_splits(output, "given").items():
        pd.testing.assert_frame_equal(split, folds.read_splits(output)[fold])


def test_without_a_clean_table_the_given_labels_stand(output):
    clean_labels.clean_path(output).unlink()
    for fold, split in clean_labels.read_splits(output).items():
        pd.testing.assert_frame_equal(split, folds.read_splits(output)[fold])


def test_decisions_that_no_table_holds_yet_are_not_passed_over(output):
    clean_labels.clean_path(output).unlink()
    (output / "review").mkdir()
    (output / "review" / "decisions.ann.jsonl").touch()
    with pytest.raises(FileNotFoundError, match=r"no .*clean\.csv, though labels were decided on: run 01"):
        clean_labels.read_splits(output)
    assert clean_labels.read_splits(output, "given")


def test_the_contract_holds_absolute_paths_and_classes(output):
    table = pd.read_csv(output / "tables" / "clean.csv")
    assert list(table.columns) == ["path", "class"] and len(table) == 2 * toys.PEOPLE - 1
    assert table["path"].str.startswith("/").all()
    assert list(pd.read_csv(output / "tables" / "dropped.csv")["path"]) == [f"/somewhere/data/train/images/{DROPPED}"]


def test_photos_from_outside_the_set_keep_their_labels(output):
    outside = pd.DataFrame([["/elsewhere/x/photo.png", "x", 5, "train"]], columns=folds.SPLIT_COLUMNS)
    splits = {fold: pd.concat([split, outside], ignore_index=True) for fold, split in folds.read_splits(output).items()}
    class_of, dropped = (clean_labels._read(output / "tables" / f"{name}.csv") for name in ("clean", "dropped"))
    found = clean_labels._with_classes(splits[0], class_of, dropped)
    assert found["label"][found["path"] == "/elsewhere/x/photo.png"].tolist() == [5]


def test_photos_added_since_the_cleaning_are_named(output):
    photos = toys.table(people=toys.PEOPLE + 1)
    folds.write_splits(toys.splits(photos), output)
    with pytest.raises(ValueError, match=r"it lacks 2, such as \['015/mask1.png', '015/normal.png'\].*run 01_label"):
        clean_labels.read_splits(output)


def test_another_table_in_its_place_is_refused(output):
    files.write_csv(pd.DataFrame({"path": ["a/b"], "label": [1]}), output / "tables" / "clean.csv")
    with pytest.raises(ValueError, match=r"clean\.csv must have the columns path, class"):
        clean_labels.read_splits(output)


def test_what_was_touched_are_the_dropped_and_the_relabeled(output):
    assert clean_labels.touched(output) == {DROPPED, RELABELED}
