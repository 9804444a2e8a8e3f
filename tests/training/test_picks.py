"""An average is used only where it beats its best member, and whatever reads a run then reads of the same weights."""

import shutil

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import files, labels, scores
from mask_lib.data import photos
from mask_lib.data.splits import make_splits, read_splits, write_splits
from mask_lib.ensemble import inference
from mask_lib.models import checkpoint
from mask_lib.training import averaging, loop, run_folder, runs

COLUMNS = list(labels.PROBABILITY_COLUMNS)
SETTINGS = {"epochs": 4, "keep_epochs": 3, "ema_decay": 0.8, "weights": "none", "dropout": 0.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder and an output folder with a finished toy run that kept its last three epochs."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    runs.write_scores(toys.train(data, output, **SETTINGS))
    return data, output


@pytest.fixture
def copied(trained, tmp_path):
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)


@pytest.fixture(scope="module")
def averaged(trained, tmp_path_factory):
    """The same run averaged, in folders of its own, and what averaging said of it."""
    home = tmp_path_factory.mktemp("averaged")
    data, output = (shutil.copytree(folder, home / folder.name) for folder in trained)
    return data, output, averaging.average_run(data, output, "toy")


def prefer(monkeypatch, name):
    """From now on the weights of that name are the best, whatever they score."""
    monkeypatch.setattr(averaging, "pick", lambda choice, found: name)


def of_toy(output, *parts):
    return output.joinpath("runs", "toy", *parts)


def tables(output):
    """What averaging may replace of training's, by name."""
    return {name: of_toy(output, name).read_bytes() for name in ("scores.json", "fold0/oof.csv", "fold1/oof.csv")}


def test_the_average_is_the_mean_of_the_kept_epochs_with_new_statistics(averaged):
    _, output, _ = averaged
    folder = of_toy(output, "fold0", "checkpoint")
    state, manifest = checkpoint.read_checkpoint(folder / "swa.safetensors")
    members = [checkpoint.read_checkpoint(loop.epoch_path(folder, epoch))[0] for epoch in (2, 3, 4)]
    changed = set()
    for name, value in state.items():
        mean = np.mean([member[name].double().numpy() for member in members], axis=0)
        if not np.allclose(value.numpy(), mean, atol=1e-6):
            changed.add(name.rpartition(".")[2])
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    history = pd.read_csv(of_toy(output, "fold0", "history.csv")).set_index("epoch")["val_macro_f1"]
    assert manifest["members"] == {str(epoch): pytest.approx(history[epoch]) for epoch in (2, 3, 4)}
    assert manifest["fold"] == 0 and manifest["data"] == checkpoint.read_manifest(folder / "best.safetensors")["data"]


def test_statistics_come_from_the_folds_own_training_photos_alone(copied, monkeypatch):
    data, output = copied
    seen = []
    refresh = averaging.refresh_batch_norm
    monkeypatch.setattr(averaging, "refresh_batch_norm", lambda *given: seen.append(given[2]) or refresh(*given))
    averaging.average_run(data, output, "toy")
    paths = list(photos.read_labeled(output)["path"])
    for rows, split in zip(seen, read_splits(output).values(), strict=True):
        assert sorted(paths[row] for row in rows) == sorted(split["path"][split["split"] == "train"])


def test_the_file_says_what_was_tried_scored_and_picked(averaged):
    _, output, found = averaged
    saved = files.read_json(of_toy(output, "averaging.json"))
    assert saved == found.saved
    for fold, one in saved["folds"].items():
        assert set(one["scores"]) == {"best", "last", "ema", "swa"}
        assert one["scores"][one["picked"]]["macro_f1"] == max(each["macro_f1"] for each in one["scores"].values())
        oof = pd.read_csv(of_toy(output, f"fold{fold}", "oof.csv"))
        assert scores.summarise(*scores.from_probabilities(oof)) == pytest.approx(one["scores"][one["picked"]])
    table = found.by_fold()
    assert list(table.index) == [0, 1] and (table["epochs averaged"] == 3).all()
    assert (table["best"] >= table["best member"]).all()
    assert "changes its macro F1 by" in found.in_words()


@pytest.mark.parametrize(
    ("choice", "scored", "expected"),
    [
        ("best", {"best": 0.5, "last": 0.4, "swa": 0.6}, "swa"),
        ("best", {"best": 0.5, "last": 0.4, "swa": 0.4}, "best"),
        ("best", {"best": 0.5, "last": 0.5, "swa": 0.5}, "best"),
        ("best", {"best": 0.5, "last": 0.4, "ema": 0.7, "swa": 0.6}, "ema"),
        ("last", {"best": 0.5, "last": 0.4, "swa": 0.6}, "last"),
        ("swa", {"best": 0.5, "last": 0.4, "swa": 0.1}, "swa"),
    ],
)
def test_an_average_no_better_than_its_best_member_is_picked_only_if_asked_for(choice, scored, expected):
    assert averaging.pick(choice, {name: {"macro_f1": value} for name, value in scored.items()}) == expected


