"""Networks start from the weights asked for, whatever those were made for, and never from what runs code."""

import os
import socket
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.models import build, checkpoint, networks, weights

ANALOG_CLOCK = 409  # of ImageNet's 1000 classes
TINY = "test_resnet"


def state_of(seed: int, class_count: int = labels.CLASS_COUNT) -> dict[str, torch.Tensor]:
    return weights.initial_state(TINY, "none", seed, class_count)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def drawn_clock() -> torch.Tensor:
    """(1, 3, 224, 224) float32 in [0, 1]: a dial with numbers and hands."""
    image = Image.new("RGB", (224, 224), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((17, 17, 207, 207), outline="black", width=8)
    for hour in range(1, 13):
        right, up = 78 * np.sin(hour * np.pi / 6), 78 * np.cos(hour * np.pi / 6)
        draw.text((107 + right, 105 - up), str(hour), fill="black", font_size=18)
    draw.line((112, 112, 112, 50), fill="black", width=5)
    draw.line((112, 112, 155, 130), fill="black", width=7)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def packaged() -> dict[str, torch.Tensor]:
    return weights.imagenet_state("tf_efficientnet_lite0")


@pytest.fixture
def no_network(monkeypatch):
    """The hub is a port of this machine where nobody answers, without a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def test_the_packaged_weights_are_those_of_imagenet(packaged):
    """A network with tensors in the wrong places, or another normalisation, does not know a clock."""
    network = build.build_network("tf_efficientnet_lite0", class_count=1000)
    network.load_state_dict(packaged, strict=True)
    preprocessing = build.preprocessing_of("tf_efficientnet_lite0", 224, 224, "stretch")
    with torch.inference_mode():
        found = functional.softmax(network.eval()(preprocessing.prepared(drawn_clock())), dim=1)[0]
    assert found.argmax().item() == ANALOG_CLOCK
    assert found[ANALOG_CLOCK] > 0.5


def test_a_run_starts_from_imagenet_under_a_new_last_layer(packaged):
    state = weights.initial_state("tf_efficientnet_lite0", "imagenet", seed=3)
    network = build.build_network("tf_efficientnet_lite0")
    network.load_state_dict(state, strict=True)
    random = weights.initial_state("tf_efficientnet_lite0", "none", seed=3)
    new = {name for name in state if name.startswith("classifier.")}
    assert {name for name in state if state[name].shape != packaged[name].shape} == new
    assert all(torch.equal(state[name], packaged[name]) for name in set(state) - new)
    assert all(torch.equal(state[name], random[name]) for name in new)
    assert not torch.equal(state["conv_stem.weight"], random["conv_stem.weight"])
    assert all(value.isfinite().all() for value in state.values())


def test_the_starting_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = state_of(5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert equal(state_of(5), first)
    assert not equal(state_of(6), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(weights.PACKAGED, "tf_efficientnet_lite0", ("no_such_package_at_all", "x.pth"))
    with pytest.raises(OSError, match="no_such_package_at_all is not installed: run make setup"):
        weights.imagenet_state("tf_efficientnet_lite0")


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_ways_out_are_named_within_seconds():
    start = time.monotonic()
    with pytest.raises(OSError) as refusal:
        weights.initial_state("resnet10t", "imagenet", seed=0)
    assert time.monotonic() - start < 10
    for way in ("resnet10t", "architecture: tf_efficientnet_lite0", "give its path as weights", "weights: none"):
        assert way in str(refusal.value)


@pytest.mark.usefixtures("no_network")
def test_weights_the_hub_left_on_this_machine_need_no_network(tmp_path, monkeypatch):
    kept = state_of(1, class_count=1000)
    save_file(kept, tmp_path / "model.safetensors")
    asked = []

    def cached(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    state = weights.initial_state(TINY, "imagenet", seed=2)
    assert torch.equal(state["layer1.0.conv1.weight"], kept["layer1.0.conv1.weight"])
    assert torch.equal(state["fc.weight"], state_of(2)["fc.weight"])
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]


@pytest.mark.parametrize(("theirs", "timms"), networks.SEED_NAMES.items())
def test_a_network_may_be_called_as_the_seeds_call_it(theirs, timms):
    with torch.device("meta"):
        ours, expected = (build.build_network(name).state_dict() for name in (theirs, timms))
    assert {name: one.shape for name, one in ours.items()} == {name: one.shape for name, one in expected.items()}
    assert "se_resnext50" in networks.SEED_NAMES


def test_the_hub_is_asked_by_timms_name_for_a_network_of_the_seeds(monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: asked.append(repository))
    monkeypatch.setattr(weights, "_require_hub", lambda: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(OSError, match="weights of seresnext50_32x4d could not be fetched"):
        weights.imagenet_state("se_resnext50")
    assert len(asked) == 1 and "seresnext50_32x4d" in asked[0] and asked[0].startswith("timm/")


def test_weights_come_from_a_file(tmp_path):
    checkpoint.write_checkpoint(tmp_path / "other.safetensors", state_of(1), {"note": "from elsewhere"})
    found = weights.initial_state(TINY, str(tmp_path / "other.safetensors"), seed=2)
    head = ("fc.weight", "fc.bias")
    assert equal(found, {name: (state_of(2) if name in head else state_of(1))[name] for name in found})


def test_weights_from_a_file_with_other_classes_get_a_new_last_layer(tmp_path):
    kept, new = state_of(1, class_count=1000), ["fc.weight", "fc.bias"]
    save_file(kept, tmp_path / "bare.safetensors")
    state = weights.initial_state(TINY, str(tmp_path / "bare.safetensors"), seed=2)
    for name, value in state.items():
        assert torch.equal(value, (state_of(2) if name in new else kept)[name])


@pytest.mark.parametrize("architecture", [TINY, "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("channels", [1, 4])
def test_pretrained_weights_meet_other_channels_as_in_timm(tmp_path, architecture, channels):
    path = tmp_path / "pretrained.safetensors"
    save_file(weights.initial_state(architecture, "none", seed=1), path)
    theirs = timm.create_model(
        architecture, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 18}, num_classes=18,
        in_chans=channels,
    ).eval()  # fmt: skip
    ours = build.build_network(architecture, channels=channels).eval()
    state = weights.initial_state(architecture, str(path), seed=2, channels=channels)
    ours.load_state_dict(state)
    head = ("fc.", "classifier.", "head.")
    assert all(torch.equal(state[name], one) for name, one in theirs.state_dict().items() if not name.startswith(head))
    ours.load_state_dict({name: theirs.state_dict()[name] for name in state})
    batch = torch.rand(2, channels, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(batch), theirs(batch))


def test_a_grey_photo_of_one_channel_gives_what_its_three_equal_ones_gave(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(state_of(1), path)
    grey = torch.rand(2, 1, 48, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for channels in (1, 3):
        network = build.build_network(TINY, class_count=0, channels=channels).eval()
        network.load_state_dict(weights.initial_state(TINY, str(path), 2, class_count=0, channels=channels))
        prepared = build.preprocessing_of(TINY, 32, 48, "stretch", channels).prepared(grey.expand(-1, channels, -1, -1))
        with torch.inference_mode():
            found.append(network(prepared))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_weights_of_four_channels_start_a_run_of_four_as_they_are(tmp_path):
    kept = weights.initial_state(TINY, "none", seed=1, channels=4)
    save_file(kept, tmp_path / "four.safetensors")
    state = weights.initial_state(TINY, str(tmp_path / "four.safetensors"), seed=2, channels=4)
    assert torch.equal(state["conv1.0.weight"], kept["conv1.0.weight"])
    with pytest.raises(ValueError, match=r"four\.safetensors: .*conv1\.0\.weight"):
        weights.initial_state(TINY, str(tmp_path / "four.safetensors"), seed=2)


def test_the_packaged_weights_are_widened(packaged):
    wide, stem = (
        weights.initial_state("tf_efficientnet_lite0", "imagenet", seed=3, channels=4),
        "conv_stem.weight",
    )
    torch.testing.assert_close(wide[stem][:, :3], packaged[stem] * 0.75)
    torch.testing.assert_close(wide[stem][:, 3], packaged[stem][:, 0] * 0.75)
    assert torch.equal(wide["blocks.0.0.conv_dw.weight"], packaged["blocks.0.0.conv_dw.weight"])


def test_weights_of_another_network_are_refused_with_the_tensors_that_differ(tmp_path):
    path = tmp_path / "other.safetensors"
    checkpoint.write_checkpoint(path, build.build_network("test_efficientnet").state_dict(), {})
    with pytest.raises(ValueError, match=r"other\.safetensors: .* belong to another network; \d+ differ.*conv1\.0"):
        weights.initial_state(TINY, str(path), seed=0)


def test_weights_of_a_deeper_network_are_refused(tmp_path):
    """A ResNet-34 holds every tensor of a ResNet-18, and more."""
    deeper = {**state_of(1), "layer4.7.conv1.weight": torch.zeros(3)}
    save_file(deeper, tmp_path / "deeper.safetensors")
    with pytest.raises(ValueError, match=r"layer4\.7\.conv1\.weight"):
        weights.initial_state(TINY, str(tmp_path / "deeper.safetensors"), seed=0)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(OSError, match=r"gone\.safetensors is no checkpoint that can be read"):
        weights.initial_state(TINY, str(tmp_path / "gone.safetensors"), seed=0)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_pickle_given_as_weights_is_refused_unopened(tmp_path, name):
    torch.save({"fc.weight": Trap(tmp_path / "sprung")}, tmp_path / name)
    with pytest.raises(OSError, match="no checkpoint that can be read"):
        weights.initial_state(TINY, str(tmp_path / name), seed=0)
    assert not (tmp_path / "sprung").exists()


def test_a_package_cannot_run_code_through_its_weights(tmp_path, monkeypatch):
    package = tmp_path / "weights_with_a_trap"
    package.mkdir()
    (package / "__init__.py").touch()
    torch.save({"fc.weight": Trap(tmp_path / "sprung")}, package / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(weights.PACKAGED, TINY, (package.name, "weights.pth"))
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        weights.imagenet_state(TINY)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("change", ["turned", "renamed"])
def test_a_package_with_other_tensors_is_refused(tmp_path, monkeypatch, change):
    package = tmp_path / f"other_weights_{change}"
    package.mkdir()
    (package / "__init__.py").touch()
    state = state_of(1, class_count=1000)
    if change == "turned":
        state["fc.weight"] = state["fc.weight"].T.contiguous()
    else:
        state = {f"{name}x": value for name, value in state.items()}
    torch.save(state, package / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(weights.PACKAGED, TINY, (package.name, "weights.pth"))
    with pytest.raises(ValueError, match=f"{package.name}: .* does not fit"):
        weights.imagenet_state(TINY)


def test_weights_of_a_fold_are_refused_since_they_know_other_folds_people(tmp_path):
    path = tmp_path / "best.safetensors"
    checkpoint.write_checkpoint(path, weights.initial_state("test_resnet", "none", seed=0), {"fold": 3})
    with pytest.raises(ValueError, match="was trained on fold 3 of a run: it knows people whom other folds validate"):
        weights.initial_state("test_resnet", str(path), seed=0)
