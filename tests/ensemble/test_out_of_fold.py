"""Out-of-fold tables of several runs are laid side by side photo by photo, and strangers are named."""

from pathlib import Path

import numpy as np
import opinions
import pandas as pd
import pytest

from mask_lib.base import files
from mask_lib.data import clean_labels
from mask_lib.data.splits import make_splits, read_splits, write_splits
from mask_lib.ensemble import blending
from mask_lib.ensemble.members import Members, read_out_of_fold

RUNS = ["first", "second.b", "third"]
PEOPLE = 12


def write_run(output: Path, run: str, splits: dict[int, pd.DataFrame], seed: int, **settings) -> None:
    """What a finished run leaves, each fold's rows in an order of its own."""
    generator = np.random.default_rng(seed)
    for fold, split in splits.items():
        table = split.loc[split["split"] == "val", ["path", "label"]].reset_index(drop=True)
        values = generator.dirichlet(np.ones(18), len(table))
        table = table.join(pd.DataFrame(values, columns=opinions.COLUMNS)).sample(frac=1, random_state=seed)
        files.write_csv(table, output / "runs" / run / f"fold{fold}" / "oof.csv")
    files.write_json({"run": run, "folds": [], **settings}, output / "runs" / run / "config.json")
    files.write_json({"folds": [{"fold": fold} for fold in splits]}, output / "runs" / run / "scores.json")


@pytest.fixture
def splits() -> dict[int, pd.DataFrame]:
    photos = opinions.people(PEOPLE, np.random.default_rng(0))
    return make_splits(photos, fold_count=3, test_val_share=0.2)


@pytest.fixture
def output(tmp_path, splits) -> Path:
    write_splits(splits, tmp_path)
    for seed, run in enumerate(RUNS):
        write_run(tmp_path, run, splits, seed)
    return tmp_path


def oof(output: Path, run: str, fold: int) -> Path:
    return output / "runs" / run / f"fold{fold}" / "oof.csv"


def test_every_member_speaks_of_the_same_photo_in_the_same_row(output, splits):
    found = read_out_of_fold(output, RUNS)
    assert found.names == RUNS
    assert found.probabilities.shape == (3, len(found.photos), 18)
    held_out = splits[0]["path"][splits[0]["split"] == "test_val"]
    assert set(found.photos["path"]) == set(splits[0]["path"]) - set(held_out)
    known = splits[0].set_index("path")
    for column in ("person", "label"):
        assert found.photos[column].tolist() == known.loc[found.photos["path"], column].tolist()
    for member, run in enumerate(RUNS):
        written = pd.concat([pd.read_csv(oof(output, run, fold)) for fold in splits]).set_index("path")
        expected = written.loc[found.photos["path"], opinions.COLUMNS]
        np.testing.assert_array_equal(found.probabilities[member], expected)
    assert found.truth.dtype == np.int64 and len(found.person) == len(found.truth)


def test_labels_are_those_of_today_and_dropped_photos_have_none(output, splits):
    everyone = splits[0][["path", "label"]].rename(columns={"label": "class"})
    dropped, relabeled = (splits[0]["path"][splits[0]["split"] != "test_val"].iloc[row] for row in (0, 8))
    everyone.loc[everyone["path"] == relabeled, "class"] = 17
    apart = everyone["path"] == dropped
    clean_labels.write(everyone[~apart], everyone[apart], output)
    found = read_out_of_fold(output, RUNS)
    assert dropped not in set(found.photos["path"])
    assert found.photos.set_index("path")["label"][relabeled] == 17


def test_a_run_trained_without_a_photo_that_was_dropped_later_goes_with_the_others(output, splits):
    everyone = splits[0][["path", "label"]].rename(columns={"label": "class"})
    dropped = splits[0]["path"][splits[0]["split"] == "val"].iloc[0]
    apart = everyone["path"] == dropped
    clean_labels.write(everyone[~apart], everyone[apart], output)
    write_run(output, "third", clean_labels.read_clean_splits(output), 9)
    assert dropped not in set(read_out_of_fold(output, RUNS).photos["path"])


@pytest.mark.parametrize("stranger", RUNS)
def test_who_was_validated_on_other_photos_than_most_is_named(output, splits, stranger):
    table = pd.read_csv(oof(output, stranger, 1))
    files.write_csv(table.iloc[2:], oof(output, stranger, 1))
    with pytest.raises(ValueError, match=f"run {stranger} was validated on other photos .* lacks 2 and has 0 more"):
        read_out_of_fold(output, RUNS)