def test_inference_and_every_table_go_by_the_pick(copied, monkeypatch):
    data, output = copied
    before = {fold: pd.read_csv(of_toy(output, f"fold{fold}", "oof.csv")) for fold in (0, 1)}
    old = files.read_json(of_toy(output, "scores.json"))
    prefer(monkeypatch, "swa")
    found = averaging.average_run(data, output, "toy")
    settings = run_folder.run_settings(output, "toy")
    labeled, splits, benches = averaging.open_benches(data, output, settings)
    used = runs.checkpoints(output, "toy", labeled, splits)
    assert {path.stem for path in used.values()} == {"swa"}
    for fold, path in used.items():
        oof = pd.read_csv(of_toy(output, f"fold{fold}", "oof.csv"))
        answers = benches[fold].out_of_fold(*checkpoint.read_checkpoint(path))
        np.testing.assert_allclose(oof[COLUMNS], answers[COLUMNS], atol=1e-6)
        assert not np.allclose(oof[COLUMNS], before[fold][COLUMNS])
        kept = pd.read_csv(of_toy(output, f"fold{fold}", "oof.trained.csv"))
        pd.testing.assert_frame_equal(kept, before[fold], check_exact=True)
    new = files.read_json(of_toy(output, "scores.json"))
    swa = scores.summarise(*scores.from_probabilities(found.tables["swa"]))
    assert new["out_of_fold"]["macro_f1"]["value"] == pytest.approx(swa["macro_f1"])
    assert new["training_seconds"] == old["training_seconds"]
    as_trained = runs.read_result(of_toy(output), splits, [0, 1], as_trained=True).out_of_fold
    joined = pd.concat(before.values(), ignore_index=True)
    pd.testing.assert_frame_equal(as_trained.drop(columns="person"), joined, check_exact=True)


def test_picking_trainings_own_again_restores_its_tables(copied, monkeypatch):
    data, output = copied
    before = tables(output)
    with monkeypatch.context() as patch:
        prefer(patch, "swa")
        averaging.average_run(data, output, "toy")
    assert all(table != before[name] for name, table in tables(output).items())
    prefer(monkeypatch, "best")
    averaging.average_run(data, output, "toy")
    assert tables(output) == before
    assert not list(of_toy(output).glob("*/oof.trained.csv"))


def test_averaging_twice_gives_the_same_files(averaged, tmp_path):
    data, output, _ = averaged
    again = shutil.copytree(output, tmp_path / "output")
    (again / "store").rename(tmp_path / "store")
    averaging.average_run(data, again, "toy")
    for path in sorted(of_toy(output).rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(output)).read_bytes(), path.name


def test_a_kill_while_tables_are_replaced_leaves_an_unfinished_run_that_averaging_again_mends(copied, monkeypatch):
    data, output = copied
    prefer(monkeypatch, "swa")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "scores_of", None)
        with pytest.raises(TypeError):
            averaging.average_run(data, output, "toy")
    with pytest.raises(FileNotFoundError, match="no finished run"):
        run_folder.run_settings(output, "toy")
    result = toys.train(data, output, **SETTINGS)  # what running 03_one_model again does: it only reads
    runs.write_scores(result)
    found = averaging.average_run(data, output, "toy")
    expected = scores.summarise(*scores.from_probabilities(found.tables["swa"]))["macro_f1"]
    assert files.read_json(of_toy(output, "scores.json"))["out_of_fold"]["macro_f1"]["value"] == pytest.approx(expected)


def test_a_list_of_picks_that_is_lost_is_noticed_and_averaging_puts_trainings_tables_back_first(copied, monkeypatch):
    """Snakemake deletes averaging.json before it runs 05_average_weights again, and what then fails left it so."""
    data, output = copied
    before = tables(output)
    with monkeypatch.context() as patch:
        prefer(patch, "swa")
        averaging.average_run(data, output, "toy")
    of_toy(output, "averaging.json").unlink()
    words = r"averaging\.json is gone.* folds \[0, 1\] .*: run 05_average_weights with run: toy again"
    with pytest.raises(ValueError, match=words):
        inference.predict_run(data, output, "toy")
    with pytest.raises(FileNotFoundError, match=words):
        run_folder.find([output])
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(averaging, "open_benches", None)  # it fails before it has averaged anything
        averaging.average_run(data, output, "toy")
    assert tables(output) == before
    assert not list(of_toy(output).glob("*/oof.trained.csv"))
    inference.predict_run(data, output, "toy")
    assert run_folder.find([output])[1].empty


def test_a_run_that_kept_no_epochs_is_left_as_it_is(copied):
    data, output = copied
    toys.train(data, output, when_changed="restart", folds=(0,), epochs=1)
    runs.write_scores(toys.train(data, output, folds=(0,), epochs=1))
    before = of_toy(output, "scores.json").read_bytes()
    found = averaging.average_run(data, output, "toy")
    assert found.saved["folds"]["0"]["picked"] == "best"
    assert "kept no epochs" in found.in_words()
    assert of_toy(output, "scores.json").read_bytes() == before
    assert averaging.written(output, "toy") == [of_toy(output, "averaging.json")]


def test_an_average_that_was_chosen_but_not_made_yet_is_not_replaced_by_another(copied):
    data, output = copied
    changes = {**SETTINGS, "folds": (0,), "checkpoint_choice": "swa"}
    runs.write_scores(toys.train(data, output, when_changed="restart", **changes))
    with pytest.raises(FileNotFoundError, match=r"run 05_average_weights with run: toy first"):
        inference.predict_run(data, output, "toy")
    averaging.average_run(data, output, "toy")
    assert files.read_json(of_toy(output, "averaging.json"))["folds"]["0"]["picked"] == "swa"
    inference.predict_run(data, output, "toy")


def test_weights_of_other_labels_than_todays_are_refused(copied):
    data, output = copied
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match=r"epoch002\.safetensors was trained on other photos, labels or folds"):
        averaging.average_run(data, output, "toy")


def test_an_epoch_of_another_fold_among_the_members_is_refused(copied):
    data, output = copied
    stray = of_toy(output, "fold1", "checkpoint", "epoch003.safetensors")
    shutil.copyfile(stray, of_toy(output, "fold0", "checkpoint", "epoch003.safetensors"))
    with pytest.raises(ValueError, match=r"fold0/checkpoint/epoch003\.safetensors was trained on other"):
        averaging.average_run(data, output, "toy")
