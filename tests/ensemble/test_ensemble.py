"""Probability files are averaged photo by photo, and only a submission as the contest wants it gets out."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mask_lib.base import files
from mask_lib.base.labels import CLASS_COUNT
from mask_lib.ensemble.members import (
    COLUMNS,
    check_submission,
    make_submission,
    member_intervals,
    read_members,
    read_probabilities,
    weighted_mean,
    with_labels,
    with_person,
)

IDS = ["c.jpg", "a.jpg", "b.jpg"]
PATHS = ["p2/mask1.jpg", "p1/mask1.jpg"]
LABELS = [3, 17]


def probabilities(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASS_COUNT), count)


def table_for_test(seed: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(probabilities(len(IDS), seed), columns=COLUMNS)
    table.insert(0, "ImageID", IDS)
    return table


def table_for_test_val(seed: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(probabilities(len(PATHS), seed), columns=COLUMNS)
    table.insert(0, "path", PATHS)
    table.insert(1, "label", LABELS)
    return table


@pytest.fixture
def output(tmp_path) -> Path:
    """An output folder with the inferences of two runs."""
    for seed, run in enumerate(["first", "second.b"]):
        files.write_csv(table_for_test(seed), tmp_path / "inferences" / f"{run}.test.csv")
        files.write_csv(table_for_test_val(seed), tmp_path / "inferences" / f"{run}.test_val.csv")
    return tmp_path


def inference(output: Path, run: str, which: str) -> str:
    return str(output / "inferences" / f"{run}.{which}.csv")


def test_the_weighted_mean_is_that_of_numpy():
    tables = [table_for_test(seed) for seed in range(3)]
    found = weighted_mean(tables, [1, 0.5, 0], "ImageID")
    expected = np.average([table[COLUMNS] for table in tables], axis=0, weights=[1, 0.5, 0])
    np.testing.assert_allclose(found[COLUMNS], expected, rtol=1e-12)
    np.testing.assert_allclose(found[COLUMNS].sum(axis=1), 1)
    assert found["ImageID"].tolist() == IDS


def test_one_file_alone_is_its_own_mean_bit_for_bit():
    pd.testing.assert_frame_equal(weighted_mean([table_for_test()], [1.0], "ImageID"), table_for_test())


def test_files_in_another_order_are_aligned_photo_by_photo():
    first, second = table_for_test(0), table_for_test(1)
    expected = weighted_mean([first, second], [1, 2], "ImageID")
    turned = second.iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(weighted_mean([first, turned], [1, 2], "ImageID"), expected)
    others_first = weighted_mean([turned, first], [2, 1], "ImageID")
    assert others_first["ImageID"].tolist() == IDS[::-1]
    np.testing.assert_allclose(
        others_first.set_index("ImageID").loc[IDS].to_numpy(), expected.set_index("ImageID").to_numpy(), rtol=1e-12
    )


def test_averaging_leaves_its_tables_as_they_were():
    tables = [table_for_test_val(0), table_for_test_val(1)]
    weighted_mean(tables, [1, 1], "path")
    pd.testing.assert_frame_equal(tables[0], table_for_test_val(0))


@pytest.mark.parametrize("weights", [[1, -0.1], [0, 0], [float("nan"), 1], [1, float("inf")]])
def test_weights_that_make_no_mean_are_refused(weights):
    with pytest.raises(ValueError, match=rf"weights = {re.escape(str(weights))}: each must be 0 or above"):
        weighted_mean([table_for_test(0), table_for_test(1)], weights, "ImageID")


@pytest.mark.parametrize(("file_count", "weights"), [(2, [1]), (1, [1, 1]), (0, [])])
def test_there_is_one_weight_a_file(file_count, weights):
    with pytest.raises(ValueError, match=f"{file_count} files but {len(weights)} weights: give one weight a file"):
        weighted_mean([table_for_test()] * file_count, weights, "ImageID")


def test_files_of_different_photos_are_refused_and_the_photos_named():
    other = table_for_test(1).replace({"ImageID": {"a.jpg": "z.jpg"}})
    with pytest.raises(ValueError, match=r"2 are in one only: \['a\.jpg', 'z\.jpg'\]"):
        weighted_mean([table_for_test(0), other], [1, 1], "ImageID")


def test_files_that_disagree_about_labels_are_refused():
    with pytest.raises(ValueError, match="different labels for the same photos"):
        weighted_mean([table_for_test_val(0), table_for_test_val(1).assign(label=[3, 16])], [1, 1], "path")


def test_a_probability_file_comes_back_bit_for_bit(output):
    found = read_probabilities(inference(output, "first", "test"), "ImageID")
    pd.testing.assert_frame_equal(found, table_for_test(0), check_dtype=False, check_exact=True)


def test_ids_that_look_like_numbers_stay_text(tmp_path):
    path = files.write_csv(table_for_test().assign(ImageID=["007", "1e5", "12"]), tmp_path / "run.test.csv")
    assert read_probabilities(path, "ImageID")["ImageID"].tolist() == ["007", "1e5", "12"]


FAULTS = {
    "a missing number": lambda table: table.assign(p05=[0.1, np.nan, 0.2]),
    "a negative number": lambda table: table.assign(p00=[-1.0, 0.5, 0.5]),
    "sums that are not 1": lambda table: table.assign(p00=table["p00"] + 0.1),
    "17 columns": lambda table: table.drop(columns="p17"),
    "a column too much": lambda table: table.assign(p18=0.0),
    "columns out of order": lambda table: table[["ImageID", *reversed(COLUMNS)]],
    "an id twice": lambda table: table.assign(ImageID=["c.jpg", "a.jpg", "c.jpg"]),
    "no ids": lambda table: table.drop(columns="ImageID"),
    "words": lambda table: table.assign(p03="high"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_by_name(output, fault):
    path = files.write_csv(FAULTS[fault](table_for_test()), inference(output, "first", "test"))
    with pytest.raises(ValueError, match=r"first\.test\.csv: "):
        read_probabilities(path, "ImageID")
    with pytest.raises(ValueError, match=r"first\.test\.csv: "):
        read_members(output, [], [], [])


@pytest.mark.parametrize("label", [-1, 18])
def test_a_label_that_is_none_is_refused_by_file(output, label):
    path = files.write_csv(table_for_test_val().assign(label=[3, label]), inference(output, "first", "test_val"))
    with pytest.raises(ValueError, match=r"first\.test_val\.csv: "):
        read_probabilities(path, "path")


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "run.test.csv").touch()
    with pytest.raises(ValueError, match=r"run\.test\.csv: "):
        read_probabilities(tmp_path / "run.test.csv", "ImageID")


def test_a_table_without_rows_is_read_as_one(tmp_path):
    """What inference writes as test_val when no people were held out."""
    path = files.write_csv(table_for_test_val().iloc[:0], tmp_path / "run.test_val.csv")
    assert len(read_probabilities(path, "path")) == 0


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.test\.csv: run 06_inference for that run first"):
        read_probabilities(tmp_path / "gone.test.csv", "ImageID")


def test_empty_lists_stand_for_every_file_with_equal_weights(output):
    (output / "inferences" / ".first.test.0f0f.tmp.csv").write_text("of a killed process")
    members = read_members(output, [], [], [])
    assert members.names == ["first", "second.b"]
    assert members.weights == [1.0, 1.0]
    for which, made in (("test", table_for_test), ("test_val", table_for_test_val)):
        for seed, table in enumerate(members.tables[which]):
            pd.testing.assert_frame_equal(table, made(seed), check_dtype=False)
    expected = (table_for_test(0)[COLUMNS] + table_for_test(1)[COLUMNS]) / 2
    np.testing.assert_allclose(members.mean("test")[COLUMNS], expected)
    assert members.mean("test_val")["label"].tolist() == LABELS


def test_lists_choose_the_members_and_their_order(output):
    names = [[inference(output, run, which) for run in ("second.b", "first")] for which in ("test", "test_val")]
    members = read_members(output, *names, [3, 1])
    assert (members.names, members.weights) == (["second.b", "first"], [3.0, 1.0])
    np.testing.assert_array_equal(members.tables["test"][0][COLUMNS], table_for_test(1)[COLUMNS])


@pytest.mark.parametrize(
    ("runs", "held_out_runs"),
    [(["first", "second.b"], ["second.b", "first"]), (["first"], []), ([], ["first"]), (["first"], ["second.b"])],
)
def test_lists_that_name_different_runs_are_refused(output, runs, held_out_runs):
    with pytest.raises(ValueError, match="must name the same runs in the same order"):
        read_members(
            output,
            [inference(output, run, "test") for run in runs],
            [inference(output, run, "test_val") for run in held_out_runs],
            [],
        )


@pytest.mark.parametrize(
    ("test", "test_val", "names"),
    [
        (["a_test.csv", "b_test.csv"], ["a_val.csv", "b_val.csv"], ["a_test", "b_test"]),
        (["x/test.csv", "y/test.csv"], ["x/test_val.csv", "y/test_val.csv"], ["x/test", "y/test"]),
        (["x/one.test.csv", "y/one.test.csv"], ["x/one.test_val.csv", "y/one.test_val.csv"], ["x/one", "y/one"]),
        (["deep.csv", "wide.test.csv"], ["held_out.csv", "wide.test_val.csv"], ["deep", "wide"]),
        (["net.v2.csv"], ["net.v2.val.csv"], ["net.v2"]),
    ],
)
def test_files_of_other_names_are_paired_by_their_places(output, test, test_val, names):
    for seed, (first, second) in enumerate(zip(test, test_val, strict=True)):
        files.write_csv(table_for_test(seed), output / first)
        files.write_csv(table_for_test_val(seed), output / second)
    given = [[str(output / name) for name in some] for some in (test, test_val)]
    members = read_members(output, *given, [2, 1][: len(test)])
    assert members.names == names and members.weights == [2.0, 1.0][: len(test)]
    for seed, table in enumerate(members.tables["test_val"]):
        pd.testing.assert_frame_equal(table, table_for_test_val(seed), check_dtype=False)


def test_a_file_whose_stem_happens_to_be_a_runs_name_is_not_taken_for_the_runs_own(output):
    for name, table in (("first.csv", table_for_test()), ("first_val.csv", table_for_test_val())):
        files.write_csv(table, output / "inferences" / name)
    stray = [[str(output / "inferences" / name)] for name in ("first.csv", "first_val.csv")]
    assert read_members(output, *stray, []).own == [False]
    real = [[inference(output, "first", which)] for which in ("test", "test_val")]
    assert read_members(output, *real, []).own == [True]


def test_a_member_without_its_held_out_file_is_named(output):
    Path(inference(output, "first", "test_val")).unlink()
    with pytest.raises(FileNotFoundError, match=r"first\.test_val\.csv: run 06_inference"):
        read_members(output, [], [], [])


def test_no_files_at_all_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run 06_inference first"):
        read_members(tmp_path, [], [], [])


def test_too_few_weights_are_refused_when_averaging(output):
    with pytest.raises(ValueError, match="2 files but 1 weights"):
        read_members(output, [], [], [1]).mean("test")


def test_people_come_from_the_split():
    split = pd.DataFrame({"path": [*PATHS, "p3/normal.jpg"], "person": ["p2", "p1", "p3"]})
    assert with_person(table_for_test_val(), split)["person"].tolist() == ["p2", "p1"]


def test_photos_the_split_lacks_are_named():
    split = pd.DataFrame({"path": PATHS[:1], "person": ["p2"]})
    with pytest.raises(ValueError, match=r"not in the split: \['p1/mask1\.jpg'\]; run 06_inference again"):
        with_person(table_for_test_val(), split)


def test_every_member_and_the_ensemble_are_scored(output):
    members = read_members(output, [], [], [])
    certain = np.eye(CLASS_COUNT)[LABELS]
    members.tables["test_val"][1][COLUMNS] = certain
    split = pd.DataFrame({"path": PATHS, "person": ["p2", "p1"]})
    whole = with_person(members.mean("test_val"), split)
    found = member_intervals(members, whole)
    assert list(found) == ["first", "second.b", "ensemble"]
    assert found["second.b"].loc["accuracy", "value"] == 1
    assert found["first"].loc["accuracy", "value"] < 1


def test_a_single_member_is_not_scored_twice(output):
    names = [[inference(output, "first", which)] for which in ("test", "test_val")]
    members = read_members(output, *names, [])
    whole = with_person(members.mean("test_val"), pd.DataFrame({"path": PATHS, "person": ["p2", "p1"]}))
    assert list(member_intervals(members, whole)) == ["first"]


def test_a_submission_answers_with_the_likeliest_class():
    table = table_for_test()
    found = make_submission(table, IDS)
    assert found["ImageID"].tolist() == IDS
    assert found["ans"].tolist() == table[COLUMNS].to_numpy().argmax(axis=1).tolist()


# The five faults that the contest's own id list and the 18 classes give away, with the culprit in the message.
WRONG_FILES = {
    "reordered": (lambda table: table.iloc[[1, 0, 2]], r"row 0 is a\.jpg, but info\.csv has c\.jpg there"),
    "duplicated": (lambda table: table.iloc[[0, 1, 2, 1]], r"ImageID 'a\.jpg' stands on more than one row"),
    "missing": (lambda table: table.iloc[:2], r"compared with info\.csv it lacks 1 photos, such as \['b\.jpg'\]"),
    "too many": (
        lambda table: table.replace({"ImageID": {"b.jpg": "z.jpg"}}),
        r"compared with info\.csv it lacks 1 photos, such as \['b\.jpg'\]",
    ),
    "NaN": (
        lambda table: table.assign(p07=table["p07"].mask(table["ImageID"] == "b.jpg")),
        r"ImageID 'b\.jpg' has a probability that is missing",
    ),
    "17 columns": (lambda table: table.drop(columns="p17"), r"lacks p17"),
}


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_a_wrong_probability_file_is_refused_with_file_and_culprit(output, fault):
    """Of the second member: the first one's order must not be what it is held against."""
    change, complaint = WRONG_FILES[fault]
    files.write_csv(change(table_for_test(1)), inference(output, "second.b", "test"))
    with pytest.raises(ValueError, match=rf"second\.b\.test\.csv: .*{complaint}"):
        read_members(output, [], [], [], IDS)


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_no_submission_is_made_of_wrong_probabilities(fault):
    change, complaint = WRONG_FILES[fault]
    with pytest.raises(ValueError, match=complaint):
        make_submission(change(table_for_test()), IDS)


