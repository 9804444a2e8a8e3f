"""Copies of training photos take the cleaned label of their original, and nothing else changes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulated

from mask_lib.base import files
from mask_lib.data import clean_labels, splits
from mask_lib.ensemble.leaks import (
    CONFLICT,
    LEAK_COLUMNS,
    NEAREST,
    OVERRIDE_COLUMNS,
    UNKNOWN,
    apply_leaks,
    both_sides,
    leak_captions,
    leak_gallery_title,
    leak_summary,
    read_leaks,
    training_labels,
    write_leak_submission,
)

IDS = ["d.jpg", "a.jpg", "c.jpg", "b.jpg"]
SUBMISSION = pd.DataFrame({"ImageID": IDS, "ans": [3, 0, 2, 1]})


def leaks(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=LEAK_COLUMNS)


def test_a_copy_takes_the_label_of_today_not_that_of_the_table():
    submission, some = SUBMISSION.copy(), leaks(("a.jpg", "x/1.jpg", 5, 0))
    found, table = apply_leaks(submission, some, {"x/1.jpg": 11})
    assert found["ans"].tolist() == [3, 11, 2, 1]
    assert found["ImageID"].tolist() == IDS and pd.api.types.is_integer_dtype(found["ans"])
    assert list(table.columns) == OVERRIDE_COLUMNS
    assert table.to_numpy().tolist() == [["a.jpg", "x/1.jpg", 0, 11, 0, True, NEAREST]]
    pd.testing.assert_frame_equal(submission, SUBMISSION)
    pd.testing.assert_frame_equal(some, leaks(("a.jpg", "x/1.jpg", 5, 0)))
    assert leak_captions(table) == ["predicted worn male <30\nlabeled incorrect female 60+"]


# By name: distances of originals of a.jpg, their labels, the answer, and the path and reason of each decision.
DECISIONS = {
    "the nearest decides": ({"x": 4, "y": 1}, {"x": 7, "y": 8}, 8, [("y", NEAREST)]),
    "in any order": ({"y": 1, "x": 4}, {"x": 7, "y": 8}, 8, [("y", NEAREST)]),
    "equally near ones that agree decide once": ({"x": 1, "y": 1}, {"x": 7, "y": 7}, 7, [("x", NEAREST)]),
    "those that differ decide nothing": (
        {"x": 1, "y": 1, "z": 5},
        {"x": 7, "y": 8, "z": 7},
        0,
        [("x", CONFLICT), ("y", CONFLICT)],
    ),
    "a dropped one has no say": ({"x": 0}, {}, 0, [("x", UNKNOWN)]),
    "behind a dropped one the next decides": ({"x": 0, "y": 3}, {"y": 9}, 9, [("y", NEAREST)]),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_originals_decide(case):
    distances, labels_of, answer, decided = DECISIONS[case]
    some = leaks(*(("a.jpg", path, 0, distance) for path, distance in distances.items()))
    found, table = apply_leaks(SUBMISSION, some, labels_of)
    assert found["ans"].tolist() == [3, answer, 2, 1]
    assert list(table[["path", "why"]].itertuples(index=False, name=None)) == decided
    assert (table["applied"] == (table["why"] == NEAREST)).all()


def test_decisions_are_in_the_order_of_the_submission():
    some = leaks(("b.jpg", "x/1.jpg", 0, 0), ("c.jpg", "gone", 0, 0), ("d.jpg", "y/1.jpg", 0, 0))
    _, table = apply_leaks(SUBMISSION, some, {"x/1.jpg": 1, "y/1.jpg": 2})
    assert table["ImageID"].tolist() == ["d.jpg", "c.jpg", "b.jpg"]
    assert table["predicted"].tolist() == [3, 2, 1] and table["label"].isna().tolist() == [False, True, False]


def test_a_leak_of_an_unknown_photo_is_named():
    with pytest.raises(ValueError, match=r"does not answer, such as \['z\.jpg'\]: run 00_prepare_data again"):
        apply_leaks(SUBMISSION, leaks(("z.jpg", "x/1.jpg", 5, 0)), {"x/1.jpg": 5})


def test_the_summary_counts_what_was_done():
    some = leaks(
        ("a.jpg", "x/1.jpg", 0, 0), ("b.jpg", "y/1.jpg", 0, 0), ("c.jpg", "gone", 0, 0), ("d.jpg", "x/1.jpg", 0, 1)
    )
    _, table = apply_leaks(SUBMISSION, some, {"x/1.jpg": 0, "y/1.jpg": 5})
    said = leak_summary(table)
    assert "take their label: 3, which changes 2 of the answers." in said
    assert f"Left as predicted because {UNKNOWN}: 1." in said


@pytest.fixture
def output(tmp_path) -> Path:
    photos = simulated.people(9, np.random.default_rng(0))
    splits.write_splits(splits.make_splits(photos, fold_count=2, test_val_share=0.2), tmp_path)
    return tmp_path


def test_tables_of_both_hashes_are_joined_and_a_pair_counts_once_at_its_nearest(output):
    both = [leaks(("a.jpg", "x/1.jpg", 5, 3), ("007", "y/1.jpg", 6, 0)), leaks(("a.jpg", "x/1.jpg", 5, 2))]
    for name, table in zip(("ahash", "phash"), both, strict=True):
        files.write_csv(table, output / "tables" / f"data_leak.{name}.csv")
    found = read_leaks(output).sort_values("ImageID", ignore_index=True)
    expected = leaks(("007", "y/1.jpg", 6, 0), ("a.jpg", "x/1.jpg", 5, 2))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_no_tables_and_empty_tables_are_no_leaks(output):
    assert read_leaks(output).empty
    files.write_csv(leaks(), output / "tables" / "data_leak.phash.csv")
    found, table = apply_leaks(SUBMISSION, read_leaks(output), {"x/1.jpg": 3})
    pd.testing.assert_frame_equal(found, SUBMISSION)
    assert table.empty and list(table.columns) == OVERRIDE_COLUMNS
    assert leak_summary(table) == "No evaluation photo is known to be a copy of a training photo."


def test_a_table_of_other_columns_is_named(output):
    files.write_csv(leaks(("a.jpg", "x/1.jpg", 5, 3)).drop(columns="path"), output / "tables" / "data_leak.ahash.csv")
    with pytest.raises(ValueError, match=r"data_leak\.ahash\.csv lacks the columns path: run 00_prepare_data"):
        read_leaks(output)


def test_training_labels_are_cleaned_and_leave_out_dropped_photos(output):
    split = splits.read_splits(output)[0]
    everyone = split[["path", "label"]].rename(columns={"label": "class"})
    everyone.loc[1, "class"] = 17
    clean_labels.write(everyone.iloc[1:], everyone.iloc[:1], output)
    found = training_labels(output)
    assert split["path"][0] not in found and found[split["path"][1]] == 17
    assert len(found) == len(split) - 1  # those of test_val among them: they are training photos too


def test_both_files_lie_where_the_contract_says_and_the_answers_are_checked(output):
    some = leaks(("a.jpg", "x/1.jpg", 0, 0), ("b.jpg", "gone", 0, 0), ("c.jpg", "x/1.jpg", 0, 1), ("c.jpg", "y", 0, 1))
    found, table = apply_leaks(SUBMISSION, some, {"x/1.jpg": 0, "y": 5})
    written = write_leak_submission(found, table, output, IDS)
    assert written == [output / "submissions" / name for name in ("submission.csv.leak.csv", "overrides.csv")]
    pd.testing.assert_frame_equal(pd.read_csv(written[0]), found, check_dtype=False)
    overrides = pd.read_csv(written[1])
    assert list(overrides.columns) == OVERRIDE_COLUMNS and len(overrides) == 4
    assert overrides["applied"].sum() == 1 and set(overrides["why"]) == {NEAREST, UNKNOWN, CONFLICT}
    with pytest.raises(ValueError, match=r"row 0 is d\.jpg, but info\.csv has a\.jpg there"):
        write_leak_submission(found, table, output, sorted(IDS))
    with pytest.raises(ValueError, match="whole number from 0 to 17"):
        write_leak_submission(found.assign(ans=18), table, output, IDS)


@pytest.mark.parametrize(
    ("applied", "title"),
    [
        (0, "No answer is taken from a copy"),
        (24, "All 24 answers taken from a copy"),
        (30, "24 of 30 answers taken from a copy; overrides.csv lists the other 6 too"),
    ],
)
def test_a_gallery_says_how_many_it_leaves_out(applied, title):
    table = pd.DataFrame({"applied": [True] * applied + [False] * 3})
    assert leak_gallery_title(table, shown=min(applied, 24)) == title


def test_both_sides_of_an_override_are_found_in_their_folders():
    both = leaks(("a.jpg", "x/1.jpg", 5, 0), ("d.jpg", "/elsewhere/2.jpg", 5, 0))
    _, table = apply_leaks(SUBMISSION, both, {"x/1.jpg": 11, "/elsewhere/2.jpg": 3})
    evaluated, originals = both_sides(table)
    assert evaluated.to_numpy().tolist() == [["d.jpg", "eval"], ["a.jpg", "eval"]]
    assert originals.to_numpy().tolist() == [["/elsewhere/2.jpg", "external"], ["x/1.jpg", "train"]]
