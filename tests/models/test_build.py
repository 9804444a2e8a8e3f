"""Networks have as many outputs as there are classes, and photos are normalised as the network wants them."""

import json

import pytest
import torch

from mask_lib.base import config, labels
from mask_lib.models import build, networks, weights

TINY = "test_resnet"


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("head", ["linear", "attention", "three"])
def test_a_network_has_as_many_outputs_as_there_are_classes_at_the_time(head):
    batch = torch.zeros(2, 3, 32, 24)
    assert build.build_network(TINY, head=head)(batch).shape == (2, labels.class_count())
    with labels.using([labels.Attribute("helmet", ("on", "off"), "ab")]):
        assert build.build_network(TINY, head=head)(batch).shape == (2, 2)


def test_without_classes_a_network_gives_features():
    assert build.build_network(TINY, class_count=0)(torch.zeros(2, 3, 32, 24)).ndim == 2


def test_a_network_is_built_from_a_runs_settings_alone():
    run = config.Run(architecture=TINY, head="three", image_channels=4, dropout=0.5, weights="none")
    network = build.of_run(run)
    network.load_state_dict(weights.first_weights(run, seed=3), strict=True)
    assert isinstance(network.get_classifier(), networks.AttributeHeads)


@pytest.mark.parametrize(
    ("architecture", "mean", "std"),
    [
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet10t", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_photos_are_normalised_as_the_network_wants_them(architecture, mean, std):
    found = build.preprocessing_of(architecture, 48, 64, "pad")
    assert (found.width, found.height, found.resize) == (48, 64, "pad")
    assert (found.mean, found.std) == (mean, std)
    batch = photos(2, 3, 64, 48)
    prepared = found.prepared(batch)
    torch.testing.assert_close(prepared[1, 2], (batch[1, 2] - mean[2]) / std[2])
    assert prepared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "mean"), [(1, (0.449,)), (4, (0.485, 0.456, 0.406, 0.449))])
def test_grey_and_yellow_are_normalised_by_the_mean_of_the_colours(channels, mean):
    found = build.preprocessing_of("resnet10t", 48, 64, "pad", channels)
    assert found.mean == pytest.approx(mean)
    assert found.channels == len(found.std) == channels
    assert found.prepared(photos(2, channels, 64, 48)).shape == (2, channels, 64, 48)


def prepared(batch: torch.Tensor, per_image: bool = True) -> torch.Tensor:
    return build.preprocessing_of(TINY, 24, 32, "stretch", batch.shape[1], per_image).prepared(batch)


def test_normalisation_by_photo_gives_each_channel_mean_0_and_deviation_1():
    found = prepared(photos(3, 4, 32, 24) * torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1, 1))
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((2, 3), correction=0), torch.ones(3, 4), atol=1e-5, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_by_photo_forgets_brightness_and_contrast_and_the_other_photos():
    batch = photos(2, 3, 32, 24)
    torch.testing.assert_close(prepared(batch * 0.5 + 0.2), prepared(batch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prepared(batch)[:1], prepared(batch[:1]))
    assert not torch.allclose(prepared(batch * 0.5 + 0.2, per_image=False), prepared(batch, per_image=False))


def test_a_photo_of_one_colour_becomes_nothing():
    assert not prepared(torch.full((1, 3, 32, 24), 0.7)).abs().gt(1e-3).any()


def test_preprocessing_comes_back_from_a_manifest_even_of_before_it_had_per_image():
    new = build.preprocessing_of(TINY, 24, 32, "stretch", per_image=True)
    assert build.Preprocessing.from_manifest(json.loads(json.dumps({"preprocessing": vars(new)}))) == new
    old = {name: value for name, value in vars(new).items() if name != "per_image"}
    assert build.Preprocessing.from_manifest({"preprocessing": old}).per_image is False
