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
from mask_lib.training import averaging, loop, run_folder, runs

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
        ({"fold": 1, "data": "def"}, r"fold: 0 → 1; an average would know every fold's people"),
        ({"data": "def"}, "other photos, labels or another split"),
        ({"run": {**MANIFEST["run"], "learning_rate": 0.2}}, r"learning_rate: 0\.1 → 0\.2"),
        ({"preprocessing": {"width": 9, "height": 8}}, "the preprocessing differs"),
        ({"state": {"weight": torch.ones(2, 4), "count": torch.tensor(4)}}, "tensors differ in shape, such as weight"),
        ({"state": {"other": torch.ones(2, 3), "count": torch.tensor(4)}}, "tensors differ in shape, such as weight"),
    ],
    ids=["folds", "photos", "settings", "preprocessing", "shapes", "names"],
)
def test_what_does_not_belong_together_is_refused_with_both_files_named(tmp_path, changes, words):
    first, second = written(tmp_path / "first.safetensors"), written(tmp_path / "second.safetensors", **changes)
    with pytest.raises(ValueError, match=rf"first\.safetensors and \S*second\.safetensors cannot be averaged.*{words}"):
        averaging.mean_state([first, first, second])


def test_only_the_named_settings_need_to_agree(tmp_path):
    faster = {**MANIFEST["run"], "learning_rate": 0.2}
    paths = [written(tmp_path / "first.safetensors"), written(tmp_path / "second.safetensors", run=faster)]
    averaging.check_alike(paths, {"architecture", "weights"})
    with pytest.raises(ValueError, match="weights: imagenet → none"):
        other = written(tmp_path / "third.safetensors", run={**faster, "weights": "none"})
        averaging.check_alike([*paths, other], {"architecture", "weights"})


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


@pytest.mark.parametrize("wanted", [(3, 94, 99), (3, 97, 96), (3, 99, 104)])
def test_a_range_beyond_what_is_kept_is_refused_with_what_there_is(tmp_path, wanted):
    kept(tmp_path, range(95, 103))
    with pytest.raises(ValueError, match="keeps the epochs 95 to 102; train with keep_epochs"):
        averaging.chosen_epochs(tmp_path, *wanted)


def test_where_nothing_was_kept_there_is_nothing_unless_a_range_is_asked_for(tmp_path):
    kept(tmp_path, [])
    assert averaging.chosen_epochs(tmp_path, 10) == {}
    with pytest.raises(ValueError, match="keeps the epochs none"):
        averaging.chosen_epochs(tmp_path, 10, first_epoch=1)
    with pytest.raises(ValueError, match="average_epochs = 0"):
        averaging.chosen_epochs(tmp_path, 0)


class Chain(nn.Module):
    """Tells dark photos from bright ones by a normalised brightness, which two layers in a row scale before."""

    def __init__(self, first: float = 1.0, second: float = 1.0):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(1, 2)
        for layer, value in ((self.first, first), (self.second, second)):
            nn.init.constant_(layer.weight, value)
        self.last.load_state_dict({"weight": torch.tensor([[-1.0], [1.0]]), "bias": torch.zeros(2)})

    def forward(self, batch):
        return self.last(self.norm(self.second(self.first(batch))).mean(dim=(2, 3)))


def bright_and_dark(count=200):
    """Photos of which every other is brighter, in a store on the CPU; their labels; a preprocessing."""
    generator, truth = np.random.default_rng(0), np.arange(count) % 2
    images = (generator.integers(0, 40, (count, 6, 6, 3)) + 100 + 60 * truth[:, None, None, None]).astype(np.uint8)
    opened = store.Store(images, {str(row): row for row in range(count)}, "", store.Frame(6, 6))
    preprocessing = build.Preprocessing(6, 6, "stretch", (0.0,) * 3, (1.0,) * 3)
    return devices.DevicePhotos(opened, torch.device("cpu")), truth, preprocessing


def accuracy(network, source, rows, truth, preprocessing):
    network.eval()
    with torch.no_grad():
        logits = network(preprocessing.prepared(source.batch(rows).float() / 255))
    return (logits.argmax(dim=1).numpy() == truth[rows]).mean()


def test_without_new_batch_norm_statistics_an_average_collapses_and_with_them_it_does_not():
    """Scales 1 and 9, and 9 and 1: both networks are the same function, but their average scales by 5 x 5, not by 9."""
    source, truth, preprocessing = bright_and_dark()
    train, held_out = np.arange(100), np.arange(100, 200)
    members = [Chain(1, 9), Chain(9, 1)]
    for member in members:
        averaging.refresh_batch_norm(predict.Loaded(member, preprocessing, torch.float32), source, train)
        assert accuracy(member, source, held_out, truth, preprocessing) == 1
    states = [member.state_dict() for member in members]
    torch.testing.assert_close(states[0]["norm.running_mean"], states[1]["norm.running_mean"])
    network = Chain()
    network.load_state_dict({name: (value + states[1][name]) / 2 for name, value in states[0].items()})
    assert accuracy(network, source, held_out, truth, preprocessing) == 0.5  # one class for all: chance
    averaging.refresh_batch_norm(predict.Loaded(network, preprocessing, torch.float32), source, train)
    assert accuracy(network, source, held_out, truth, preprocessing) == 1


