"""Whoever reads what a run trains on reads the same: from a teacher to its student and the student's prediction."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from safetensors.torch import load_file

from mask_lib.base import config, files, labels
from mask_lib.data import external, store
from mask_lib.data.splits import KNOWN, fingerprint, join_training, read_splits, write_splits
from mask_lib.ensemble import inference, self_training
from mask_lib.models import devices
from mask_lib.training import averaging, dataset, gain, loop, pseudo_labels, runs

STUDENT = {
    "run": "student",
    "pseudo_labels": "toy",
    "partial_labels": True,
    "epochs": 1,
    "warmup_epochs": 0.0,
    "mixing": "mixup",
    "sampling": "weighted",
}


def run_of(**changes) -> config.Run:
    return config.Run(**{**toys.SETTINGS, **changes})


def train(data: Path, output: Path, run: config.Run, **rest) -> runs.RunResult:
    """A run on what `trainable` says, finished."""
    decoded = dataset.open_trainable(data, output, run)
    result = runs.train_run(run, dataset.read_training_splits(output, run), decoded, output, **rest)
    runs.write_scores(result)
    return result


def outside(folder: Path) -> pd.DataFrame:
    """Three photos from elsewhere: one of which all is known, an age alone, and a mask and a gender."""
    table = toys.table(3)[::2].assign(path=[f"{name}.png" for name in "abc"])
    toys.write_photos(folder, table)
    rows = [("worn", "male", 20, 0), ("", "", 58, -1), ("incorrect", "female", pd.NA, -1)]
    paths = [str(folder / "train" / "images" / path) for path in table["path"]]
    return external.table_of([(path, f"external:far/{path}", *row) for path, row in zip(paths, rows, strict=True)])


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Data and output with external photos, a finished run and the pseudo-labels that it gave."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    table = outside(tmp_path_factory.mktemp("far"))
    external.write(table, output)
    write_splits(join_training(read_splits(output), table), output)
    train(data, output, run_of(epochs=1, warmup_epochs=0.0))
    self_training.make(data, output, "toy", threshold=0, class_share=0.5, weight=0.9)
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
    assert len(dataset.photo_table(output, run_of())) == 2 * toys.PEOPLE + 3


def test_pseudo_labels_join_the_train_rows_with_the_weight_of_the_run(taught):
    _, output = taught
    table = pd.read_csv(pseudo_labels.table_path(output, "toy"))
    splits = dataset.read_training_splits(output, run_of(run="student", pseudo_labels="toy", pseudo_weight=0.25))
    for fold, split in splits.items():
        joined = split[split["weight"] != 1]
        assert set(joined["path"]) == set(table.loc[table["fold"] == fold, "path"]) and len(joined)
        assert set(joined["weight"]) == {0.25} and set(joined["split"]) == {"train"}
        assert not dataset.is_real(joined).any()
        assert dataset.is_real(split).sum() == len(read_splits(output)[fold])
    photo_table = dataset.photo_table(output, run_of(run="student", pseudo_labels="toy"))
    assert set(photo_table["path"]) >= set(table["path"])
    assert set(photo_table["split"]) == {"train"} and photo_table["path"].is_unique


def test_partial_rows_say_what_is_known_of_them_and_whole_ones_what_their_label_says(taught):
    _, output = taught
    columns = list(KNOWN.values())
    for split in dataset.read_training_splits(output, run_of(partial_labels=True)).values():
        partial = split[split["label"] == -1]
        assert partial[columns].to_numpy().tolist() == [[-1, -1, 1], [1, 1, -1]]
        assert partial["age"].iloc[0] == 58 and np.isnan(partial["age"].iloc[1])
        assert set(partial["split"]) == {"train"} and not dataset.is_real(partial).any()
        whole = split[split["label"] != -1]
        for column, numbers in zip(columns, labels.decode_all(whole["label"]).values(), strict=True):
            np.testing.assert_array_equal(whole[column], numbers)


def test_pseudo_labeled_rows_beside_partial_ones_have_attributes_and_no_years(taught):
    _, output = taught
    for split in dataset.read_training_splits(output, run_of(**STUDENT)).values():
        pseudo = split[split["weight"] != 1]
        assert (pseudo[list(KNOWN.values())] >= 0).all(axis=None) and pseudo["age"].isna().all()


@pytest.mark.parametrize(
    ("column", "value"), [("weight", 0.75), ("known_age", 0), ("label", 3), ("person", "somebody else")]
)
def test_the_fingerprint_covers_weights_and_what_is_known(taught, column, value):
    _, output = taught
    split = dataset.read_training_splits(output, run_of(**STUDENT))[0]
    changed = split.copy()
    changed.loc[len(split) - 1, column] = value
    assert changed.loc[len(split) - 1, column] != split.loc[len(split) - 1, column]
    assert fingerprint("", changed, "none") != fingerprint("", split, "none")


def test_photos_that_the_list_of_external_ones_lacks_are_named(taught):
    _, output = taught
    split = dataset.read_training_splits(output, run_of(partial_labels=True))[0]
    with pytest.raises(ValueError, match=r"external\.csv lacks photos.*00_prepare_data again.*2, such as \['.*b\.png'"):
        dataset.with_attributes(split, external.read(output)[:1])


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


def test_the_bar_is_the_same_with_and_without_pseudo_and_partial_rows(taught, student, monkeypatch):
    data, output = taught
    seen = []
    monkeypatch.setattr(runs.features, "backbone_features", lambda *rest: None)
    plain = runs.features.logistic_out_of_fold
    random = np.random.default_rng(0)

    def spy(none, photos: store.Store, splits):
        seen.append(splits)
        return plain(random.normal(size=(len(photos.images), 4)), photos, splits)

    monkeypatch.setattr(runs.features, "logistic_out_of_fold", spy)
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
    with pytest.raises(FileNotFoundError, match="self_training DATA_DIR OUTPUT_DIR absent first"):
        dataset.read_training_splits(output, run_of(pseudo_labels="absent"))


def test_what_cleaning_gave_is_not_measured_on_pseudo_labels_nor_a_soup_made_of_unlike_photos(taught, student):
    data, output = taught
    with pytest.raises(ValueError, match="student learned from pseudo_labels"):
        gain.train_on_given_labels(data, output, "student")
    with pytest.raises(ValueError, match=r"toy and student were trained on other photos.*pseudo_labels:  → toy"):
        averaging.make_soup(data, output, "soup", ["toy", "student"])


def weights_of(output: Path) -> dict[str, bytes]:
    paths = sorted((output / "runs" / "student").glob("fold*/checkpoint/*.safetensors"))
    found = {(path.parts[-3], path.stem): load_file(path) for path in paths}
    return {f"{key}/{name}": one.numpy().tobytes() for key, all_ in found.items() for name, one in all_.items()}


@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_that_was_interrupted_ends_with_the_same_bits(taught, student, tmp_path, steps):
    data, output = taught
    run, decoded = run_of(**STUDENT), dataset.open_trainable(data, output, run_of(**STUDENT))
    splits = dataset.read_training_splits(output, run)
    left, train_step = iter(range(steps)), loop.FoldTraining.train_step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(loop.FoldTraining, "train_step", lambda self, *rest: (next(left), train_step(self, *rest))[1])
        runs.train_run(run, splits, decoded, tmp_path, checkpoint_seconds=0)
    result = runs.train_run(run, splits, decoded, tmp_path, checkpoint_seconds=0)
    pd.testing.assert_frame_equal(result.out_of_fold, student.out_of_fold, check_exact=True)
    assert weights_of(tmp_path) == weights_of(output)


def test_a_run_of_other_weights_does_not_go_on_from_a_checkpoint(taught, student, tmp_path):
    data, output = taught
    run = run_of(**STUDENT)
    splits = dataset.read_training_splits(output, run)
    lighter = {fold: split.assign(weight=split["weight"].replace(0.5, 0.4)) for fold, split in splits.items()}
    with pytest.raises(config.ChangedSettingsError, match="the photos, their labels or the split"):
        runs.train_run(run, lighter, dataset.open_trainable(data, output, run), output)


def answers_of(data: Path, output: Path, run: config.Run, change) -> np.ndarray:
    """What a run of fold 0 says of its val photos once `change` was made to the split, in place."""
    split = dataset.read_training_splits(output, run)[0]
    change(split)
    decoded = dataset.open_trainable(data, output, run)
    result = runs.train_run(run, {0: split}, decoded, output / change.__name__, when_changed="restart")
    return result.out_of_fold[list(labels.PROBABILITY_COLUMNS)].to_numpy()


def as_it_is(split):
    pass


def pseudo_labels_lighter(split):
    split["weight"] = split["weight"].replace(0.5, 0.1)


def partial_rows_lighter(split):
    split.loc[split["label"] == -1, "weight"] = 0.1


def partial_rows_of_nobody(split):
    split.loc[split["label"] == -1, list(KNOWN.values())] = -1


def partial_rows_of_nobody_lighter(split):
    partial_rows_of_nobody(split)
    partial_rows_lighter(split)


def test_training_hears_weights_and_what_is_known(taught):
    """All with the same steps and random numbers; a photo of which nothing is known teaches nothing at any weight."""
    data, output = taught
    run = run_of(**STUDENT | {"mixing": "none", "folds": (0,), "attribute_loss": 1.0, "loss": "f1_cross_entropy"})
    changes = [as_it_is, pseudo_labels_lighter, partial_rows_lighter, partial_rows_of_nobody]
    found = [answers_of(data, output, run, change) for change in changes]
    for number, one in enumerate(found):
        assert not any(np.allclose(one, other, atol=1e-5) for other in found[:number])
    np.testing.assert_array_equal(answers_of(data, output, run, partial_rows_of_nobody_lighter), found[-1])


def test_pseudo_and_partial_rows_do_not_count_for_the_balance_of_classes(taught):
    data, output = taught
    changes = STUDENT | {"sampling": "shuffle", "class_balance": "full"}
    weights = []
    for run in (run_of(class_balance="full"), run_of(**changes)):
        source = devices.DevicePhotos(dataset.open_trainable(data, output, run), torch.device("cpu"))
        weights.append(loop.FoldTraining(run, 0, dataset.read_training_splits(output, run)[0], source).weights)
    assert torch.equal(*weights) and len(weights[0].unique()) > 2


def test_three_heads_learn_from_partial_rows_too(taught, tmp_path):
    data, output = taught
    run = run_of(**STUDENT | {"head": "three", "attribute_loss": 0.0, "pseudo_labels": "", "age_target": "ordinal"})
    splits = dataset.read_training_splits(output, run)
    result = runs.train_run(run, splits, dataset.open_trainable(data, output, run), tmp_path)
    assert result.history["train_loss"].notna().all()
