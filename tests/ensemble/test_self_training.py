"""From a trained run to its pseudo-labels: by fold, and deaf to the labels of whom the fold validates."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import files, labels
from mask_lib.data import clean_labels
from mask_lib.data.splits import write_splits
from mask_lib.ensemble import self_training
from mask_lib.training import dataset, pseudo_labels, runs

COLUMNS = labels.probability_columns()


def test_each_fold_predicts_every_evaluation_photo_by_itself(trained):
    data, output = trained
    found = self_training.predictions(data, output, "toy")
    assert list(found) == [0, 1]
    for table in found.values():
        assert list(table) == ["path", *COLUMNS] and len(table) == 12
        assert all(path.startswith(str(data)) for path in table["path"])
        np.testing.assert_allclose(table[COLUMNS].sum(axis=1), 1, atol=1e-5)
    assert not np.allclose(found[0][COLUMNS], found[1][COLUMNS], atol=1e-3)


def test_no_validation_label_flows_into_a_folds_pseudo_labels(trained, tmp_path):
    """Whatever the people of fold 0's validation part are said to be: fold 0's pseudo-labels keep every bit."""
    (data, output), other = trained, tmp_path / "other"
    splits = clean_labels.read_clean_splits(output)
    validated = splits[0].loc[splits[0]["split"] == "val", "path"]
    for fold, split in splits.items():
        turned = split["label"].map(dict(zip(toys.CLASSES, toys.CLASSES[1:] + toys.CLASSES[:1], strict=True)))
        splits[fold] = split.assign(label=split["label"].mask(split["path"].isin(validated), turned))
    shutil.copytree(output / "tables", other / "tables")
    write_splits(splits, other)
    run = toys.config.Run(**toys.SETTINGS)
    runs.write_scores(runs.train_run(run, splits, dataset.open_trainable(data, other, run), other))
    before, after = (self_training.predictions(data, home, "toy") for home in (output, other))
    pd.testing.assert_frame_equal(before[0], after[0], check_exact=True)
    assert not np.allclose(before[1][COLUMNS], after[1][COLUMNS], atol=1e-3)  # which trains on them
    tables = [pseudo_labels.choose(found, threshold=0, class_share=0.5) for found in (before, after)]
    first = [table[table["fold"] == 0] for table in tables]
    assert len(first[0])
    pd.testing.assert_frame_equal(*first, check_exact=True)


def test_the_last_network_is_asked_since_the_best_was_chosen_by_validation_labels(trained, tmp_path):
    data, output = trained
    changed = shutil.copytree(output, tmp_path / "output")
    expected = self_training.predictions(data, output, "toy")
    for best in changed.glob("runs/toy/fold*/checkpoint/best.safetensors"):
        best.unlink()
    for fold, table in self_training.predictions(data, changed, "toy").items():
        pd.testing.assert_frame_equal(table, expected[fold])


def test_the_command_writes_the_table_where_a_new_run_finds_it_and_tells_what_it_holds(trained, monkeypatch, capsys):
    data, output = trained
    options = ["--threshold", "0", "--class-share", "0.5"]
    monkeypatch.setattr("sys.argv", ["self_training", str(data), str(output), "toy", *options])
    self_training.main()
    found = pseudo_labels.read(output, "toy", clean_labels.read_clean_splits(output))
    assert 0 < len(found) < 24 and set(found["fold"]) == {0, 1}
    told = capsys.readouterr().out
    assert "toy: pseudo-labels\nfold 0: " in told and f"fold 1: {(found['fold'] == 1).sum()} photos of " in told
    assert self_training.summary("toy", found[:0]) == "toy: no photo is confident enough"


def test_a_run_of_other_folds_is_refused(trained, tmp_path):
    data, output = trained
    changed = shutil.copytree(output, tmp_path / "output")
    splits = clean_labels.read_clean_splits(changed)
    write_splits({0: splits[1], 1: splits[0]}, changed)
    with pytest.raises(ValueError, match=r"fold0.*was trained on other photos, labels or folds"):
        self_training.make(data, changed, "toy")


@pytest.mark.parametrize(("name", "value"), [("schedule", "plateau"), ("early_stop_epochs", 3)])
def test_a_run_whose_training_listened_to_validation_is_refused(name, value):
    with pytest.raises(ValueError, match=f"run toy was trained with {name}: {value}: its training listened"):
        self_training.refuse_feedback(toys.config.Run(**{**toys.SETTINGS, name: value}))


def test_copies_of_validated_photos_get_no_pseudo_label(tmp_path):
    split = pd.DataFrame({"path": ["a/1.jpg", "b/1.jpg", "c/1.jpg"], "split": ["train", "val", "test_val"]})
    leaks = pd.DataFrame({"ImageID": ["x.jpg", "y.jpg", "z.jpg"], "path": split["path"], "label": 0, "distance": 0})
    files.write_csv(leaks, tmp_path / "tables" / "data_leak.phash.csv")
    table = pd.DataFrame({"path": [f"/data/eval/images/{name}.jpg" for name in "wxyz"]})
    kept = self_training.without_copies(table, split, tmp_path)
    assert kept["path"].map(os.path.basename).tolist() == ["w.jpg", "x.jpg"]
