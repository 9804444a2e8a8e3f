"""Prediction prepares photos exactly as training did, averages folds and views, and answers every row."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from mask_lib import devices, files, folds, inference, labels, models, photos, runs, store

COLUMNS = list(labels.PROBABILITY_COLUMNS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder and an output folder with a finished toy run of two folds."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    runs.write_scores(toys.train(data, output))
    return data, output


@pytest.fixture
def copied(trained, tmp_path):
    """The same, to be changed by a test."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)


def labeled_store(data, output):
    return inference.open_photos(data, output, photos.labeled(output), toys.FRAME)


def test_a_checkpoint_alone_gives_the_out_of_fold_probabilities_again(trained):
    """Training, validation and inference cannot differ: the manifest is all that inference knows."""
    data, output = trained
    splits, opened = folds.read_splits(output), labeled_store(data, output)
    path = inference.checkpoints(output, "toy", opened, splits)[1]
    saved = pd.read_csv(output / "runs" / "toy" / "fold1" / "oof.csv")
    source = devices.DevicePhotos(opened, torch.device("cpu"))
    found = inference.mean_over_folds({1: path}, source, opened.rows(list(saved["path"])), num_tta=1)
    np.testing.assert_allclose(found, saved[COLUMNS].to_numpy(), atol=1e-6)


def test_both_files_hold_what_the_contract_says(trained):
    data, output = trained
    inference.predict_run(data, output, "toy")
    test = pd.read_csv(output / "inferences" / "toy.test.csv")
    test_val = pd.read_csv(output / "inferences" / "toy.test_val.csv")
    assert list(test.columns) == ["ImageID", *COLUMNS]
    assert list(test_val.columns) == ["path", "label", *COLUMNS]
    assert list(test["ImageID"]) == list(pd.read_csv(data / "eval" / "info.csv")["ImageID"])
    split = folds.read_splits(output)[0]
    assert set(test_val["path"]) == set(split["path"][split["split"] == "test_val"])
    np.testing.assert_allclose(test[COLUMNS].sum(axis=1), 1, atol=1e-5)


def test_the_mean_over_folds_is_the_mean_of_each_fold(trained):
    data, output = trained
    opened = labeled_store(data, output)
    found = inference.checkpoints(output, "toy", opened, folds.read_splits(output))
    source, rows = devices.DevicePhotos(opened, torch.device("cpu")), np.arange(7)
    each = [inference.mean_over_folds({fold: path}, source, rows, 1) for fold, path in found.items()]
    assert len(each) == 2
    np.testing.assert_allclose(inference.mean_over_folds(found, source, rows, 1), np.mean(each, axis=0))


def test_an_eval_photo_that_is_listed_but_not_in_the_table_is_answered_all_the_same(copied):
    data, output = copied
    table = pd.read_csv(output / "tables" / "photos.csv")
    lost = table["path"][table["split"] == "eval"].iloc[3]
    files.write_csv(table[table["path"] != lost], output / "tables" / "photos.csv")
    (data / "eval" / "images" / lost).write_bytes(b"")
    test, _ = inference.predict_run(data, output, "toy")
    assert list(test["ImageID"]) == list(pd.read_csv(data / "eval" / "info.csv")["ImageID"])
    others = test[test["ImageID"] != lost]
    np.testing.assert_allclose(test.set_index("ImageID").loc[lost, COLUMNS].astype(float), others[COLUMNS].mean())


def test_a_photo_that_cannot_be_read_gets_the_mean_of_the_others():
    test = pd.DataFrame([["a.jpg", *np.eye(18)[3]], ["b.jpg", *np.eye(18)[5]]], columns=["ImageID", *COLUMNS])
    whole = inference.with_every_id(test, ["b.jpg", "broken.jpg", "a.jpg"])
    assert list(whole["ImageID"]) == ["b.jpg", "broken.jpg", "a.jpg"]
    assert whole.loc[1, "p03"] == whole.loc[1, "p05"] == 0.5
    assert whole.loc[0, "p05"] == whole.loc[2, "p03"] == 1