def test_a_run_of_fewer_folds_is_named(output, splits):
    write_run(output, "third", {0: splits[0]}, 2, folds=[0])
    with pytest.raises(ValueError, match="run third was validated on other photos"):
        read_out_of_fold(output, RUNS)
    alone = read_out_of_fold(output, ["third"])
    assert len(alone.photos) == (splits[0]["split"] == "val").sum()


def test_only_the_folds_that_the_scores_are_of_are_read(output, splits):
    """An earlier run of more folds may have left a folder."""
    files.write_json({"folds": [{"fold": 0}, {"fold": 2}]}, output / "runs" / "first" / "scores.json")
    oof(output, "first", 1).write_text("left by something else")
    found = read_out_of_fold(output, ["first"])
    assert len(found.photos) == sum((splits[fold]["split"] == "val").sum() for fold in (0, 2))


def test_a_run_that_is_not_finished_says_what_to_do(output):
    (output / "runs" / "third" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match="third holds no finished run: run 03_one_model"):
        read_out_of_fold(output, RUNS)


def test_a_lost_fold_is_named(output):
    files.write_json({"run": "first", "folds": [0, 1, 2]}, output / "runs" / "first" / "config.json")
    oof(output, "first", 1).unlink()
    with pytest.raises(FileNotFoundError, match=r"fold1/oof\.csv: run 03_one_model for first again"):
        read_out_of_fold(output, RUNS)


def test_a_photo_in_two_folds_is_named(output):
    files.write_csv(pd.read_csv(oof(output, "first", 0)), oof(output, "first", 1))
    with pytest.raises(ValueError, match=r"runs/first: photos validated in two folds"):
        read_out_of_fold(output, RUNS)


def test_a_faulty_table_is_named(output):
    table = pd.read_csv(oof(output, "second.b", 2))
    files.write_csv(table.assign(p04=np.nan), oof(output, "second.b", 2))
    with pytest.raises(ValueError, match=r"second\.b/fold2/oof\.csv: .* probability that is missing"):
        read_out_of_fold(output, RUNS)


def test_photos_that_are_no_longer_in_the_split_are_named(output):
    photos = opinions.people(PEOPLE - 1, np.random.default_rng(0))
    write_splits(make_splits(photos, fold_count=3, test_val_share=0), output)
    with pytest.raises(ValueError, match="not in the split, such as"):
        read_out_of_fold(output, RUNS)


def test_nobody_is_no_ensemble(output):
    with pytest.raises(ValueError, match="at least one member"):
        read_out_of_fold(output, [])


def members(output: Path, names: list[str], own: bool = True) -> Members:
    return Members(names, [1.0] * len(names), {}, [own] * len(names))


def test_a_file_from_elsewhere_is_not_judged_by_a_run_of_its_name(output):
    found, choice = blending.decide(output, members(output, ["first"], own=False), [])
    assert found is None and choice.reason.startswith("first cannot be judged")


def test_folds_of_an_earlier_larger_count_are_left_out(output, splits):
    stale = pd.read_csv(oof(output, "first", 0))
    files.write_csv(stale, oof(output, "first", 3))
    found = read_out_of_fold(output, ["first"])
    assert found.fold_count == 3 and len(found.photos) == found.photos["path"].nunique()


def test_people_who_share_copies_are_one(output, splits):
    people = sorted(set(splits[0]["person"]))
    groups = pd.Series(people, index=people).replace({people[1]: people[0]})
    write_splits(make_splits(splits[0].drop(columns="split"), 3, 0.2, 0, groups), output, groups)
    for seed, run in enumerate(RUNS):
        write_run(output, run, read_splits(output), seed)
    assert people[1] not in set(read_out_of_fold(output, RUNS).photos["person"])


def test_members_that_can_be_judged_get_the_best_weights_and_given_ones_are_taken(output):
    found, choice = blending.decide(output, members(output, RUNS), [])
    assert found.names == RUNS and choice.recipe.weights == pytest.approx((1 / 3,) * 3) and len(choice.table)
    found, choice = blending.decide(output, members(output, RUNS), [1.0, 0.0, 3.0])
    assert found.names == RUNS and choice.recipe.weights == (0.25, 0.0, 0.75)


def test_files_from_elsewhere_are_averaged_without_being_judged(output):
    found, choice = blending.decide(output, members(output, ["first", "stranger"]), [])
    assert found is None and choice.recipe.weights == (0.5, 0.5) and choice.out_of_fold is None
    assert choice.reason == "stranger cannot be judged, having no out-of-fold tables here: equal weights are taken."
    assert blending.decide(output, members(output, ["first", "stranger"]), [1.0, 3.0])[1].recipe.weights == (0.25, 0.75)
    with pytest.raises(ValueError, match="2 files but 1 weights"):
        blending.decide(output, members(output, ["first", "stranger"]), [1.0])
