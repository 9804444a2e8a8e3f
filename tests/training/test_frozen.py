"""`head: frozen`: logistic regressions on a frozen backbone's stages, and from there on a run like any other."""

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mask_lib.base import config, labels
from mask_lib.models import checkpoint, devices, features, networks, predict
from mask_lib.training import loop

FROZEN = {"head": "frozen", "epochs": 1, "attribute_loss": 0.0, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def output(data, tmp_path_factory):
    """A finished frozen run."""
    folder = tmp_path_factory.mktemp("output")
    toys.train(data, folder, **FROZEN)
    return folder


def by_hand(data, output, split: pd.DataFrame, weights: np.ndarray | None = None) -> np.ndarray:
    """(N, C) probabilities of the val rows: the geometric mean of two stages' regressions of each attribute."""
    photos, logs = toys.opened(data), {}
    stages = features.stage_features(photos, output / "features", architecture="test_resnet", weights="none")
    train, val = (split[split["split"] == part] for part in ("train", "val"))
    for name, values in labels.decode_all(train["label"].to_numpy()).items():
        balanced = "balanced" if name == "age" else None
        logs[name] = np.zeros((len(val), labels.attribute(name).size))
        for stage in stages:
            model = LogisticRegression(C=features.REGULARISATION, max_iter=1000, class_weight=balanced)
            model = make_pipeline(StandardScaler(), model)
            model.fit(stage[photos.rows(list(train["path"]))], values, logisticregression__sample_weight=weights)
            logs[name] += model.predict_log_proba(stage[photos.rows(list(val["path"]))]) / len(stages)
    means = {name: np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for name, one in logs.items()}
    return labels.joint(means)


def test_out_of_fold_it_says_what_scikit_learn_says(data, output):
    for fold, split in toys.splits(toys.table()).items():
        table = pd.read_csv(output / f"runs/toy/fold{fold}/oof.csv")
        found = table[labels.probability_columns()].to_numpy()
        np.testing.assert_allclose(found, by_hand(data, output, split), atol=2e-3)
        assert (found.argmax(axis=1) == table["label"]).mean() > 0.8


def test_weights_of_rows_and_of_classes_count(data, tmp_path):
    split = toys.splits(toys.table())[0]
    train = split[split["split"] == "train"]
    counts = train["label"].map(train["label"].value_counts())
    toys.train(data, tmp_path, **FROZEN, class_balance="full", folds=(0,))
    table = pd.read_csv(tmp_path / "runs/toy/fold0/oof.csv")
    wanted = (1 / counts).to_numpy()
    expected = by_hand(data, tmp_path, split, wanted / wanted.mean())
    np.testing.assert_allclose(table[labels.probability_columns()].to_numpy(), expected, atol=5e-3)


def test_its_checkpoint_predicts_the_same_and_its_backbone_is_as_it_was(data, output):
    state, manifest = checkpoint.read_checkpoint(output / "runs/toy/fold0/checkpoint/last.safetensors")
    loaded, photos = predict.load_network(state, manifest, torch.device("cpu")), toys.opened(data)
    assert isinstance(loaded.network, networks.FrozenNetwork)
    table = pd.read_csv(output / "runs/toy/fold0/oof.csv")
    found = loaded.predict(devices.DevicePhotos(photos, torch.device("cpu")), photos.rows(list(table["path"])))
    np.testing.assert_allclose(found, table[labels.probability_columns()], atol=1e-5)
    other, _ = checkpoint.read_checkpoint(output / "runs/toy/fold1/checkpoint/last.safetensors")
    assert all(torch.equal(state[name], other[name]) for name in state if name.startswith("backbone."))
    assert not all(torch.equal(state[name], other[name]) for name in state)


def test_a_finished_one_is_read_and_a_killed_one_fitted_again(data, output, monkeypatch):
    before = toys.results(output)
    monkeypatch.setattr(loop.FoldTraining, "fit", None)  # a call would fail
    toys.train(data, output, **FROZEN)
    monkeypatch.undo()
    (output / "runs/toy/fold1/checkpoint/last.safetensors").unlink()
    toys.train(data, output, **FROZEN)
    assert toys.results(output) == before


def test_training_mode_leaves_its_statistics_alone():
    network = networks.FrozenNetwork(networks.create("test_resnet", num_classes=0), torch.zeros(1, 3, 32, 32))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()(torch.rand(4, 3, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_without_stages_is_taken_by_its_pooled_features():
    network = networks.FrozenNetwork(networks.create("custom_model", num_classes=0), torch.zeros(1, 3, 64, 64))
    assert [head.heads["mask"].in_features for head in network.heads] == [320]
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, labels.class_count())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, "epochs = 2: it must be 1 where head is frozen"),
        ({"epochs": 1, "per_image_norm": True}, "head = 'frozen': it must be another one with per_image_norm"),
    ],
)
def test_what_it_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config.Run(head="frozen", **changes)
