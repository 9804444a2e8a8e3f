"""Averages of weights are plain means of what belongs together, and batch normalisation is estimated anew."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch import nn

from mask_lib.base import files, labels, scores
from mask_lib.data import photos, store
from mask_lib.data.splits import make_splits, read_splits, write_splits
from mask_lib.ensemble import inference
from mask_lib.models import build, checkpoint, devices, predict
from mask_lib.training import averaging, loop, run_folder, runs, step

MANIFEST = {
    "run": {"run": "toy", "architecture": "test_resnet", "weights": "imagenet", "learning_rate": 0.1, "seed": 0},
    "fold": 0,
    "data": "abc",
    "preprocessing": {"width": 8, "height": 8},
}


def written(path, state=None, **changes):
    """A checkpoint of a few tensors whose manifest is MANIFEST with changes."""
    state = state or {"weight": torch.ones(2, 3), "count": torch.tensor(4)}
    checkpoint.write_checkpoint(path, state, {**MANIFEST, **changes})
    return path


def test_the_mean_is_the_plain_mean_of_every_weight(tmp_path):
    states = [{"weight": torch.randn(4, 5), "seen": torch.tensor(number)} for number in range(3)]
    paths = [written(tmp_path / f"{number}.safetensors", state) for number, state in enumerate(states)]
    found = averaging.mean_state(paths)
    expected = np.mean([state["weight"].double().numpy() for state in states], axis=0).astype(np.float32)
    np.testing.assert_array_equal(found["weight"].numpy(), expected)
    assert found["weight"].dtype == torch.float32
    assert found["seen"] == 2 and found["seen"].dtype == torch.int64
    torch.testing.assert_close(averaging.mean_state(paths[:1]), states[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": {**MANIFEST["run"], "learning_rate": 0.2, "seed": 1}}, "seed: 0 → 1"),
        ({"preprocessing": {"width": 9, "height": 8}}, "the preprocessing differs"),
        ({"state": {"weight": torch.ones(2, 4), "count": torch.tensor(4)}}, "tensors differ in shape, such as weight"),
        ({"state": {"other": torch.ones(2, 3), "count": torch.tensor(4)}}, "tensors differ in shape, such as weight"),
    ],
    ids=["first weights", "preprocessing", "shapes", "names"],
)
def test_what_does_not_belong_together_is_refused_with_both_files_named(tmp_path, changes, words):
    first, second = written(tmp_path / "first.safetensors"), written(tmp_path / "second.safetensors", **changes)
    with pytest.raises(ValueError, match=rf"first\.safetensors and \S*second\.safetensors cannot be averaged.*{words}"):
        averaging.check_alike([first, first, second])


def kept(folder, epochs):
    for epoch in epochs:
        loop.epoch_path(folder, epoch).write_bytes(b"")
    (folder / "last.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((10,), range(95, 103)),
        ((3,), range(100, 103)),
        ((3, 96, 98), range(96, 99)),
        ((3, 99, 0), range(99, 103)),
        ((3, 0, 96), range(95, 97)),
        ((3, 97, 97), [97]),
    ],
)
def test_the_last_epochs_or_any_range_are_chosen(tmp_path, wanted, expected):
    kept(tmp_path, range(95, 103))
    assert list(averaging.chosen_epochs(tmp_path, *wanted)) == list(expected)


@pytest.mark.parametrize(
    ("epochs", "wanted", "words"),
    [
        *(
            (range(95, 103), (3, *ends), "95 to 102; train with keep_epochs")
            for ends in ((94, 99), (97, 96), (99, 104))
        ),
        ([], (10, 1), "keeps the epochs none"),
        ([], (0,), "average_epochs = 0"),
    ],
)
def test_a_range_beyond_what_is_kept_is_refused_with_what_there_is(tmp_path, epochs, wanted, words):
    kept(tmp_path, epochs)
    with pytest.raises(ValueError, match=words):
        averaging.chosen_epochs(tmp_path, *wanted)


@pytest.mark.parametrize(
    ("count", "tolerance"), [(64, 1e-5), (128, 0.05)], ids=["one batch", "two, although the dark photos come first"]
)
def test_refreshed_statistics_are_those_of_the_given_photos_as_they_are(count, tolerance):
    is_bright, generator = np.arange(200) >= 74, np.random.default_rng(0)
    images = generator.integers(0, 40, (200, 6, 6, 3)) + 60 * is_bright[:, None, None, None]
    opened = store.Store(images.astype(np.uint8), {str(row): row for row in range(200)}, "", store.Frame(6, 6))
    source, rows = devices.DevicePhotos(opened, torch.device("cpu")), np.arange(10, 10 + count)
    preprocessing = build.Preprocessing(6, 6, "stretch", (0.0,) * 3, (1.0,) * 3)
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))
    network[1].running_mean.fill_(123)
    network[1].running_var.fill_(55)
    averaging.refresh_batch_norm(predict.Loaded(network, preprocessing, torch.float32), source, rows)
    with torch.no_grad():
        seen = network[0](preprocessing.prepared(source.batch(rows).float() / 255))
    assert network[1].running_mean.item() == pytest.approx(seen.mean().item(), rel=1e-4)
    assert network[1].running_var.item() == pytest.approx(seen.var().item(), rel=tolerance)


def test_the_moving_average_follows_its_formula_and_forgets_the_first_weights():
    network = nn.Linear(1, 1, bias=False)
    moving, expected = step.moving_average(network, decay=0.5), None
    for number, value in enumerate([3.0, -1.0, 8.0, 2.0, 5.0] * 10):
        nn.init.constant_(network.weight, value)
        moving.update(network, step=number)
        decay = min(max(number - 1, 0) / (max(number - 1, 0) + 10), 0.5)
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert moving.module.weight.item() == pytest.approx(expected)


# A run's own averages, and which are picked.

SETTINGS = {"epochs": 4, "keep_epochs": 3, "ema_decay": 0.8, "weights": "none", "dropout": 0.0}


@pytest.fixture(scope="module")
def trained(prepared):
    """A data folder and an output folder with a finished toy run that kept its last three epochs."""
    runs.write_scores(toys.train(*prepared, **SETTINGS))
    return prepared


@pytest.fixture(scope="module")
def averaged(trained, tmp_path_factory):
    """The same run averaged, in folders of its own; what averaging said, and the rows that it refreshed on."""
    home, rows, refresh = tmp_path_factory.mktemp("averaged"), [], averaging.refresh_batch_norm
    data, output = (shutil.copytree(folder, home / folder.name) for folder in trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(averaging, "refresh_batch_norm", lambda *given: rows.append(given[2]) or refresh(*given))
        return data, output, averaging.average_run(data, output, "toy"), rows


def of_toy(output, *parts):
    return output.joinpath("runs", "toy", *parts)


def contents(output):
    """Every file in the run's folder."""
    return {str(path.relative_to(output)): path.read_bytes() for path in of_toy(output).rglob("*.*")}