def test_refreshed_statistics_are_those_of_the_given_photos_as_they_are():
    source, _, preprocessing = bright_and_dark()
    network, rows = Chain(), np.arange(10, 74)  # one batch: its statistics are exact
    network.norm.running_mean.fill_(123)
    averaging.refresh_batch_norm(predict.Loaded(network, preprocessing, torch.float32), source, rows)
    with torch.no_grad():
        seen = network.second(network.first(preprocessing.prepared(source.batch(rows).float() / 255)))
    torch.testing.assert_close(network.norm.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(network.norm.running_var, seen.transpose(0, 1).flatten(1).var(dim=1))


def test_a_refresh_does_not_depend_on_what_was_there_before_and_leaves_weights_alone():
    source, _, preprocessing = bright_and_dark()
    networks = [Chain(), Chain()]
    networks[1].norm.running_var.fill_(55)
    for network in networks:
        averaging.refresh_batch_norm(predict.Loaded(network, preprocessing, torch.float32), source, np.arange(200))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["first.weight"], Chain().first.weight)
    assert networks[0].norm.momentum == Chain().norm.momentum


def test_a_network_without_batch_norm_is_left_alone():
    loaded = predict.Loaded(nn.Linear(2, 2), None, torch.float32)
    averaging.refresh_batch_norm(loaded, None, np.arange(3))  # reads no photo at all


def test_the_moving_average_follows_its_formula_and_forgets_the_first_weights():
    network = nn.Linear(1, 1, bias=False)
    moving, expected = loop.moving_average(network, decay=0.5), None
    for step, value in enumerate([3.0, -1.0, 8.0, 2.0, 5.0] * 10):
        nn.init.constant_(network.weight, value)
        moving.update(network, step=step)
        decay = min(max(step - 1, 0) / (max(step - 1, 0) + 10), 0.5)
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert moving.module.weight.item() == pytest.approx(expected)


# A run's own averages, and which are picked.

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


def files_of_training(output):
    """What training left in the run's folder, by name."""
    paths = [path for path in of_toy(output).rglob("*") if path.is_file()]
    others = ("averaging.json", "oof.swa.csv", "oof.ema.csv", "swa.safetensors")
    return {str(path.relative_to(output)): path.read_bytes() for path in paths if path.name not in others}


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


def test_training_s_files_stay_and_the_others_say_what_was_tried_scored_and_picked(trained, averaged):
    _, output, found = averaged
    assert files_of_training(output) == files_of_training(trained[1])
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
    ("choice", "scored", "expected"),
    [
        ("best", {"best": 0.5, "swa": 0.6}, "swa"),
        ("best", {"best": 0.5, "swa": 0.4}, "best"),
        ("best", {"best": 0.5, "ema": 0.5, "swa": 0.5}, "best"),
        ("best", {"best": 0.5, "ema": 0.7, "swa": 0.6}, "ema"),
        ("last", {"last": 0.4, "swa": 0.6}, "last"),
        ("swa", {"best": 0.5, "swa": 0.1}, "swa"),
    ],
)
def test_an_average_no_better_than_its_best_member_is_picked_only_if_asked_for(choice, scored, expected):
    assert averaging.pick(choice, {name: {"macro_f1": value} for name, value in scored.items()}) == expected


@pytest.mark.parametrize("name", ["swa", "ema"])
def test_inference_and_every_table_go_by_the_pick(copied, monkeypatch, name):
    data, output = copied
    before = run_folder.read_run(of_toy(output))
    prefer(monkeypatch, name)
    found = averaging.average_run(data, output, "toy")
    labeled, splits, evaluators = averaging.open_evaluators(data, output, before.settings)
    used, run = runs.checkpoints(output, "toy", labeled, splits), run_folder.read_run(of_toy(output))
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


def test_averaging_twice_gives_the_same_files(averaged, tmp_path):
    data, output, _ = averaged
    again = shutil.copytree(output, tmp_path / "output")
    (again / "store").rename(tmp_path / "store")
    averaging.average_run(data, again, "toy")
    for path in sorted(of_toy(output).rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(output)).read_bytes(), path.name


def test_averaging_that_is_interrupted_leaves_trainings_own_weights_in_use_until_it_is_done_again(copied, monkeypatch):
    data, output = copied
    before = run_folder.digests(of_toy(output))
    prefer(monkeypatch, "swa")
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


def test_training_on_forgets_what_was_picked(copied, monkeypatch):
    data, output = copied
    prefer(monkeypatch, "swa")
    averaging.average_run(data, output, "toy")
    runs.write_scores(toys.train(data, output, when_changed="restart", **SETTINGS, seed=1))
    assert run_folder.read_averaging(of_toy(output)) is None
    assert run_folder.find_runs([output])[1].empty


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


def test_weights_of_other_labels_than_todays_are_refused_and_nothing_is_lost(copied):
    data, output = copied
    averaging.average_run(data, output, "toy")
    write_splits(make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    with pytest.raises(ValueError, match=r"epoch002\.safetensors was trained on other photos, labels or folds"):
        averaging.average_run(data, output, "toy")
    assert of_toy(output, "averaging.json").exists()


def test_an_epoch_of_another_fold_among_the_members_is_refused(copied):
    data, output = copied
    stray = of_toy(output, "fold1", "checkpoint", "epoch003.safetensors")
    shutil.copyfile(stray, of_toy(output, "fold0", "checkpoint", "epoch003.safetensors"))
    with pytest.raises(ValueError, match=r"fold0/checkpoint/epoch003\.safetensors was trained on other"):
        averaging.average_run(data, output, "toy")
