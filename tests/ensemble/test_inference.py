"""Prediction prepares photos exactly as training did, averages folds, answers every row, and computes nothing twice."""

import contextlib
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from mask_lib.augment import policy
from mask_lib.base import config, files, labels
from mask_lib.data import photos
from mask_lib.data.splits import make_splits, read_splits, write_splits
from mask_lib.ensemble import inference
from mask_lib.models import checkpoint, devices, networks, predict
from mask_lib.training import dataset, runs

COLUMNS = labels.probability_columns()
BRIEF = {"epochs": 1, "warmup_epochs": 0.0}


@pytest.fixture
def copied(trained, tmp_path):
    """The data folder and the output folder, to be changed by a test."""
    ignored = shutil.ignore_patterns("inferences")
    return tuple(shutil.copytree(folder, tmp_path / folder.name, ignore=ignored) for folder in trained)


def labeled_store(data, output):
    return dataset.open_photos(data, output, photos.read_labeled(output), toys.FRAME)


def each_folds_own(output, opened, paths, run="toy", tta=predict.ONE_VIEW):
    """What each fold's network gives of photos of a store, read from its checkpoint alone."""
    source = devices.DevicePhotos(opened, torch.device("cpu"))
    weights = [output / "runs" / run / f"fold{fold}" / "checkpoint" / "best.safetensors" for fold in (0, 1)]
    networks = [predict.load_network(*checkpoint.read_checkpoint(path), source.device) for path in weights]
    return [network.predict(source, opened.rows(list(paths)), tta) for network in networks]


@pytest.mark.smoke
def test_a_checkpoint_alone_gives_the_out_of_fold_probabilities_again(trained):
    """Training, validation and inference cannot differ: the manifest is all that inference knows."""
    saved = pd.read_csv(trained[1] / "runs" / "toy" / "fold1" / "oof.csv")
    found = each_folds_own(trained[1], labeled_store(*trained), saved["path"])[1]
    np.testing.assert_allclose(found, saved[COLUMNS].to_numpy(), atol=1e-6)


@pytest.mark.smoke
def test_both_files_hold_what_the_contract_says_the_mean_over_folds(trained, capsys):
    data, output = trained
    inference.predict_run(data, output, "toy")
    assert "precision float32; photos read from disk" in capsys.readouterr().out
    test, test_val = (pd.read_csv(output / "inferences" / f"toy.{part}.csv") for part in ("test", "test_val"))
    assert list(test.columns) == ["ImageID", *COLUMNS] and list(test_val.columns) == ["path", "label", *COLUMNS]
    assert list(test["ImageID"]) == list(pd.read_csv(data / "eval" / "info.csv")["ImageID"])
    split = read_splits(output)[0]
    assert set(test_val["path"]) == set(split["path"][split["split"] == "test_val"])
    np.testing.assert_allclose(test[COLUMNS].sum(axis=1), 1, atol=1e-5)
    each = each_folds_own(output, labeled_store(data, output), test_val["path"])
    np.testing.assert_allclose(test_val[COLUMNS], np.mean(each, axis=0), rtol=1e-6)


def test_an_eval_photo_that_is_listed_but_not_in_the_table_is_answered_all_the_same(copied):
    data, output = copied
    table = pd.read_csv(output / "tables" / "photos.csv")
    lost = table["path"][table["split"] == "eval"].iloc[3]
    files.write_csv(table[table["path"] != lost], output / "tables" / "photos.csv")
    (data / "eval" / "images" / lost).write_bytes(b"")
    test = inference.predict_run(data, output, "toy")["test"]
    assert list(test["ImageID"]) == list(pd.read_csv(data / "eval" / "info.csv")["ImageID"])
    others = test[test["ImageID"] != lost]
    np.testing.assert_allclose(test.set_index("ImageID").loc[lost, COLUMNS].astype(float), others[COLUMNS].mean())


def test_people_trained_on_cannot_become_held_out_people(copied):
    """Splits made anew after training would put trained people into test_val and flatter its score."""
    data, output = copied
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match=r"fold0.*was trained on other photos, labels or folds"):
        inference.predict_run(data, output, "toy")


