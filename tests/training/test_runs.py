"""A run's folder tells its settings and its scores, and the scores are those of people it never saw."""

import json

import pandas as pd
import pytest
import toys

from mask_lib.base import config, files, scores
from mask_lib.models import devices
from mask_lib.training import loop, runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    return data, output, toys.train(data, output)


def test_the_settings_lie_beside_the_results_and_build_the_run_again(trained):
    _, output, _ = trained
    saved = json.loads((output / "runs" / "toy" / "config.json").read_text())
    assert saved.pop("device").startswith("CPU")
    assert config.Run.from_settings(saved) == config.Run(**toys.SETTINGS)


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


def test_a_fold_that_was_not_prepared_is_named(trained):
    data, output, _ = trained
    with pytest.raises(ValueError, match=r"folds = \[7\]: 00_prepare_data made only \[0, 1\]"):
        toys.train(data, output, folds=(7,))


@pytest.mark.parametrize(("ours", "theirs", "words"), [(0.5, 0.4, "It beats"), (0.4, 0.5, "It does not beat")])
def test_the_verdict_says_who_won(ours, theirs, words):
    found = {
        name: {"macro_f1": {"value": value, "low": 0.1, "high": 0.9}}
        for name, value in (("out_of_fold", ours), ("baseline", theirs))
    }
    assert runs.verdict(found).startswith(words)
    assert "nothing simpler" in runs.verdict({"out_of_fold": found["out_of_fold"]})


def test_the_baseline_is_scored_on_the_same_photos_and_folds(trained, monkeypatch):
    data, output, result = trained
    photos = runs.store.open_store(data / "store", data / "train" / "images", list(toys.table()["path"]), toys.FRAME)
    seen = {}

    def scored(table):
        seen["paths"], seen["person"] = sorted(table["path"]), table["person"].notna().all()
        return "scores"

    monkeypatch.setattr(runs, "intervals", scored)
    assert runs.baseline(photos, result, toys.splits(toys.table()), output / "features") == "scores"
    assert seen == {"paths": sorted(result.out_of_fold["path"]), "person": True}


def on_a_machine(patch: pytest.MonkeyPatch, name: str, peak: int) -> None:
    """Whatever runs here runs on a device of that name and takes that much memory."""
    patch.setattr(devices, "device_name", lambda device: name)
    patch.setattr(devices, "peak_memory_bytes", lambda device: peak)


def told(output) -> tuple[str, int]:
    """What a run's folder says of its device and of its peak memory, in bytes."""
    folder = output / "runs" / "toy"
    device = files.read_json(folder / "config.json")["device"]
    return device, files.read_json(folder / "scores.json")["peak_memory_bytes"]


def test_who_opens_a_finished_run_does_not_become_its_device(trained, tmp_path, monkeypatch):
    data, _, _ = trained
    resets = []
    monkeypatch.setattr(devices, "reset_peak_memory", resets.append)
    on_a_machine(monkeypatch, "the trainer", 1000)
    result = toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0)
    assert len(resets) == 2  # a fold each
    on_a_machine(monkeypatch, "a reader", 999_999)
    runs.write_scores(result)
    assert told(tmp_path) == ("the trainer", 1000)
    runs.write_scores(toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0))
    assert told(tmp_path) == ("the trainer", 1000)
    assert len(resets) == 2


def test_a_run_of_two_machines_names_both_and_the_higher_peak(trained, tmp_path, monkeypatch):
    data, _, _ = trained
    on_a_machine(monkeypatch, "first", 3000)
    toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0, folds=(0,))
    on_a_machine(monkeypatch, "second", 2000)
    runs.write_scores(toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0))
    assert told(tmp_path) == ("first and second", 3000)


def test_a_run_of_before_keeps_what_was_written_then(trained, tmp_path, monkeypatch):
    """Its checkpoints say nothing of a device."""
    data, _, _ = trained
    place = loop.dataclasses.asdict
    with monkeypatch.context() as before:
        silent = {"device": "", "peak_memory_bytes": 0}
        before.setattr(
            loop.dataclasses,
            "asdict",
            lambda one: place(one) | (silent if isinstance(one, loop.Progress) else {}),
        )
        on_a_machine(before, "long ago", 1)
        result = toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0)
    assert runs.write_scores(result)["peak_memory_bytes"] is None
    scored = result.folder / "scores.json"
    files.write_json({**files.read_json(scored), "peak_memory_bytes": 77}, scored)
    on_a_machine(monkeypatch, "a reader", 999_999)
    runs.write_scores(toys.train(data, tmp_path, epochs=1, warmup_epochs=0.0))
    assert told(tmp_path) == ("long ago", 77)
