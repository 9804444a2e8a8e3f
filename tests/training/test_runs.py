"""A run's folder tells its settings and its scores, and the scores are those of people it never saw."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import config, files, labels, scores
from mask_lib.models import devices
from mask_lib.training import runs


@pytest.fixture(scope="module")
def trained(prepared):
    return *prepared, toys.train(*prepared)


def test_the_settings_lie_beside_the_results_and_build_the_run_again(trained):
    _, output, _ = trained
    saved = json.loads((output / "runs" / "toy" / "config.json").read_text())
    assert saved.pop("device").startswith("CPU")
    assert config.Run(**saved) == config.Run(**toys.SETTINGS)


def test_scores_are_those_of_the_out_of_fold_tables(trained):
    _, output, result = trained
    found = runs.write_scores(result)
    saved = files.read_json(output / "runs" / "toy" / "scores.json")
    assert saved == found
    tables = [pd.read_csv(output / "runs" / "toy" / f"fold{fold}" / "oof.csv") for fold in (0, 1)]
    expected = scores.summarise(*scores.from_probabilities(pd.concat(tables)))
    assert {name: value["value"] for name, value in saved["out_of_fold"].items()} == pytest.approx(expected)
    by_fold = [scores.summarise(*scores.from_probabilities(table))["macro_f1"] for table in tables]
    assert [fold["macro_f1"] for fold in saved["folds"]] == pytest.approx(by_fold)
    assert saved["mean"]["macro_f1"] == pytest.approx(sum(by_fold) / 2)
    assert saved["training_seconds"] > 0
    assert saved["photos_per_second"] > 0


def test_intervals_are_drawn_by_person(trained):
    _, _, result = trained
    table = result.out_of_fold
    whole = runs.intervals(table)
    alone = runs.intervals(table.assign(person=table["path"]))  # as if each photo were a person of its own
    assert list(whole["value"]) == list(alone["value"])
    assert not whole["high"].equals(alone["high"])


def guessing(table, share):
    """An out-of-fold table that is sure of the truth for a share of its people, else of a wrong class."""
    rank = table["person"].rank(method="dense")
    answers = (table["label"] + (rank > share * rank.max())) % 18
    return table.assign(**pd.DataFrame(np.eye(18)[answers], columns=labels.probability_columns(), index=table.index))


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [(1.0, 0.0, "It beats the log"), (0.0, 1.0, "It does worse than"), (0.5, 0.45, "It cannot be told apart from")],
)
def test_the_verdict_goes_by_a_paired_bootstrap_on_the_same_photos(trained, tmp_path, ours, theirs, words):
    _, _, result = trained
    table = result.out_of_fold
    simpler = guessing(table, theirs).sample(frac=1, random_state=0)  # its rows may stand in any order
    result = dataclasses.replace(result, folder=tmp_path, out_of_fold=guessing(table, ours))
    found = runs.write_scores(result, simpler)
    told, over = found["baseline"]["accuracy"]["value"], found["over_baseline"]["accuracy"]
    assert over["difference"] == pytest.approx(found["out_of_fold"]["accuracy"]["value"] - told)
    assert runs.verdict(found).startswith(words)
    assert "nothing simpler" in runs.verdict({"out_of_fold": found["out_of_fold"]})


def test_the_baseline_is_asked_about_the_same_photos_and_folds(trained):
    data, output, result = trained
    table = runs.baseline(toys.opened(data), result, toys.splits(toys.table()), output / "features")
    assert sorted(table["path"]) == sorted(result.out_of_fold["path"])
    assert table["person"].notna().all()
    assert list(runs.named_intervals([result], table)) == ["toy", "logistic regression on frozen features"]


def test_a_result_of_three_heads_decodes_alike_in_both_ways_and_another_may_not(trained):
    _, _, result = trained
    columns = labels.probability_columns()
    product = labels.joint(labels.marginals(result.out_of_fold[columns].to_numpy()))
    apart = pd.DataFrame(product, columns=columns)
    heads = dataclasses.replace(result, name="heads", out_of_fold=result.out_of_fold.assign(**apart))
    table = runs.decodings(heads, result)
    assert list(table.index) == [(run, way) for run in ("heads", "toy") for way in ("joint", "apart")]
    assert table.loc[("heads", "joint")].equals(table.loc[("heads", "apart")])
    assert table.loc[("toy", "apart")].equals(table.loc[("heads", "apart")].replace(0, table["differ"].iloc[-1]))


def test_a_run_of_two_machines_names_both_and_the_higher_peak_but_not_who_opens_it_later(
    trained, tmp_path, monkeypatch
):
    data, resets = trained[0], []
    monkeypatch.setattr(devices, "reset_peak_memory", resets.append)
    for name, peak, folds in (("first", 3000, (0,)), ("second", 2000, (0, 1)), ("a reader", 999_999, (0, 1))):
        monkeypatch.setattr(devices, "device_name", lambda device, name=name: name)
        monkeypatch.setattr(devices, "peak_memory_bytes", lambda device, peak=peak: peak)
        result = toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0, folds=folds)
    runs.write_scores(result)
    folder = tmp_path / "runs" / "toy"
    assert files.read_json(folder / "config.json")["device"] == "first and second"
    assert files.read_json(folder / "scores.json")["peak_memory_bytes"] == 3000
    assert len(resets) == 2  # a fold each
