"""Tables of what was run, differences that say how sure they are, and photos on which two runs disagree."""

import dataclasses

import numpy as np
import past_runs
import pytest

from mask_lib.base import scores
from mask_lib.training import comparison, run_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """strong, middling and weak, in this order; middling has two of three folds."""
    output = tmp_path_factory.mktemp("experiment")
    past_runs.prepare(output)
    past_runs.write_run(output, "weak", right=0.2)
    past_runs.write_run(output, "strong", right=0.95, architecture="resnet50", learning_rate=0.01, batch_size=32)
    past_runs.write_run(output, "middling", right=0.6, seed=1, trained=(0, 2))
    return run_folder.find_runs([output])[0]


def test_the_settings_are_the_seeds_eight_columns_filled(runs):
    table = comparison.settings_table(runs)
    seeds = ["model", "device", "image_size", "epochs", "k_fold", "batch_size", "learning_rate", "momentum"]
    assert list(table) == ["run", *seeds, "folds", "head", "label_source"]
    ours = [2, 3, 32, 0.01, 0.9, 3, "linear", "clean"]
    assert list(table.iloc[0]) == ["strong", "resnet50", "CPU, 2 threads", "96 x 128", *ours]
    assert list(table["folds"]) == [3, 2, 3]


def test_the_scores_are_those_of_the_runs_with_interval_time_pace_and_memory(runs):
    table = comparison.score_table(runs)
    assert list(table["run"]) == ["strong", "middling", "weak"]
    assert table["macro_f1"].is_monotonic_decreasing
    row = table.iloc[0]
    truth, predicted = scores.from_probabilities(runs[0].out_of_fold)
    assert row["accuracy"] == pytest.approx(np.mean(truth == predicted))
    assert [row["macro_f1"], row["macro_f1_low"], row["macro_f1_high"]] == list(runs[0].intervals.loc["macro_f1"])
    assert row["photos"] == len(runs[0].out_of_fold)
    assert (row["training_seconds"], row["photos_per_second"], row["peak_memory_bytes"]) == (90.0, 120.4, 2.5e9)


def test_people_read_intervals_minutes_and_gigabytes_and_nothing_where_an_older_run_did_not_note_them(runs):
    row = comparison.for_people(comparison.score_table(runs)).iloc[0]
    assert row["macro F1"] == str(scores.Score(*runs[0].intervals.loc["macro_f1"]))
    assert (row["training, minutes"], row["photos/s"], row["peak memory, GB"]) == (1.5, 120, 2.5)
    known = {key: value for key, value in runs[0].scores.items() if key != "peak_memory_bytes"}
    older = comparison.score_table([dataclasses.replace(runs[0], scores=known)])
    assert comparison.for_people(older)["peak memory, GB"].isna().all()


def test_each_pair_has_a_row_for_each_metric_and_the_better_run_is_b(runs):
    table = comparison.differences(runs, draws=200)
    assert list(table) == comparison.DIFFERENCE_COLUMNS
    assert [*zip(table["a"], table["b"], table["metric"], strict=True)] == [
        (a, b, metric)
        for a, b in (("middling", "strong"), ("weak", "strong"), ("weak", "middling"))
        for metric in ("macro_f1", "accuracy")
    ]
    assert (table["difference"] > 0).all()
    assert table["real"].all()


def test_a_difference_is_that_of_a_paired_bootstrap_of_people_on_the_common_photos_wide_enough_for_all_pairs(runs):
    """Of many intervals of 95% some lie beside 0 by chance, so of four runs each of the six pairs has a sixth of 5%."""
    twin = dataclasses.replace(runs[1], name="twin")
    table = comparison.differences([*runs, twin], draws=1000).set_index(["a", "b"])
    strong, middling, _ = runs
    both = strong.out_of_fold[strong.out_of_fold["path"].isin(middling.out_of_fold["path"])].set_index("path")
    answers = [run.out_of_fold.set_index("path").loc[both.index] for run in (middling, strong)]
    truth, predicted = both["label"], [scores.from_probabilities(one)[1] for one in answers]
    expected = scores.paired_bootstrap(truth, *predicted, both["person"], draws=1000, level=1 - 0.05 / 6)
    of_pair = table.loc[("middling", "strong")].set_index("metric")
    for metric in ("macro_f1", "accuracy"):
        found = of_pair.loc[metric, ["difference", "low", "high", "p"]].astype(float)
        np.testing.assert_allclose(found, expected.loc[metric, list(found.index)])
        assert of_pair.loc[metric, "photos"] == len(both) < len(strong.out_of_fold)
        assert of_pair.loc[metric, "people"] == both["person"].nunique()
    of_equals = table.loc[("twin", "middling")]
    assert (of_equals["difference"] == 0).all() and not of_equals["real"].any()


