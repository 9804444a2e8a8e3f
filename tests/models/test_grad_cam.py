"""Heat maps lie where they must on networks built so that the answer is known, and on timm's they keep to the rules."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from torch import nn

from mask_lib.base import files, scores
from mask_lib.data import store
from mask_lib.models import build, devices, grad_cam, networks, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import comparison, run_folder, runs

SIDE = 32  # pixels
PLAIN = build.Preprocessing(SIDE, SIDE, "stretch", (0.0,) * 3, (1.0,) * 3)


def colours() -> nn.Sequential:
    """A network whose classes 0, 1 and 2 are how much red, green and blue there is."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].weight.data = torch.eye(3).view(3, 3, 1, 1)
    return network


def noise(count: int, shape: tuple[int, ...] = (SIDE, SIDE, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_where_the_class_speaks_the_map_is_warm_elsewhere_and_of_another_class_it_stays_cold():
    photos = np.zeros((3, SIDE, SIDE, 3), dtype=np.uint8)
    photos[:, 2:8, 3:9, 0] = 255  # red above left, blue below right, and no green
    photos[:, 22:30, 20:30, 2] = 200
    red, blue, green = grad_cam.heatmaps(colours(), PLAIN, photos, np.array([0, 2, 1]))
    assert red[2:8, 3:9].min() == red.max() == 1
    assert blue[22:30, 20:30].min() == blue.max() == 1
    assert red[10:].max() == blue[:20].max() == green.max() == 0


def test_each_photo_is_explained_alone_whatever_its_batch_and_no_photo_has_no_map(monkeypatch):
    network, photos, classes = build.build_network("test_resnet"), noise(7), np.array([0, 3, 3, 17, 5, 1, 2])
    together = grad_cam.heatmaps(network, PLAIN, photos, classes)
    monkeypatch.setattr(grad_cam, "EXPLAIN_BATCH", 2)
    np.testing.assert_allclose(grad_cam.heatmaps(network, PLAIN, photos, classes), together, atol=1e-4)
    assert grad_cam.heatmaps(network, PLAIN, noise(0), classes[:0]).shape == (0, SIDE, SIDE)


def test_photos_go_through_the_preprocessing_of_their_checkpoint():
    photos = np.full((1, SIDE, SIDE, 3), 100, dtype=np.uint8)
    photos[0, :8] = 160
    shifted = build.Preprocessing(SIDE, SIDE, "stretch", (0.5,) * 3, (0.5,) * 3)  # what is below half becomes negative
    assert grad_cam.heatmaps(colours(), PLAIN, photos, np.array([0]))[0, 20:].min() > 0.5
    assert grad_cam.heatmaps(colours(), shifted, photos, np.array([0]))[0, 20:].max() == 0


@pytest.mark.parametrize(
    ("architecture", "side", "channels"),
    [("test_resnet", 64, 1), ("test_efficientnet", 64, 4), ("test_convnext", 64, 3), ("test_vit", 160, 4)],
)
def test_networks_of_timm_are_explained_and_left_as_they_were(architecture, side, channels):
    torch.manual_seed(0)
    network = build.build_network(architecture, channels=channels)
    preprocessing = build.preprocessing_of(architecture, store.Frame(side, side, channels=channels))
    photos = noise(3, (side, side, channels))
    before = network.eval()(torch.ones(1, channels, side, side))
    maps = grad_cam.heatmaps(network, preprocessing, photos, np.array([0, 9, 17]))
    assert maps.shape == (3, side, side) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() == 1
    assert set(maps.reshape(3, -1).max(axis=1)) <= {0.0, 1.0}
    assert torch.equal(network(torch.ones(1, channels, side, side)), before)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "head", "photo", "name"),
    [
        ("test_resnet", "linear", (64, 64), "layer4"),
        ("test_efficientnet", "linear", (64, 64), "bn2"),
        ("test_resnet", "linear", (24, 16), "layer3"),  # the last stage sees one place of so small a photo
        ("test_resnet", "attention", (64, 64), "global_pool"),  # which passes maps through; class maps are answers
    ],
)
def test_the_last_convolution_stage_that_tells_places_apart_is_what_is_looked_at(architecture, head, photo, name):
    network = build.build_network(architecture, head=head).eval()
    with grad_cam.maps_layer(network, torch.zeros(1, 3, *photo)) as layer:
        assert layer is network.get_submodule(name)