def test_the_average_is_the_mean_of_the_kept_epochs_with_new_statistics(averaged):
    output = averaged[1]
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


def test_statistics_come_from_the_folds_own_training_photos_alone(averaged):
    _, output, _, seen = averaged
    paths = list(photos.read_labeled(output)["path"])
    for rows, split in zip(seen, read_splits(output).values(), strict=True):
        assert sorted(paths[row] for row in rows) == sorted(split["path"][split["split"] == "train"])


def test_training_s_files_stay_and_the_others_say_what_was_tried_scored_and_picked(trained, averaged):
    _, output, found, _ = averaged
    before, after = contents(trained[1]), contents(output)
    assert before.items() <= after.items()
    added = {name.rpartition("/")[2] for name in after.keys() - before.keys()}
    assert added == {"averaging.json", "oof.swa.csv", "oof.ema.csv", "swa.safetensors"}
    saved = files.read_json(of_toy(output, "averaging.json"))
    assert saved == found.saved and saved["trained"] == "best"
    for fold, one in saved["folds"].items():
        assert list(one["scores"]) == ["best", "ema", "swa"]
        assert one["scores"][one["picked"]]["macro_f1"] == max(each["macro_f1"] for each in one["scores"].values())
        for name, told in one["scores"].items():
            table = pd.read_csv(of_toy(output, f"fold{fold}", "oof.csv" if name == "best" else f"oof.{name}.csv"))
            assert list(table) == ["path", "label", *labels.probability_columns()]
            assert scores.summarise(*scores.from_probabilities(table)) == pytest.approx(told)
    table = found.by_fold()
    assert list(table.index) == [0, 1] and (table["epochs averaged"] == 3).all()
    assert (table["best"] >= table["best member"]).all()
    assert "changes its macro F1 by" in found.summary()
    assert run_folder.find_runs([output])[1].empty


