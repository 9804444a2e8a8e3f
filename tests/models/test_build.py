"""Photos are normalised as the network wants them."""

import dataclasses
import json

import pytest
import torch

from mask_lib.data import store
from mask_lib.models import build

TINY = "test_resnet"


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("architecture", "channels", "mean", "std"),
    [
        ("tf_efficientnet_lite0", 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet10t", 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet10t", 1, (0.449,), (0.226,)),  # grey, and yellow, by the mean of the colours
        ("resnet10t", 4, (0.485, 0.456, 0.406, 0.449), (0.229, 0.224, 0.225, 0.226)),
    ],
)
def test_photos_are_normalised_as_the_network_wants_them(architecture, channels, mean, std):
    found = build.preprocessing_of(architecture, store.Frame(48, 64, "pad", channels))
    assert (found.width, found.height, found.resize, len(found.mean)) == (48, 64, "pad", channels)
    assert (found.mean, found.std) == (pytest.approx(mean), pytest.approx(std))
    batch = photos(2, channels, 64, 48)
    prepared = found.prepared(batch)
    torch.testing.assert_close(prepared[1, -1], (batch[1, -1] - mean[-1]) / std[-1])
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_normalisation_by_photo_gives_each_channel_mean_0_and_deviation_1_and_makes_nothing_of_one_colour():
    preprocessing = build.preprocessing_of(TINY, store.Frame(24, 32, channels=4), per_image=True)
    found = preprocessing.prepared(photos(3, 4, 32, 24) * torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1, 1))
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((2, 3), correction=0), torch.ones(3, 4), atol=1e-5, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not preprocessing.prepared(torch.full((1, 4, 32, 24), 0.7)).abs().gt(1e-3).any()


def test_preprocessing_comes_back_from_a_manifest_even_of_before_it_had_per_image():
    new = build.preprocessing_of(TINY, store.Frame(24, 32), per_image=True)
    assert build.Preprocessing(**json.loads(json.dumps(dataclasses.asdict(new)))) == new
    old = {name: value for name, value in dataclasses.asdict(new).items() if name != "per_image"}
    assert build.Preprocessing(**old).per_image is False