def test_a_vision_transformer_is_explained_by_its_patches_before_the_last_block():
    torch.manual_seed(0)
    network = build.build_network("test_vit").eval()
    preprocessing = build.preprocessing_of("test_vit", store.Frame(160, 160))
    photos = noise(1, (160, 160, 3))
    found = grad_cam.heatmaps(network, preprocessing, photos, np.array([4]))[0]
    batch = preprocessing.prepared(torch.from_numpy(photos).permute(0, 3, 1, 2) / 255)
    kept = {}

    def keep(_block, inputs):
        kept["tokens"] = inputs[0].detach().requires_grad_()
        return (kept["tokens"],)

    hook = network.blocks[-1].register_forward_pre_hook(keep)
    network(batch)[0, 4].backward()
    hook.remove()
    tokens, gradient = (values[0, 1:] for values in (kept["tokens"], kept["tokens"].grad))  # without the class token
    expected = (tokens @ gradient.mean(dim=0)).relu().view(1, 1, 10, 10)  # Selvaraju et al., equations 1 and 2
    whole = nn.functional.interpolate(expected, (160, 160), mode="bilinear")[0, 0].detach().numpy()
    np.testing.assert_allclose(found, whole / whole.max(), atol=1e-4)


def test_networks_whose_maps_are_laid_out_otherwise_are_refused_by_name():
    network = colours()
    network.output_fmt = "NHWC"
    with pytest.raises(networks.UnsupportedError, match="Sequential lays its maps out as NHWC"):
        grad_cam.heatmaps(network, PLAIN, noise(1), np.array([0]))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE * 3, 18))
    with pytest.raises(networks.UnsupportedError, match="no layer that tells places"):
        grad_cam.heatmaps(flat, PLAIN, noise(1), np.array([0]))


# A run's worst mistakes.


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, run_folder.FinishedRun]:
    """A toy run of two folds that has learned next to nothing, and so makes many mistakes."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    runs.write_scores(toys.train(data, output, epochs=1, warmup_epochs=0.0))
    return data, run_folder.find_runs([output])[0][0]


def test_each_mistake_is_explained_by_the_network_that_had_not_seen_its_person(trained):
    data, run = trained
    table, images, maps, reason = comparison.explained_mistakes(run, 8)
    assert not reason
    assert set(table["fold"]) == {0, 1}
    pd.testing.assert_frame_equal(
        table, scores.worst_mistakes(run.out_of_fold, 8).reset_index(drop=True), check_dtype=False
    )
    opened = store.open_store(data / "store", data / "train" / "images", list(toys.table()["path"]), toys.FRAME)
    np.testing.assert_array_equal(images, opened.images[opened.rows(list(table["path"]))])
    predicted = scores.from_probabilities(table)[1]
    apart = []
    for fold in (0, 1):
        path = run.folder / f"fold{fold}" / "checkpoint" / "best.safetensors"
        loaded = predict.load_network(*read_checkpoint(path), devices.pick_device())
        whole = grad_cam.heatmaps(loaded.network, loaded.preprocessing, images, predicted)
        own = (table["fold"] == fold).to_numpy()
        np.testing.assert_allclose(maps[own], whole[own], atol=1e-5)
        apart.append(np.abs(maps[~own] - whole[~own]).max())
    assert max(apart) > 0.05  # the other fold's network sees otherwise


def test_what_cannot_be_explained_is_told_and_stops_nothing(trained, tmp_path, monkeypatch):
    _, run = trained
    lost = run.folder / "fold0" / "checkpoint" / "best.safetensors"
    kept = lost.rename(tmp_path / "kept.safetensors")
    empty, images, maps, reason = comparison.explained_mistakes(run, 30)
    kept.rename(lost)
    assert reason.startswith("The mistakes of toy cannot be explained:") and files.shown_path(lost) in reason
    assert len(empty) == len(images) == len(maps) == 0 and "path" in empty
    unsupported = Mock(side_effect=networks.UnsupportedError("no maps"))
    monkeypatch.setattr(comparison, "read_checkpoint", unsupported)
    assert comparison.explained_mistakes(run, 30)[3] == "The mistakes of toy cannot be explained: no maps"
