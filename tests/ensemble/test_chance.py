"""Labels that mean nothing: whatever is chosen, no score that is shown rises above chance beyond its interval."""

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import files, scores
from mask_lib.data import store
from mask_lib.data.splits import make_splits
from mask_lib.ensemble import blending
from mask_lib.training import averaging, dataset, runs

PEOPLE = 72


@pytest.mark.parametrize("seed", range(3))
def test_weights_and_a_temperature_found_on_random_labels_lift_nothing(seed):
    random, people = np.random.default_rng(seed), 300
    photos = pd.DataFrame({"path": np.arange(people).astype(str), "person": np.arange(people).astype(str)})
    photos = photos.assign(label=random.integers(0, 18, people))
    members = random.dirichlet(np.full(18, 0.3), (8, people))
    choice = blending.choose_recipe(blending.OutOfFold([f"m{number}" for number in range(8)], photos, members))
    found = scores.bootstrap(*scores.from_probabilities(choice.out_of_fold), photos["person"])
    assert (found["low"][["macro_f1", "accuracy"]] <= 1 / 18).all()
    best = max(scores.summarise(photos["label"], one.argmax(axis=1))["macro_f1"] for one in members)
    assert best > found.loc["macro_f1", "value"] - 0.02  # a member picked by its score would look better


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """The toy's photos with labels dealt among people; data folder, output folder and splits."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    photos = toys.table(PEOPLE)
    toys.write_photos(data, photos)
    dealt = dict(
        zip(photos["person"].unique(), np.random.default_rng(1).permutation(photos["label"][::2]), strict=True)
    )
    photos = photos.assign(label=photos["person"].map(dealt))
    return data, output, make_splits(photos, fold_count=2, test_val_share=0.1, seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint_choice": "last"},
        {"checkpoint_choice": "swa", "keep_epochs": 4},
        {"checkpoint_choice": "ema", "ema_decay": 0.9},
        {"head": "frozen", "epochs": 1, "attribute_loss": 0.0, "checkpoint_choice": "last"},
    ],
    ids=["last epoch", "average of epochs", "moving average", "frozen"],
)
def test_epochs_averages_and_regressions_on_random_labels_lift_nothing(shuffled, monkeypatch, changes):
    data, output, splits = shuffled
    photos = store.open_store(data / "store", data / "train/images", list(toys.table(PEOPLE)["path"]), toys.FRAME)
    run = runs.config.Run(**toys.SETTINGS | {"epochs": 6, "augmentation": "none", "dropout": 0.0} | changes)
    result = runs.train_run(run, splits, photos, output, when_changed="restart")
    found = runs.write_scores(result)
    if changes.get("keep_epochs"):
        monkeypatch.setattr(dataset, "read_training_splits", lambda *_: splits)
        monkeypatch.setattr(dataset, "open_trainable", lambda *_: photos)
        found = averaging.average_run(data, output, run.run).saved["scores"]
    for metric, chance in (("macro_f1", 1 / 18), ("accuracy", 1 / 6)):  # 6 of 18 classes occur
        assert found["out_of_fold"][metric]["low"] <= chance
    macro_f1 = scores.Score(**found["out_of_fold"]["macro_f1"])
    assert macro_f1.value < 0.12 and macro_f1.high < 0.3  # the classes that do not occur may do as well as the others
    assert files.read_json(output / "runs/toy/config.json")["checkpoint_choice"] == changes["checkpoint_choice"]
