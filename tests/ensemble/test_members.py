"""Files and runs of the members are aligned photo by photo, and only a submission as the contest wants it gets out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import past_runs
import pytest
import simulated

from mask_lib.base import files
from mask_lib.data import clean_labels
from mask_lib.data.splits import make_splits, read_splits, write_splits
from mask_lib.ensemble import members
from mask_lib.ensemble.members import probabilities_of, read_members, read_out_of_fold

IDS = ["c.jpg", "a.jpg", "b.jpg"]
PATHS = ["p2/mask1.jpg", "p1/mask1.jpg"]


def evaluated(seed: int = 0) -> pd.DataFrame:
    return simulated.with_random(pd.DataFrame({"ImageID": IDS}), seed)


def held_out(seed: int = 0) -> pd.DataFrame:
    return simulated.with_random(pd.DataFrame({"path": PATHS, "label": [3, 17]}), seed)


@pytest.fixture
def output(tmp_path) -> Path:
    """An output folder with the inferences of two runs."""
    for seed, run in enumerate(["first", "second.b"]):
        files.write_csv(evaluated(seed), inference(tmp_path, run, "test"))
        files.write_csv(held_out(seed), inference(tmp_path, run, "test_val"))
    return tmp_path


def inference(output: Path, run: str, which: str) -> Path:
    return output / "inferences" / f"{run}.{which}.csv"


# What the contest's own ids and classes give away, with the culprit in the message.
FAULTS = {
    "reordered": (lambda table: table.iloc[[1, 0, 2]], r"row 0 is a\.jpg, but info\.csv has c\.jpg there"),
    "an id twice": (lambda table: table.iloc[[0, 1, 2, 1]], r"ImageID 'a\.jpg' stands on more than one row"),
    "missing": (lambda table: table.iloc[:2], r"compared with info\.csv it lacks 1 photos, such as \['b\.jpg'\]"),
    "unknown": (lambda table: table.replace("b.jpg", "z.jpg"), r"info\.csv it lacks 1 photos, such as \['b\.jpg'\]"),
    "17 columns": (lambda table: table.drop(columns="p17"), "lacks .*p17"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_probabilities_are_refused_with_file_and_culprit_and_make_no_submission(output, fault):
    """Of the second member: the first one's order must not be what it is held against."""
    change, complaint = FAULTS[fault]
    files.write_csv(change(evaluated(1)), inference(output, "second.b", "test"))
    with pytest.raises(ValueError, match=rf"second\.b\.test\.csv.*{complaint}"):
        read_members(output, ids=IDS)
    with pytest.raises(ValueError, match=complaint):
        members.make_submission(change(evaluated()), IDS)


def test_labels_that_are_none_are_refused_by_file(output):
    files.write_csv(held_out().assign(label=[3, 18]), inference(output, "first", "test_val"))
    with pytest.raises(ValueError, match=r"first\.test_val\.csv: .* label"):
        read_members(output)


def test_a_missing_file_says_what_to_run(output):
    with pytest.raises(FileNotFoundError, match=r"inferences/\*\.test\.csv: run 06_inference first"):
        read_members(output / "elsewhere")
    inference(output, "first", "test_val").unlink()
    with pytest.raises(FileNotFoundError, match=r"first\.test_val\.csv: run 06_inference for that run first"):
        read_members(output)


def test_without_names_every_file_is_a_member_and_names_choose_members_and_their_order(output):
    (output / "inferences" / ".first.test.0f0f.tmp.csv").write_text("of a killed process")
    found = read_members(output, ids=IDS)
    assert found.names == ["first", "second.b"] and found.own == [True, True]
    for which, made in (("test", evaluated), ("test_val", held_out)):
        np.testing.assert_array_equal(found.stack(which), [probabilities_of(made(seed)) for seed in range(2)])
    names = [[inference(output, run, which) for run in ("second.b", "first")] for which in ("test", "test_val")]
    turned = read_members(output, *names)
    assert turned.names == ["second.b", "first"]
    np.testing.assert_array_equal(turned.stack("test"), found.stack("test")[::-1])


@pytest.mark.parametrize(
    ("runs", "others"),
    [(["first", "second.b"], ["second.b", "first"]), (["first"], []), ([], ["first"]), (["first"], ["second.b"])],
)
def test_lists_that_name_different_runs_are_refused(output, runs, others):
    lists = [[inference(output, run, "test") for run in runs], [inference(output, run, "test_val") for run in others]]
    with pytest.raises(ValueError, match="must name the same runs in the same order"):
        read_members(output, *lists)


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
        files.write_csv(evaluated(seed), output / first)
        files.write_csv(held_out(seed), output / second)
    found = read_members(output, *([str(output / name) for name in some] for some in (test, test_val)))
    assert found.names == names and not any(found.own)
    for seed, table in enumerate(found.tables["test_val"]):
        pd.testing.assert_frame_equal(table, held_out(seed), check_dtype=False)


def test_members_need_names_of_their_own_and_a_stem_like_a_runs_name_makes_no_run(output):
    twice = [[inference(output, "first", which)] * 2 for which in ("test", "test_val")]
    with pytest.raises(ValueError, match="each member needs a name of its own"):
        read_members(output, *twice)
    stray = files.write_csv(evaluated(), output / "inferences" / "first.csv")
    stray_val = files.write_csv(held_out(), output / "inferences" / "first_val.csv")
    assert read_members(output, [stray], [stray_val]).own == [False]