@pytest.mark.parametrize(
    ("choice", "scored", "lost", "expected"),
    [
        ("best", {"best": 0.5, "swa": 0.6}, (), "swa"),
        ("best", {"best": 0.5, "swa": 0.4}, (), "best"),
        ("best", {"best": 0.5, "ema": 0.5, "swa": 0.5}, (), "best"),
        ("best", {"best": 0.5, "ema": 0.7, "swa": 0.6}, (), "ema"),
        ("best", {"best": 0.5, "ema": 0.7, "swa": 0.6}, {"ema"}, "swa"),
        ("last", {"last": 0.4, "swa": 0.6}, {"swa"}, "last"),
        ("swa", {"best": 0.5, "swa": 0.1}, {"swa"}, "swa"),
    ],
)
def test_an_average_worse_than_training_left_it_is_picked_only_if_asked_for(choice, scored, lost, expected):
    """Worse by its score, or on looks never seen."""
    assert averaging.pick(choice, {name: {"macro_f1": value} for name, value in scored.items()}, lost) == expected


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_inference_and_every_table_go_by_the_pick(copied, monkeypatch, name):
    data, output = copied
    before = run_folder.read_run(of_toy(output))
    monkeypatch.setattr(averaging, "pick", lambda *given: name)  # whatever it scores
    found = averaging.average_run(data, output, "toy")
    source, splits, evaluators = averaging.open_evaluators(data, output, before.settings)
    used, run = runs.checkpoints(output, "toy", source.store, splits), run_folder.read_run(of_toy(output))
    assert {path.stem for path in used.values()} == {name}
    for fold, path in used.items():
        expected = evaluators[fold].out_of_fold(*checkpoint.read_checkpoint(path))
        oof = run.out_of_fold[run.out_of_fold["fold"] == fold][labels.probability_columns()]
        np.testing.assert_allclose(oof, expected[labels.probability_columns()], atol=1e-6)
    assert not np.allclose(run.out_of_fold["p00"], before.out_of_fold["p00"])
    told = scores.summarise(*scores.from_probabilities(found.tables[name]))
    assert run.intervals.loc["macro_f1", "value"] == pytest.approx(told["macro_f1"])
    assert run.scores["training_seconds"] == before.scores["training_seconds"]
    result = toys.train(data, output, **SETTINGS)  # what running 03_one_model again does: it only reads
    pd.testing.assert_frame_equal(result.out_of_fold, before.out_of_fold, check_exact=True)


def test_averaging_that_is_interrupted_leaves_trainings_own_weights_in_use_until_it_is_done_again(copied, monkeypatch):
    data, output = copied
    before = run_folder.digests(of_toy(output))
    monkeypatch.setattr(averaging, "pick", lambda *given: "swa")
    averaging.average_run(data, output, "toy")
    picked = run_folder.digests(of_toy(output))
    assert picked != before
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(runs, "table_scores", None)  # the other files are written by then
        averaging.average_run(data, output, "toy")
    assert run_folder.digests(of_toy(output)) == before
    assert run_folder.find_runs([output])[1].empty
    inference.predict_run(data, output, "toy")
    averaging.average_run(data, output, "toy")
    assert run_folder.digests(of_toy(output)) == picked


def test_a_run_that_kept_no_epochs_is_left_as_it_is(copied):
    data, output = copied
    runs.write_scores(toys.train(data, output, when_changed="restart", folds=(0,), epochs=1))
    found = averaging.average_run(data, output, "toy")
    assert found.saved["folds"]["0"]["picked"] == "best"
    assert "kept no epochs" in found.summary()
    assert not list(of_toy(output, "fold0").rglob("*swa*"))


def test_an_average_that_was_chosen_but_not_made_yet_is_not_replaced_by_another(copied):
    data, output = copied
    changes = {**SETTINGS, "folds": (0,), "checkpoint_choice": "swa"}
    runs.write_scores(toys.train(data, output, when_changed="restart", **changes))
    with pytest.raises(FileNotFoundError, match=r"run 05_average_weights with run: toy first"):
        inference.predict_run(data, output, "toy")
    averaging.average_run(data, output, "toy")
    assert files.read_json(of_toy(output, "averaging.json"))["folds"]["0"]["picked"] == "swa"
    inference.predict_run(data, output, "toy")


def test_weights_of_another_fold_or_of_other_labels_than_todays_are_refused_and_nothing_is_lost(copied):
    data, output = copied
    averaging.average_run(data, output, "toy")
    stray = of_toy(output, "fold1", "checkpoint", "epoch003.safetensors")
    shutil.copyfile(stray, of_toy(output, "fold0", "checkpoint", "epoch003.safetensors"))
    with pytest.raises(ValueError, match=r"fold0/checkpoint/epoch003\.safetensors was trained on other"):
        averaging.average_run(data, output, "toy")
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match=r"epoch002\.safetensors was trained on other photos, labels or folds"):
        averaging.average_run(data, output, "toy")
    assert of_toy(output, "averaging.json").exists()