def test_sound_files_pass_the_check_against_info_csv(output):
    assert read_members(output, [], [], [], IDS).names == ["first", "second.b"]


def test_held_out_files_in_another_order_are_refused(output):
    files.write_csv(table_for_test_val(1).iloc[::-1], inference(output, "second.b", "test_val"))
    with pytest.raises(ValueError, match=r"second\.b\.test_val\.csv: row 0 is p1/mask1\.jpg, but first\.test_val\.csv"):
        read_members(output, [], [], [])


def answers(ids=IDS, ans=(0, 17, 9)) -> pd.DataFrame:
    return pd.DataFrame({"ImageID": list(ids), "ans": list(ans)})


def test_a_sound_submission_passes():
    assert check_submission(answers(), IDS) is None


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (answers().rename(columns={"ans": "label"}), "has the columns ImageID, ans; this one has ImageID, label"),
        (answers()[["ans", "ImageID"]], "has the columns ImageID, ans; this one has ans, ImageID"),
        (answers().assign(extra=1), "this one has ImageID, ans, extra"),
        (answers(["c.jpg", "a.jpg", "c.jpg"]), r"1 ids stand twice, such as \['c\.jpg'\]"),
        (answers().iloc[:2], r"2 rows, but info\.csv has 3"),
        (answers([*IDS, "d.jpg"], [1, 2, 3, 4]), r"4 rows, but info\.csv has 3"),
        (answers(["c.jpg", "b.jpg", "a.jpg"]), r"row 1 answers b\.jpg, but info\.csv has a\.jpg there"),
        (answers(ans=[0, 18, 1]), "whole number from 0 to 17"),
        (answers(ans=[0, -1, 1]), "whole number from 0 to 17"),
        (answers(ans=[0, 1.5, 1]), "whole number from 0 to 17"),
        (answers(ans=[0, np.nan, 1]), "whole number from 0 to 17"),
        (answers(ans=["0", "1", "2"]), "whole number from 0 to 17"),
    ],
)
def test_a_submission_that_the_contest_would_reject_is_refused(found, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_submission(found, IDS)


def test_held_out_photos_are_judged_by_todays_labels_and_without_those_dropped_since():
    table = pd.DataFrame({"path": ["a", "b", "c"], "label": [0, 1, 2]})
    found = with_labels(table, pd.Series({"c": 5, "a": 0}))
    assert found.to_numpy().tolist() == [["a", 0], ["c", 5]]