def test_a_fold_of_other_settings_does_not_enter_the_mean(copied):
    data, output = copied
    runs.write_scores(toys.train(data, output, when_changed="restart", folds=(1,), **BRIEF))
    assert list(runs.checkpoints(output, "toy", labeled_store(data, output), read_splits(output))) == [1]


def test_a_policy_that_says_something_else_by_now_is_told(copied, tmp_path):
    """The settings name the file alone."""
    data, output = copied
    path = policy.write_policy(policy.PRESET_POLICIES["trivialaugment"], tmp_path / "policy.json")
    runs.write_scores(toys.train(data, output, run="searched", augmentation=str(path), **BRIEF))
    policy.write_policy(policy.PRESET_POLICIES["trivialaugment"], path)
    inference.predict_run(data, output, "searched", split="test_val")
    policy.write_policy(policy.PRESET_POLICIES["seed"], path)
    with pytest.raises(ValueError, match=r"with other settings.*\(the policy in .*policy\.json\): run 03_one_model ag"):
        inference.predict_run(data, output, "searched", split="test_val")


def with_ages(output, older=0):
    """Give everybody an age in years that suits the label; `older`: as many years more for the middle-aged."""
    table = pd.read_csv(output / "tables" / "photos.csv", dtype={"age": "Int64", "label": "Int64"})
    years = table["label"].mod(3).map({0: 20, 1: 40 + older, 2: 60}).astype("Int64")
    files.write_csv(table.assign(age=years.mask(table["split"] == "eval")), output / "tables" / "photos.csv")


@pytest.mark.parametrize(
    ("old_from", "outcome"),
    [(55, pytest.raises(ValueError, match=r"\(the ages in years\)")), (60, contextlib.nullcontext())],
)
def test_ages_in_years_that_changed_are_told_if_training_read_them(copied, old_from, outcome):
    data, output = copied
    with_ages(output)
    run = config.Run(**{**toys.SETTINGS, **BRIEF, "run": "years", "old_from": old_from})
    splits = dataset.read_training_splits(output, run)
    runs.write_scores(runs.train_run(run, splits, dataset.open_trainable(data, output, run), output))
    inference.predict_run(data, output, "years", split="test_val")
    with_ages(output, older=1)  # a border between 40 and 41 is none that scores know
    with outcome:
        inference.predict_run(data, output, "years", split="test_val")


def test_what_was_predicted_once_is_not_predicted_again(copied, monkeypatch):
    data, output = copied
    first = inference.predict_run(data, output, "toy")
    shutil.rmtree(output / "store")
    for path in (output / "inferences").glob("toy.*.csv"):
        path.unlink()
    monkeypatch.setattr(predict.Loaded, "predict", None)  # any pass over photos raises
    again = inference.predict_run(data, output, "toy")
    for part, table in first.items():
        pd.testing.assert_frame_equal(again[part], table, check_exact=True)
        assert (output / "inferences" / f"toy.{part}.csv").exists()


def test_a_killed_inference_goes_on_with_the_next_network(copied, monkeypatch):
    data, output = copied
    whole = inference.predict_run(data, output, "toy", split="test")["test"]
    shutil.rmtree(output / "inferences")
    counted, passes = predict.Loaded.predict, []

    def killed_in_the_second(*given):
        passes.append(given)
        return counted(*given) if len(passes) != 2 else 1 / 0

    monkeypatch.setattr(predict.Loaded, "predict", killed_in_the_second)
    with pytest.raises(ZeroDivisionError):
        inference.predict_run(data, output, "toy", split="test")
    pd.testing.assert_frame_equal(inference.predict_run(data, output, "toy", split="test")["test"], whole)
    assert len(passes) == 3  # fold 0, the one that failed, and that one again