def test_a_run_that_is_not_trained_to_its_end_is_named_with_what_to_run(copied):
    data, output = copied
    with pytest.raises(
        FileNotFoundError, match=r"runs/absent holds no finished run: run 03_one_model with run: absent"
    ):
        inference.predict_run(data, output, "absent")
    (output / "runs" / "toy" / "scores.json").unlink()
    with pytest.raises(FileNotFoundError, match="run 03_one_model"):
        inference.chosen_runs(output, "")


def test_training_more_makes_a_run_unfinished_until_it_is_scored(copied):
    data, output = copied
    toys.train(data, output, when_changed="restart", epochs=1, warmup_epochs=0.0)
    assert inference.trained_runs(output) == []


def test_without_a_name_every_finished_run_is_predicted(trained):
    _, output = trained
    assert inference.chosen_runs(output, "") == ["toy"]


def test_people_trained_on_cannot_become_held_out_people(copied):
    """Splits made anew after training would put trained people into test_val and flatter its score."""
    data, output = copied
    folds.write_splits(folds.make_splits(photos.labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match=r"fold0.*was trained on other photos, labels or folds"):
        inference.predict_run(data, output, "toy")


def test_a_fold_of_other_settings_does_not_enter_the_mean(copied):
    data, output = copied
    runs.write_scores(toys.train(data, output, when_changed="restart", folds=(1,), epochs=1, warmup_epochs=0.0))
    splits, opened = folds.read_splits(output), labeled_store(data, output)
    assert list(inference.checkpoints(output, "toy", opened, splits)) == [1]
    config_path = output / "runs" / "toy" / "config.json"
    files.write_json({**files.read_json(config_path), "folds": []}, config_path)
    with pytest.raises(ValueError, match=r"fold0.*other settings"):
        inference.checkpoints(output, "toy", opened, splits)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_views_are_as_many_as_asked_and_the_first_is_the_photo_itself(count):
    batch = torch.rand(2, 3, 20, 14)
    views = [view(batch) for view in inference.views_of(count)]
    assert len(views) == count
    assert torch.equal(views[0], batch)
    assert len({view.numpy().tobytes() for view in views}) == count


def test_half_of_the_views_are_the_others_mirrored():
    batch = torch.rand(2, 3, 20, 14)
    views = [view(batch) for view in inference.views_of(8)]
    for plain, mirrored in zip(views[:4], views[4:], strict=True):
        assert torch.equal(plain.flip(3), mirrored)


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="num_tta = 3"):
        inference.views_of(3)


def test_zooming_keeps_the_middle_and_drops_the_rim():
    batch = torch.zeros(1, 1, 40, 40)
    batch[..., 0, :] = 1  # the top row
    batch[..., 19:21, 19:21] = 1
    zoomed = inference.zoomed(batch, 0.8)
    assert zoomed[..., :3, :].max() == 0
    assert zoomed[..., 19:21, 19:21].min() > 0.9


def test_views_are_averaged_as_probabilities(tmp_path):
    class Brightness(torch.nn.Module):
        def forward(self, batch):
            return torch.nn.functional.pad(batch.mean(dim=(1, 2, 3))[:, None] * 30, (0, 17))

    images = np.random.default_rng(0).integers(0, 255, (5, 12, 10, 3), dtype=np.uint8)
    opened = store.Store(images, {str(row): row for row in range(5)}, "", store.Frame(10, 12))
    source = devices.DevicePhotos(opened, torch.device("cpu"))
    preprocessing = models.Preprocessing(10, 12, "stretch", (0.5,) * 3, (0.5,) * 3)
    found = inference.predict(Brightness(), source, np.arange(5), preprocessing, num_tta=4)
    batch = source.batch(np.arange(5)).float() / 255
    views = [Brightness()(preprocessing.prepared(view(batch))).softmax(1).numpy() for view in inference.views_of(4)]
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-6)


def test_surest_gives_one_photo_a_predicted_class_and_doubtful_the_flattest():
    rows = np.full((4, 18), 0.01)
    rows[[0, 1, 2, 3], [2, 2, 7, 0]] = [0.6, 0.9, 0.5, 0.2]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(path=list("abcd"))
    assert list(inference.surest(table)["path"]) == ["d", "b", "c"]
    assert list(inference.most_doubtful(table, 2)["path"]) == ["d", "c"]