def test_runs_on_clean_and_on_given_labels_tell_whether_cleaning_helped_on_photos_that_it_left_alone():
    """Of the two photos with a wrong label one was cleaned; the other and its person still teach wrongly."""
    paths = [f"{person}{photo}" for person in "abcdefgh" for photo in (1, 2)]
    given = [(path, 9 if path == "a1" else 3, 9 if path[0] in "ab" else 3, 0.9) for path in paths]
    clean = [(path, 3, 3, 0.9) for path in paths[::-1]]  # in another order
    before = past_runs.invented("before", given, label_source="given")
    table = comparison.differences([past_runs.invented("after", clean), before], draws=200).set_index("metric")
    assert (table["photos"] == 15).all() and (table["a"] == "before").all()
    assert table.loc["accuracy", "difference"] == pytest.approx(3 / 15)
    said = comparison.difference_summary(table.reset_index())
    assert said.startswith("Macro F1 of after less that of before: +0.0")


def test_a_pair_without_common_photos_has_no_difference():
    one, other = (past_runs.invented(name, [(f"{name}1", 3, 3, 0.9)]) for name in "xy")
    table = comparison.differences([one, other])
    assert table["difference"].isna().all() and not table["real"].any()
    assert list(table["photos"]) == [0, 0]
    assert comparison.verdict([one, other], table).endswith("With y it shares no photo, so nothing can be said.")
    assert comparison.difference_summary(table) == "Macro F1 of x less that of y: they share no photo."


def test_one_run_alone_is_compared_with_nothing():
    only = past_runs.invented("x", [("a1", 3, 3, 0.9)])
    table = comparison.differences([only])
    assert table.empty and list(table) == comparison.DIFFERENCE_COLUMNS
    assert comparison.chosen_pair([only]) == (only,)
    assert comparison.disagreements((only,)).empty
    assert comparison.difference_summary(table) == ""
    assert comparison.verdict([only], table) == "Only one run is finished: **x**, macro F1 0.500 (0.400 to 0.600)."


def test_a_run_that_is_not_named_is_the_best_left_that_shares_photos_if_any_does(runs):
    def pair(finished, *named: str) -> list[str]:
        return [run.name for run in comparison.chosen_pair(finished, *named)]

    assert pair(runs) == ["strong", "middling"]
    assert pair(runs, "weak") == ["weak", "strong"]
    assert pair(runs, "", "strong") == ["middling", "strong"]
    assert pair(runs, "weak", "middling") == ["weak", "middling"]
    x, y, z = (past_runs.invented(name, [(path, 3, 3, 0.9)]) for name, path in (("x", "a1"), ("y", "b1"), ("z", "a1")))
    assert pair([x, y, z]) == pair([x, y, z], "", "z") == ["x", "z"]
    assert pair([x, y]) == ["x", "y"]


def test_names_that_cannot_be_compared_are_refused(runs):
    with pytest.raises(ValueError, match="no finished run is called 'strng'; there are strong, middling, weak"):
        comparison.chosen_pair(runs, "strng")
    with pytest.raises(ValueError, match="both 'weak'"):
        comparison.chosen_pair(runs, "weak", "weak")


def test_disagreements_are_those_one_gets_right_the_surest_first():
    first = past_runs.invented(
        "x", [("a1", 3, 3, 0.9), ("a2", 4, 4, 0.8), ("b1", 5, 6, 0.9), ("b2", 7, 7, 0.9), ("c1", 8, 0, 0.9)]
    )
    second = past_runs.invented(
        "y", [("a1", 3, 2, 0.6), ("a2", 4, 1, 0.9), ("b1", 5, 5, 0.7), ("b2", 7, 7, 0.9), ("c1", 8, 1, 0.9)]
    )
    table = comparison.disagreements((first, second))
    assert list(table) == comparison.DISAGREEMENT_COLUMNS
    assert list(table["path"]) == ["a2", "b1", "a1"]  # 0.72, 0.63, 0.54; both right or both wrong: nowhere
    assert list(table["right_run"]) == ["x", "y", "x"]
    assert list(table["wrong_run"]) == ["y", "x", "y"]
    assert list(table["wrong"]) == [1, 6, 2]
    assert list(table["right_sure"]) == pytest.approx([0.8, 0.7, 0.9])
    assert list(table["wrong_sure"]) == pytest.approx([0.9, 0.9, 0.6])


def test_the_verdict_names_the_beaten_and_those_that_cannot_be_told_apart_or_lead_by_easier_photos(runs):
    table = comparison.differences(runs, draws=200)
    assert "It is really better than middling, weak." in comparison.verdict(runs, table)
    words = comparison.verdict(runs, table.assign(real=table["real"] & (table["a"] != "middling")))
    assert words.startswith("The best of 3 runs is **strong**")
    assert "really better than weak. From middling it cannot be told apart" in words
    turned = table.assign(difference=-table["difference"], low=-table["high"], high=-table["low"])
    words = comparison.verdict(runs, turned)
    assert "On the photos they share it is really worse than middling, weak." in words
    assert "cannot be told apart" not in words and "really better" not in words
