"""Copies of training photos take the cleaned label of their original, and nothing else changes."""

import numpy as np
import pandas as pd
import pytest
import simulated

from mask_lib.base import files
from mask_lib.data import clean_labels, splits
from mask_lib.ensemble import leaks
from mask_lib.ensemble.leaks import CONFLICT, NEAREST, UNKNOWN

IDS = ["d.jpg", "a.jpg", "c.jpg", "b.jpg"]
SUBMISSION = pd.DataFrame({"ImageID": IDS, "ans": [3, 0, 2, 1]})


def copies(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=leaks.LEAK_COLUMNS)


def test_a_copy_takes_the_label_of_today_not_that_of_the_table():
    submission, some = SUBMISSION.copy(), copies(("a.jpg", "x/1.jpg", 5, 0))
    found, table = leaks.apply_leaks(submission, some, {"x/1.jpg": 11})
    assert found["ans"].tolist() == [3, 11, 2, 1]
    assert found["ImageID"].tolist() == IDS and pd.api.types.is_integer_dtype(found["ans"])
    assert list(table.columns) == leaks.OVERRIDE_COLUMNS
    assert table.to_numpy().tolist() == [["a.jpg", "x/1.jpg", 0, 11, 0, True, NEAREST]]
    pd.testing.assert_frame_equal(submission, SUBMISSION)
    pd.testing.assert_frame_equal(some, copies(("a.jpg", "x/1.jpg", 5, 0)))
    assert leaks.leak_captions(table) == ["predicted worn male <30\nlabeled incorrect female 60+"]


# By name: distances of originals of a.jpg, their labels, the answer, and the path and reason of each decision.
DECISIONS = {
    "the nearest decides": ({"x": 4, "y": 1}, {"x": 7, "y": 8}, 8, [("y", NEAREST)]),
    "in any order": ({"y": 1, "x": 4}, {"x": 7, "y": 8}, 8, [("y", NEAREST)]),
    "of equals that agree one": ({"x": 1, "y": 1}, {"x": 7, "y": 7}, 7, [("x", NEAREST)]),
    "in conflict none": ({"x": 1, "y": 1, "z": 5}, {"x": 7, "y": 8, "z": 7}, 0, [("x", CONFLICT), ("y", CONFLICT)]),
    "a dropped one has no say": ({"x": 0}, {}, 0, [("x", UNKNOWN)]),
    "behind a dropped one the next decides": ({"x": 0, "y": 3}, {"y": 9}, 9, [("y", NEAREST)]),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_originals_decide(case):
    distances, labels_of, answer, decided = DECISIONS[case]
    some = copies(*(("a.jpg", path, 0, distance) for path, distance in distances.items()))
    found, table = leaks.apply_leaks(SUBMISSION, some, labels_of)
    assert found["ans"].tolist() == [3, answer, 2, 1]
    assert list(table[["path", "why"]].itertuples(index=False, name=None)) == decided
    assert (table["applied"] == (table["why"] == NEAREST)).all()


def test_a_leak_of_an_unknown_photo_is_named():
    with pytest.raises(ValueError, match=r"does not answer, such as \['z\.jpg'\]: run 00_prepare_data again"):
        leaks.apply_leaks(SUBMISSION, copies(("z.jpg", "x/1.jpg", 5, 0)), {"x/1.jpg": 5})


def test_decisions_are_in_the_order_of_the_submission_and_counted_in_summary_and_title():
    some = copies(("a.jpg", "x", 0, 0), ("b.jpg", "y", 0, 0), ("c.jpg", "gone", 0, 0), ("d.jpg", "x", 0, 1))
    _, table = leaks.apply_leaks(SUBMISSION, some, {"x": 0, "y": 5})
    assert table["ImageID"].tolist() == IDS and table["predicted"].tolist() == [3, 0, 2, 1]
    assert table["label"].isna().tolist() == [False, False, True, False]
    said = leaks.leak_summary(table)
    assert "take their label: 3, which changes 2 of the answers." in said
    assert f"Left as predicted because {UNKNOWN}: 1." in said
    assert leaks.leak_gallery_title(table, shown=2) == "2 of 3 answers taken from a copy; overrides.csv lists all"


def test_tables_of_both_hashes_are_joined_and_a_pair_counts_once_at_its_nearest(tmp_path):
    both = [copies(("a.jpg", "x/1.jpg", 5, 3), ("007", "y/1.jpg", 6, 0)), copies(("a.jpg", "x/1.jpg", 5, 2))]
    for name, table in zip(("ahash", "phash"), both, strict=True):
        files.write_csv(table, tmp_path / "tables" / f"data_leak.{name}.csv")
    found = leaks.read_leaks(tmp_path).sort_values("ImageID", ignore_index=True)
    expected = copies(("007", "y/1.jpg", 6, 0), ("a.jpg", "x/1.jpg", 5, 2))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_no_tables_and_empty_tables_are_no_leaks(tmp_path):
    assert leaks.read_leaks(tmp_path).empty
    files.write_csv(copies(), tmp_path / "tables" / "data_leak.phash.csv")
    found, table = leaks.apply_leaks(SUBMISSION, leaks.read_leaks(tmp_path), {"x/1.jpg": 3})
    pd.testing.assert_frame_equal(found, SUBMISSION)
    assert table.empty and list(table.columns) == leaks.OVERRIDE_COLUMNS
    assert leaks.leak_summary(table) == "No evaluation photo is known to be a copy of a training photo."


def test_training_labels_are_cleaned_and_leave_out_dropped_photos(tmp_path):
    photos = simulated.people(9, np.random.default_rng(0))
    splits.write_splits(splits.make_splits(photos, fold_count=2, test_val_share=0.2), tmp_path)
    split = splits.read_splits(tmp_path)[0]
    everyone = split[["path", "label"]].rename(columns={"label": "class"})
    everyone.loc[1, "class"] = 17
    clean_labels.write(everyone.iloc[1:], everyone.iloc[:1], tmp_path)
    found = leaks.training_labels(tmp_path)
    assert split["path"][0] not in found and found[split["path"][1]] == 17
    assert len(found) == len(split) - 1  # those of test_val among them: they are training photos too


def test_answers_and_decisions_are_written(tmp_path):
    found, table = leaks.apply_leaks(SUBMISSION, copies(("a.jpg", "x", 0, 0)), {"x": 5})
    written = leaks.write_leak_submission(found, table, tmp_path)
    assert written == [tmp_path / "submissions" / name for name in ("submission.csv.leak.csv", "overrides.csv")]
    for path, one in zip(written, (found, table), strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(path), one, check_dtype=False)


def test_both_sides_of_an_override_are_found_in_their_folders():
    both = copies(("a.jpg", "x/1.jpg", 5, 0), ("d.jpg", "/elsewhere/2.jpg", 5, 0))
    _, table = leaks.apply_leaks(SUBMISSION, both, {"x/1.jpg": 11, "/elsewhere/2.jpg": 3})
    evaluated, originals = leaks.both_sides(table)
    assert evaluated.to_numpy().tolist() == [["d.jpg", "eval"], ["a.jpg", "eval"]]
    assert originals.to_numpy().tolist() == [["/elsewhere/2.jpg", "external"], ["x/1.jpg", "train"]]
