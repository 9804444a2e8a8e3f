"""Tables of what was run, differences that say how sure they are, and photos on which two runs disagree."""

import numpy as np
import pandas as pd
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
    assert list(table) == [
        "run", "model", "device", "image_size", "epochs", "k_fold", "batch_size", "learning_rate", "momentum", "folds",
        "head", "label_source",
    ]  # fmt: skip
    ours = [2, 3, 32, 0.01, 0.9, 3, "linear", "clean"]
    assert list(table.iloc[0]) == ["strong", "resnet50", "CPU, 2 threads", "96 x 128", *ours]
    assert dict(zip(table["run"], table["folds"], strict=True)) == {"strong": 3, "middling": 2, "weak": 3}


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


def test_people_read_intervals_minutes_and_gigabytes(runs):
    row = comparison.for_people(comparison.score_table(runs)).iloc[0]
    assert row["macro F1"] == str(scores.Score(*runs[0].intervals.loc["macro_f1"]))
    assert (row["training, minutes"], row["photos/s"], row["peak memory, GB"]) == (1.5, 120, 2.5)


def test_a_cost_that_an_older_run_did_not_note_stays_empty(runs):
    known = {key: value for key, value in runs[0].scores.items() if key != "peak_memory_bytes"}
    older = run_folder.dataclasses.replace(runs[0], scores=known)
    table = comparison.score_table([older])
    assert table["peak_memory_bytes"].isna().all()
    assert comparison.for_people(table)["peak memory, GB"].isna().all()


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


def test_a_difference_is_that_of_a_paired_bootstrap_of_people_on_the_common_photos(runs):
    strong, middling, _ = runs
    table = comparison.differences([strong, middling], draws=300).set_index("metric")
    both = strong.out_of_fold[strong.out_of_fold["path"].isin(middling.out_of_fold["path"])].set_index("path")
    answers = [run.out_of_fold.set_index("path").loc[both.index] for run in (middling, strong)]
    truth, predicted = both["label"], [scores.from_probabilities(one)[1] for one in answers]
    expected = scores.paired_bootstrap(truth, *predicted, both["person"], draws=300)
    for metric in ("macro_f1", "accuracy"):
        found = table.loc[metric, ["difference", "low", "high", "p"]].astype(float)
        np.testing.assert_allclose(found, expected.loc[metric, list(found.index)])
        assert table.loc[metric, "photos"] == len(both) < len(strong.out_of_fold)
        assert table.loc[metric, "people"] == both["person"].nunique()


def test_among_more_pairs_an_interval_is_wider(runs):
    of_two = comparison.differences(runs[:2], draws=1000).iloc[0]
    of_three = comparison.differences(runs, draws=1000).iloc[0]
    assert list(of_two[["a", "b", "metric"]]) == list(of_three[["a", "b", "metric"]])
    assert of_three["low"] < of_two["low"] and of_two["high"] < of_three["high"]


def test_equal_runs_differ_by_nothing_real(runs):
    twin = run_folder.dataclasses.replace(runs[1], name="twin")
    table = comparison.differences([runs[1], twin], draws=100)
    assert (table["difference"] == 0).all()
    assert not table["real"].any()


def test_runs_that_differ_by_luck_are_seldom_called_different():
    """Six runs of one quality: fifteen pairs, of which plain 95% intervals would part some by chance."""
    generator, people = np.random.default_rng(5), 60
    truth = np.repeat(np.arange(people) % 18, 4)
    equal = []
    for name in "uvwxyz":
        answers = np.where(generator.random(len(truth)) < 0.7, truth, (truth + 1) % 18)
        paths = [f"{chr(65 + row // 4)}{row}" for row in range(len(truth))]
        equal.append(past_runs.invented(name, [*zip(paths, truth, answers, np.full(len(truth), 0.9), strict=True)]))
    assert not comparison.differences(equal, draws=1000)["real"].any()


def test_photos_whose_labels_differ_are_left_out():
    first = past_runs.invented("first", [("a1", 3, 3, 0.9), ("a2", 4, 4, 0.9), ("b1", 5, 5, 0.9), ("c1", 6, 6, 0.9)])
    second = past_runs.invented("second", [("c1", 6, 1, 0.6), ("a2", 9, 9, 0.9), ("a1", 3, 3, 0.8), ("d1", 7, 7, 0.9)])
    both = comparison.common(first, second)
    assert list(both["path"]) == ["a1", "c1"]
    assert list(both["predicted_a"]) == [3, 6] and list(both["predicted_b"]) == [3, 1]
    table = comparison.differences([first, second], draws=50)
    assert set(table["photos"]) == {2}


def test_runs_on_clean_and_on_given_labels_tell_whether_cleaning_helped_on_photos_that_it_left_alone():
    """Of the two photos with a wrong label one was cleaned; the other and its person still teach wrongly."""
    paths = [f"{person}{photo}" for person in "abcdefgh" for photo in (1, 2)]
    truth = [3] * 16
    given = [(path, 9 if path == "a1" else 3, 9 if path[0] in "ab" else 3, 0.9) for path in paths]
    clean = [(path, label, 3, 0.9) for path, label in zip(paths, truth, strict=True)]
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


@pytest.mark.parametrize(
    ("run_a", "run_b", "names"),
    [
        ("", "", ["strong", "middling"]),
        ("weak", "", ["weak", "strong"]),
        ("", "strong", ["middling", "strong"]),
        ("weak", "middling", ["weak", "middling"]),
    ],
)
def test_a_run_that_is_not_named_is_the_best_left(runs, run_a, run_b, names):
    assert [run.name for run in comparison.chosen_pair(runs, run_a, run_b)] == names


def test_the_other_run_shares_photos_with_the_first_if_any_does():
    x, y, z = (past_runs.invented(name, [(path, 3, 3, 0.9)]) for name, path in (("x", "a1"), ("y", "b1"), ("z", "a1")))
    assert [run.name for run in comparison.chosen_pair([x, y, z])] == ["x", "z"]
    assert [run.name for run in comparison.chosen_pair([x, y, z], run_b="z")] == ["x", "z"]
    assert [run.name for run in comparison.chosen_pair([x, y])] == ["x", "y"]


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


def test_the_verdict_names_the_beaten_and_those_that_cannot_be_told_apart(runs):
    table = comparison.differences(runs, draws=200)
    assert "It is really better than middling, weak." in comparison.verdict(runs, table)
    doubtful = table.assign(real=table["real"] & (table["a"] != "middling"))
    words = comparison.verdict(runs, doubtful)
    assert words.startswith("The best of 3 runs is **strong**")
    assert "really better than weak. From middling it cannot be told apart" in words


def test_a_run_that_leads_by_easier_photos_is_said_to_be_worse_on_those_they_share(runs):
    table = comparison.differences(runs, draws=200)
    turned = table.assign(difference=-table["difference"], low=-table["high"], high=-table["low"])
    words = comparison.verdict(runs, turned)
    assert "On the photos they share it is really worse than middling, weak." in words
    assert "cannot be told apart" not in words and "really better" not in words


def test_tables_are_written_where_people_look_for_them(runs, tmp_path):
    tables = {"settings": comparison.settings_table(runs), "scores": comparison.score_table(runs)}
    written = comparison.write(tmp_path, tables)
    assert written == [tmp_path / "comparison" / "settings.csv", tmp_path / "comparison" / "scores.csv"]
    for path, table in zip(written, tables.values(), strict=True):
        pd.testing.assert_frame_equal(pd.read_csv(path), table, check_exact=True, check_dtype=False)
