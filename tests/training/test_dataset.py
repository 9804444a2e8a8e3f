"""Whoever reads what a run trains on reads the same, and which photos a step meets hangs on the step alone."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from mask_lib.base import config, files, labels
from mask_lib.data import external
from mask_lib.data.splits import fingerprint, join_training, read_splits, write_splits
from mask_lib.ensemble import inference, self_training
from mask_lib.models import devices
from mask_lib.training import averaging, dataset, loop, pseudo_labels, runs

STUDENT = {"run": "student", "pseudo_labels": "toy", "mixing": "mixup", "sampling": "weighted"}
STUDENT |= {"epochs": 1, "warmup_epochs": 0.0}


def run_of(**changes) -> config.Run:
    return config.Run(**{**toys.SETTINGS, **changes})


def train(data: Path, output: Path, run: config.Run):
    """A run on what `dataset` says, finished."""
    decoded = dataset.open_trainable(data, output, run)
    result = runs.train_run(run, dataset.read_training_splits(output, run), decoded, output)
    runs.write_scores(result)
    return result


def outside(folder: Path) -> pd.DataFrame:
    """Two photos from elsewhere."""
    table = toys.table(2)[::2].assign(path=["a.png", "b.png"])
    toys.write_photos(folder, table)
    told = {"a.png": ("worn", "male", 20, 0), "b.png": ("incorrect", "female", 58, 10)}
    paths = {name: str(folder / "train" / "images" / name) for name in told}
    return external.external_table([(paths[name], f"external:far/{name}", *row) for name, row in told.items()])


@pytest.fixture(scope="module")
def taught(prepared, tmp_path_factory):
    """Data and output with external photos, a finished run and the pseudo-labels that it gave."""
    data, output = prepared
    table = outside(tmp_path_factory.mktemp("far"))
    external.write(table, output)
    write_splits(join_training(read_splits(output), table), output)
    train(data, output, run_of(epochs=1, warmup_epochs=0.0))
    self_training.make(data, output, "toy", threshold=0, class_share=0.5)
    return data, output


@pytest.fixture(scope="module")
def student(taught):
    data, output = taught
    return train(data, output, run_of(**STUDENT))


def test_a_run_that_asks_for_nothing_reads_the_splits_and_years_alone(taught):
    _, output = taught
    for fold, split in dataset.read_training_splits(output, run_of()).items():
        plain = read_splits(output)[fold]
        pd.testing.assert_frame_equal(split[list(plain)], plain)
        assert list(split) == [*plain, "age"]
        assert fingerprint("", split, "none") == fingerprint("", plain, "none")
        assert fingerprint("", split.assign(person="somebody else"), "none") != fingerprint("", split, "none")
        years = split.set_index("path")["age"]
        assert years.dtype == "float64" and years[years.index.map(os.path.isabs)].tolist() == [20, 58]
        assert years[~years.index.map(os.path.isabs)].isna().all()  # a toy's people have no age
    assert len(dataset.photo_table(output, run_of())) == 2 * toys.PEOPLE + 2


def test_pseudo_labels_join_the_train_rows_with_the_weight_of_the_run(taught):
    _, output = taught
    table = pd.read_csv(pseudo_labels.table_path(output, "toy"))
    run = run_of(run="student", pseudo_labels="toy", pseudo_weight=0.25)
    assert len(dataset.read_training_splits(output, run.replace(folds=(0,)))[1]) == len(read_splits(output)[1])
    for fold, split in dataset.read_training_splits(output, run).items():
        joined = split[split["weight"] != 1]
        assert set(joined["path"]) == set(table.loc[table["fold"] == fold, "path"]) and len(joined)
        assert set(joined["weight"]) == {0.25} and not dataset.is_real(joined).any()
        assert dataset.is_real(split).sum() == len(read_splits(output)[fold])


def test_every_pseudo_labeled_photo_joins_the_store_once(taught):
    _, output = taught
    plain, table = (dataset.photo_table(output, run_of(**changes)) for changes in ({}, STUDENT))
    pd.testing.assert_frame_equal(table[: len(plain)], plain, check_dtype=False)
    chosen = pd.read_csv(pseudo_labels.table_path(output, "toy"))
    assert list(table["path"][len(plain) :]) == sorted(set(chosen["path"])) and set(table["split"]) == {"train"}


def test_a_student_is_predicted_averaged_and_asked_for_pseudo_labels_itself(taught, student):
    data, output = taught
    tables = inference.predict_run(data, output, "student")
    assert len(tables["test"]) == 12
    held_out = read_splits(output)[0].query("split == 'test_val'")["path"]
    assert sorted(tables["test_val"]["path"]) == sorted(held_out)
    assert not student.out_of_fold["path"].map(os.path.isabs).any()  # nobody is scored on a photo from elsewhere
    assert set(averaging.average_run(data, output, "student").saved["folds"]) == {"0", "1"}
    found = self_training.make(data, output, "student", threshold=0)
    assert set(found["fold"]) == {0, 1}


def test_the_baseline_is_the_same_with_and_without_pseudo_labels(taught, student, monkeypatch):
    data, output = taught
    seen, random, fitted = [], np.random.default_rng(0), runs.features.logistic_out_of_fold
    monkeypatch.setattr(
        runs.features, "backbone_features", lambda photos, *rest: random.random((len(photos.images), 4))
    )
    monkeypatch.setattr(runs.features, "logistic_out_of_fold", lambda *given: seen.append(given[2]) or fitted(*given))
    run = run_of(**STUDENT)
    splits = dataset.read_training_splits(output, run)
    runs.baseline(dataset.open_trainable(data, output, run), student, splits, output)
    for fold, split in seen[0].items():
        assert list(split["path"]) == list(read_splits(output)[fold]["path"])


def test_other_pseudo_labels_than_those_of_training_are_refused(taught, student):
    data, output = taught
    path = pseudo_labels.table_path(output, "toy")
    before = path.read_bytes()
    try:
        table = pd.read_csv(path)
        files.write_csv(table.assign(label=(table["label"] + 1) % 18), path)
        with pytest.raises(ValueError, match=r"fold0.*was trained on other photos, labels or folds"):
            inference.predict_run(data, output, "student")
    finally:
        path.write_bytes(before)


def test_no_soup_is_made_of_runs_on_unlike_photos(taught, student):
    data, output = taught
    with pytest.raises(ValueError, match=r"toy and student were trained on other photos.*pseudo_labels:  → toy"):
        averaging.make_soup(data, output, "soup", ["toy", "student"])


@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_that_was_interrupted_ends_with_the_same_bits(taught, student, tmp_path, steps):
    data, output = taught
    run = run_of(**STUDENT)
    decoded, splits = dataset.open_trainable(data, output, run), dataset.read_training_splits(output, run)
    with toys.stopped_after(steps):
        runs.train_run(run, splits, decoded, tmp_path, checkpoint_seconds=0)
    runs.train_run(run, splits, decoded, tmp_path, checkpoint_seconds=0)
    assert toys.results(tmp_path, "student") == toys.results(output, "student")


def test_lighter_pseudo_labels_teach_something_else(taught, student, tmp_path):
    data, output = taught
    run = run_of(**STUDENT, folds=(0,), pseudo_weight=0.1)
    split = dataset.read_training_splits(output, run)[0]
    result = runs.train_run(run, {0: split}, dataset.open_trainable(data, output, run), tmp_path)
    columns = labels.probability_columns()
    plain = student.out_of_fold.set_index("path").loc[result.out_of_fold["path"], columns]
    assert not np.allclose(result.out_of_fold[columns], plain, atol=1e-5)


def test_pseudo_labels_do_not_count_for_the_balance_of_classes(taught):
    data, output = taught
    changes = STUDENT | {"sampling": "shuffle", "class_balance": "full"}
    weights = []
    for run in (run_of(class_balance="full"), run_of(**changes)):
        source = devices.DevicePhotos(dataset.open_trainable(data, output, run), torch.device("cpu"))
        fold = loop.FoldTraining(run, 0, dataset.read_training_splits(output, run)[0], source)
        weights.append(fold.data.class_weights)
    assert torch.equal(*weights) and len(weights[0].unique()) > 2


# Batches.

SKEWED = np.repeat([0, 4, 17], [80, 19, 1])  # 80 photos of class 0, one of class 17


@pytest.mark.parametrize("kind", ["shuffle", "weighted"])
def test_an_epoch_is_as_many_photos_in_batches_of_nearly_one_size(kind):
    train_labels = np.zeros(103, dtype=int)
    batches = dataset.batches(run_of(batch_size=16, sampling=kind), 1, 2, train_labels, train_labels == 0)
    assert {len(batch) for batch in batches} == {14, 15}
    assert len(batches) == dataset.step_count(103, 16)
    if kind == "shuffle":
        assert sorted(np.concatenate(batches)) == list(range(103))


def test_weighted_epochs_hold_the_classes_equally_often():
    run = run_of(sampling="weighted")
    drawn = [np.concatenate(dataset.batches(run, 0, epoch, SKEWED, SKEWED >= 0)) for epoch in range(90)]
    counts = np.bincount(SKEWED[np.concatenate(drawn)], minlength=18)[[0, 4, 17]]
    assert counts.sum() == 90 * len(SKEWED)
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=4 * (2 / 9 / 9000) ** 0.5)  # 4 deviations


def test_each_class_of_real_photos_is_as_likely_and_the_others_are_drawn_as_often_as_their_like():
    train_labels, is_real = np.append(SKEWED, [0, 17, 5]), np.append(np.ones(100, dtype=bool), [False] * 3)
    shares = dataset.sampling_probabilities(train_labels, is_real)
    plain = dataset.sampling_probabilities(SKEWED, SKEWED >= 0)
    for label in (0, 4, 17):
        assert plain[label == SKEWED].sum() == pytest.approx(1 / 3)
        assert np.ptp(plain[label == SKEWED]) == 0
    np.testing.assert_allclose(shares[is_real] / shares[is_real].sum(), plain)
    assert shares[100] == shares[0]
    assert shares[101] == shares[102] == shares[99]  # a class of pseudo-labels alone is drawn too


@pytest.mark.parametrize("kind", ["shuffle", "weighted"])
def test_order_and_seeds_differ_between_epochs_folds_and_steps_and_come_again(kind):
    train_labels = np.arange(50) % 18
    places, orders = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], []
    for seed, fold, epoch in places * 2:
        run = run_of(seed=seed, sampling=kind)
        orders.append(tuple(np.concatenate(dataset.batches(run, fold, epoch, train_labels, train_labels >= 0))))
    assert len(set(orders)) == 4
    assert orders[:4] == orders[4:]
    assert len({dataset.step_seed(*place, step) for place in places for step in (0, 1)}) == 8
