"""Averages of weights are plain means of what belongs together, and batch normalisation is estimated anew."""

import numpy as np
import pytest
import torch
from torch import nn

from mask_lib.data import store
from mask_lib.models import build, checkpoint, devices, predict
from mask_lib.training import averaging, loop

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
        ({"state": {"weight": torch.ones(2, 4), "count": torch.tensor(4)}}, r"weight: \[2, 3\] → \[2, 4\]"),
        ({"state": {"other": torch.ones(2, 3), "count": torch.tensor(4)}}, r"2 tensors.*weight: \[2, 3\] → None"),
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
