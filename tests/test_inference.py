"""Prediction prepares photos exactly as training did, averages folds and views, and answers every row."""

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from mask_lib import devices, files, folds, inference, labels, models, store

COLUMNS = list(labels.PROBABILITY_COLUMNS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder and an output folder with a finished toy run of two folds."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    result = toys.train(data, output)
    runs_folder = output / "runs" / "toy"
    files.write_json({}, runs_folder / "scores.json")
    return data, output, result


def test_a_checkpoint_alone_gives_the_out_of_fold_probabilities_again(trained):
    """Training, validation and inference cannot differ: the manifest is all that inference knows."""
    data, output, _ = trained
    split = folds.read_splits(output)[1]
    validated = split[split["split"] == "val"].assign(split="train").reset_index(drop=True)
    path = inference.checkpoints(output, "toy", "best")[1]
    found = inference.mean_over_folds({1: path}, data, output, validated, num_tta=1)
    saved = pd.read_csv(output / "runs" / "toy" / "fold1" / "oof.csv")
    assert list(saved["path"]) == list(validated["path"])
    np.testing.assert_allclose(found, saved[COLUMNS].to_numpy(), atol=1e-6)


def test_both_files_hold_what_the_contract_says(trained):
    data, output, _ = trained
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
    data, output, _ = trained
    table = pd.read_csv(output / "tables" / "photos.csv").query("split == 'eval'").reset_index(drop=True)
    found = inference.checkpoints(output, "toy", "best")
    each = [inference.mean_over_folds({fold: path}, data, output, table, 1) for fold, path in found.items()]
    np.testing.assert_allclose(inference.mean_over_folds(found, data, output, table, 1), np.mean(each, axis=0))


def test_a_photo_that_cannot_be_read_is_answered_all_the_same():
    test = pd.DataFrame([["a.jpg", *np.eye(18)[3]], ["b.jpg", *np.eye(18)[5]]], columns=["ImageID", *COLUMNS])
    whole = inference.with_every_id(test, ["b.jpg", "broken.jpg", "a.jpg"])
    assert list(whole["ImageID"]) == ["b.jpg", "broken.jpg", "a.jpg"]
    assert whole.loc[1, "p03"] == whole.loc[1, "p05"] == 0.5
    assert whole.loc[0, "p05"] == whole.loc[2, "p03"] == 1


def test_a_run_that_is_not_trained_is_named_with_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"runs/absent holds no trained fold: run 03_one_model"):
        inference.checkpoints(tmp_path, "absent", "best")
    with pytest.raises(FileNotFoundError, match="run 03_one_model"):
        inference.chosen_runs(tmp_path, "")


def test_without_a_name_every_finished_run_is_predicted(trained):
    _, output, _ = trained
    assert inference.chosen_runs(output, "") == ["toy"]


def test_a_checkpoint_of_another_fold_is_refused(trained, tmp_path):
    data, output, _ = trained
    table = pd.read_csv(output / "tables" / "photos.csv").query("split == 'eval'").reset_index(drop=True)
    path = inference.checkpoints(output, "toy", "best")[0]
    with pytest.raises(ValueError, match="was trained on fold 0"):
        inference.mean_over_folds({1: path}, data, output, table, 1)


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

    photos = np.random.default_rng(0).integers(0, 255, (5, 12, 10, 3), dtype=np.uint8)
    opened = store.Store(photos, {str(row): row for row in range(5)}, "", store.Frame(10, 12))
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