def test_photos_pass_the_backbone_of_frozen_networks_once_for_all_folds(copied, monkeypatch):
    data, output = copied
    evaluated, passed, moments = photos.read_evaluated(output), [], networks.moments
    monkeypatch.setattr(networks, "moments", lambda network, seen: passed.append(len(seen)) or moments(network, seen))
    found = inference.predict_run(data, output, "frozen", predict.Tta(4), split="test")["test"]
    assert passed.count(len(evaluated)) == 4  # views
    opened = dataset.open_photos(data, output, evaluated, toys.FRAME)
    each = each_folds_own(output, opened, found["ImageID"], "frozen", predict.Tta(4))
    np.testing.assert_allclose(found[COLUMNS], np.mean(each, axis=0), atol=1e-6)


def test_other_views_weights_or_photos_are_predicted_anew(copied):
    data, output = copied
    folder = output / "inferences" / "models" / "toy"

    def stored(**tta):
        inference.predict_run(data, output, "toy", predict.Tta(**tta))
        return {path.name for path in folder.iterdir()}

    seen = [stored(), stored(num_tta=4), stored(num_tta=4, tta_average="logits")]
    photo = next((data / "eval" / "images").iterdir())
    toys.Image.fromarray(np.zeros(toys.FRAME.shape, np.uint8)).save(photo)
    seen.append(stored())
    assert all(len(names) == 4 for names in seen)  # two folds, two parts: what is outdated does not stay
    assert not seen[0] & seen[1] and not seen[1] & seen[2]
    assert len(seen[0] & seen[3]) == 2  # test_val does not depend on the photo that changed
    weights = output / "runs" / "toy" / "fold1" / "checkpoint" / "best.safetensors"
    state, manifest = checkpoint.read_checkpoint(weights)
    checkpoint.write_checkpoint(weights, {name: value * 2 for name, value in state.items()}, manifest)
    assert {name[:5] for name in seen[3] - stored()} == {"fold1"}


@pytest.mark.parametrize("split", ["test", "test_val"])
def test_one_part_alone_can_be_predicted(copied, split):
    data, output = copied
    assert list(inference.predict_run(data, output, "toy", split=split)) == [split]
    assert [path.name for path in (output / "inferences").glob("*.csv")] == [f"toy.{split}.csv"]


def test_an_unknown_run_or_part_and_views_that_do_not_suit_the_photos_are_refused_before_any_work(trained, monkeypatch):
    monkeypatch.setattr(predict.Loaded, "predict", None)
    with pytest.raises(FileNotFoundError, match=r"runs/absent holds no finished run: run 03_one_model with run: abs"):
        inference.predict_run(*trained, "absent")
    with pytest.raises(ValueError, match="split = 'val': it must be one of test, test_val, both"):
        inference.predict_run(*trained, "toy", split="val")
    with pytest.raises(ValueError, match="16 x 24 pixels: use num_tta = 4"):
        inference.predict_run(*trained, "toy", predict.Tta(num_tta=8, tta_views="dihedral"))


def test_photos_to_show_are_those_predicted_that_can_be_read(trained):
    _, output = trained
    test = pd.DataFrame({"ImageID": [*photos.read_evaluated(output)["path"][:2], "broken.jpg"], "p00": 1.0})
    shown = inference.as_photos({"test": test, "test_val": None}, output)
    assert list(shown["path"]) == list(test["ImageID"][:2]) and set(shown["split"]) == {"eval"}
    shown = inference.as_photos({"test_val": pd.DataFrame({"path": ["a"], "label": [1], "p00": [1.0]})}, output)
    assert shown.to_dict("records") == [{"path": "a", "p00": 1.0, "split": "train"}]


def test_surest_gives_one_photo_a_predicted_class_and_doubtful_the_flattest():
    rows = np.full((4, 18), 0.01)
    rows[[0, 1, 2, 3], [2, 2, 7, 0]] = [0.6, 0.9, 0.5, 0.2]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(path=list("abcd"))
    assert list(inference.surest(table)["path"]) == ["d", "b", "c"]
    assert list(inference.most_doubtful(table, 2)["path"]) == ["d", "c"]