def test_held_out_photos_have_todays_labels_and_people_without_dropped_ones_and_all_one_order(output):
    today = pd.DataFrame({"path": [PATHS[1], "p3/normal.jpg"], "person": ["p1", "p3"], "label": [5, 12]})
    for table in read_members(output, split=today).tables["test_val"]:
        assert table[["path", "label", "person"]].to_numpy().tolist() == [[PATHS[1], 5, "p1"]]
    files.write_csv(held_out(1).iloc[::-1], inference(output, "second.b", "test_val"))
    with pytest.raises(ValueError, match=r"second\.b\.test_val\.csv: row 0 is p1/mask1\.jpg, but first\.test_val\.csv"):
        read_members(output)


RUNS = ["deep", "second.b", "wide"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three finished runs, the folds of the first with their rows in an order of their own."""
    made = tmp_path_factory.mktemp("made")
    past_runs.prepare(made)
    for seed, run in enumerate(RUNS):
        past_runs.write_run(made, run, seed=seed)
    for fold in range(past_runs.FOLDS):
        table = pd.read_csv(oof(made, "deep", fold))
        files.write_csv(table.sample(frac=1, random_state=0), oof(made, "deep", fold))
    return made


@pytest.fixture
def experiment(made, tmp_path) -> Path:
    """A copy, to be changed by a test."""
    return shutil.copytree(made, tmp_path / "experiment")


def oof(output: Path, run: str, fold: int) -> Path:
    return output / "runs" / run / f"fold{fold}" / "oof.csv"


def test_every_member_speaks_of_the_same_photo_in_the_same_row(experiment):
    found, split = read_out_of_fold(experiment, RUNS), read_splits(experiment)[0]
    assert found.names == RUNS and found.fold_count == past_runs.FOLDS
    assert found.probabilities.shape == (3, len(found.photos), 18)
    assert set(found.photos["path"]) == set(split["path"][split["split"] != "test_val"])
    known = split.set_index("path").loc[found.photos["path"]]
    assert found.person.tolist() == known["person"].tolist() and found.truth.tolist() == known["label"].tolist()
    for member, run in enumerate(RUNS):
        written = pd.concat([pd.read_csv(oof(experiment, run, fold)) for fold in range(past_runs.FOLDS)])
        expected = probabilities_of(written.set_index("path").loc[found.photos["path"]])
        np.testing.assert_array_equal(found.probabilities[member], expected)


def test_labels_are_those_of_today_and_dropped_photos_have_none(experiment):
    dropped, relabeled = pd.read_csv(oof(experiment, "wide", 0))["path"].iloc[[0, 5]]
    everyone = read_splits(experiment)[0][["path", "label"]].rename(columns={"label": "class"})
    everyone.loc[everyone["path"] == relabeled, "class"] = 17
    apart = everyone["path"] == dropped
    clean_labels.write(everyone[~apart], everyone[apart], experiment)
    # A run that was trained after cleaning goes with those of before.
    files.write_csv(pd.read_csv(oof(experiment, "wide", 0)).iloc[1:], oof(experiment, "wide", 0))
    found = read_out_of_fold(experiment, RUNS)
    assert dropped not in set(found.photos["path"])
    assert found.photos.set_index("path")["label"][relabeled] == 17


def test_people_who_share_copies_are_one(experiment):
    photos = read_splits(experiment)[0].drop(columns="split")
    people = sorted(set(photos["person"]))
    groups = pd.Series(people, index=people).replace({people[1]: people[0]})
    write_splits(make_splits(photos, past_runs.FOLDS, 0.1, 0, groups), experiment, groups)
    past_runs.write_run(experiment, "deep")
    assert people[1] not in set(read_out_of_fold(experiment, ["deep"]).person)


@pytest.mark.parametrize("stranger", RUNS)
def test_who_was_validated_on_other_photos_than_most_is_named(experiment, stranger):
    files.write_csv(pd.read_csv(oof(experiment, stranger, 1)).iloc[2:], oof(experiment, stranger, 1))
    with pytest.raises(ValueError, match=f"run {stranger} was validated on other photos .* lacks 2 and has 0 more"):
        read_out_of_fold(experiment, RUNS)


def test_a_run_of_fewer_folds_is_named_among_others_and_stands_alone(experiment):
    past_runs.write_run(experiment, "wide", trained=(0,))  # the folders of the other folds are of before
    with pytest.raises(ValueError, match="run wide was validated on other photos"):
        read_out_of_fold(experiment, RUNS)
    alone = read_out_of_fold(experiment, ["wide"])
    assert len(alone.photos) == len(pd.read_csv(oof(experiment, "wide", 0))) and alone.fold_count == 1


def test_what_is_wrong_with_a_run_is_said_with_its_name(experiment):
    photos = read_splits(experiment)[0].drop(columns="split")
    write_splits(make_splits(photos[photos["person"] != "001"], past_runs.FOLDS, 0.1), experiment)
    with pytest.raises(ValueError, match="run deep: 4 of its photos are not in"):
        read_out_of_fold(experiment, RUNS)
    faulty = pd.read_csv(oof(experiment, "second.b", 2)).assign(p04=np.nan)
    files.write_csv(faulty, oof(experiment, "second.b", 2))
    with pytest.raises(ValueError, match=r"second\.b/fold2/oof\.csv: .* probability that is missing"):
        read_out_of_fold(experiment, RUNS[1:])
    (experiment / "runs" / "deep" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match="deep holds no finished run"):
        read_out_of_fold(experiment, RUNS)
