"""Networks start from the weights asked for, whatever those were made for, and never from what runs code."""

import os
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import toys
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch.nn import functional

from mask_lib.base import config, labels
from mask_lib.data import store
from mask_lib.models import build, checkpoint, networks, weights
from mask_lib.training import dataset

ANALOG_CLOCK = 409  # of ImageNet's 1000 classes
TINY = "test_resnet"
TALL = (128, 96)  # height, width


def state_of(seed: int, class_count: int | None = None, architecture: str = TINY, **shape) -> dict[str, torch.Tensor]:
    return weights.initial_state(architecture, "none", seed, class_count=class_count, **shape)


def run_of(**changes) -> config.Run:
    return config.Run(**{"image_width": TALL[1], "image_height": TALL[0], "weights": "none", **changes})


def saved(folder: Path, state: dict[str, torch.Tensor]) -> str:
    """The path of a file of bare weights."""
    save_file(state, folder / "other.safetensors")
    return str(folder / "other.safetensors")


def assert_starts_from(state, body, head, new: set[str]) -> None:
    """Every tensor of a state is that of `body`, but for those named `new`, which are those of `head`."""
    assert new < set(state)
    assert all(torch.equal(value, (head if name in new else body)[name]) for name, value in state.items())


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


# ImageNet's.


@pytest.fixture
def no_network(monkeypatch):
    """The hub is a port of this machine where nobody answers, without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


@pytest.mark.parametrize("name", weights.PACKAGED)
def test_the_packaged_weights_are_those_of_imagenet_and_a_run_starts_from_them_under_a_new_last_layer(name):
    """A network with tensors in the wrong places, or another normalisation, does not know a clock."""
    packaged, network = weights.packaged_state(name), build.build_network(name, class_count=1000)
    network.load_state_dict(packaged, strict=True)
    batch = build.preprocessing_of(name, store.Frame(224, 224)).prepared(drawn_clock())
    with torch.inference_mode():
        found = functional.softmax(network.eval()(batch), dim=1)[0]
    assert found.argmax().item() == ANALOG_CLOCK
    assert found[ANALOG_CLOCK] > 0.5
    state, random = (weights.initial_state(name, source, seed=3, head="three") for source in ("imagenet", "none"))
    assert_starts_from(state, packaged, random, {name for name in state if name.startswith("classifier.heads.")})
    assert not torch.equal(state["conv_stem.weight"], random["conv_stem.weight"])


def test_the_starting_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = state_of(5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert all(torch.equal(value, first[name]) for name, value in state_of(5).items())
    assert any(not torch.equal(value, first[name]) for name, value in state_of(6).items())
    weights.require_fits(run_of(architecture=TINY, head="three"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_ways_out_are_named_within_seconds():
    start = time.monotonic()
    with pytest.raises(OSError) as refusal:
        weights.initial_state("se_resnext50", "imagenet", seed=0)
    assert time.monotonic() - start < 10
    for words in ("weights of seresnext50_32x4d could not", "architecture: tf_efficientnet_lite0", "give its path as"):
        assert words in str(refusal.value)
    assert "weights: none" in str(refusal.value)


@pytest.mark.usefixtures("no_network")
def test_weights_the_hub_left_on_this_machine_need_no_network(tmp_path, monkeypatch):
    kept, asked = state_of(1, class_count=1000), []
    save_file(kept, tmp_path / "model.safetensors")

    def cached(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    state = weights.initial_state(TINY, "imagenet", seed=2)
    assert_starts_from(state, kept, state_of(2), {"fc.weight", "fc.bias"})
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]


@pytest.mark.parametrize("head", ["linear", "attention"])
def test_the_auxiliary_classifier_of_imagenet_comes_too_but_for_its_last_layer(tmp_path, monkeypatch, head):
    kept, last = state_of(1, 1000, "inception_v3", aux_logits=True), ("fc.", "AuxLogits.fc.")
    path = saved(tmp_path, kept)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: path)
    state = weights.first_weights(run_of(architecture="inception_v3", weights="imagenet", head=head, aux_loss=0.4), 2)
    random = state_of(2, architecture="inception_v3", head=head, aux_logits=True)
    assert_starts_from(state, kept, random, {name for name in state if name.startswith(last)})


@pytest.mark.parametrize(("there", "new"), [(True, ("fc.", "AuxLogits.fc.")), (False, ("fc.", "AuxLogits."))])
def test_an_auxiliary_classifier_that_a_file_lacks_starts_from_random_numbers(tmp_path, there, new):
    shape = {"architecture": "toy_inception", "head": "three_attention"}
    path = saved(tmp_path, kept := state_of(1, **shape, aux_logits=there))
    state = weights.first_weights(run_of(**shape, weights=path, aux_loss=0.4), seed=2)
    random = state_of(2, **shape, aux_logits=True)
    assert_starts_from(state, kept, random, {name for name in state if name.startswith(new)})


def test_a_network_that_was_never_trained_on_imagenet_says_so():
    asked = run_of(architecture=networks.CUSTOM, weights="imagenet")
    for refusing in (lambda: weights.first_weights(asked, seed=0), lambda: weights.require_fits(asked)):
        with pytest.raises(ValueError, match="custom_model has no ImageNet weights: set weights to none"):
            refusing()


# A file's.


@pytest.mark.parametrize("class_count", [None, 1000, 0])
@pytest.mark.parametrize("head", ["linear", "attention", "three"])
@pytest.mark.parametrize("architecture", [TINY, "test_efficientnet", networks.CUSTOM])
def test_weights_come_from_a_file_under_a_new_last_layer(tmp_path, architecture, head, class_count):
    kept = state_of(1, class_count, architecture)
    checkpoint.write_checkpoint(tmp_path / "other.safetensors", kept, {"note": "from elsewhere"})
    state = weights.initial_state(architecture, str(tmp_path / "other.safetensors"), seed=2, head=head)
    random = state_of(2, architecture=architecture, head=head)
    last = networks.last_names(build.build_network(architecture))[0]
    assert_starts_from(state, kept, random, {name for name in state if name.startswith(f"{last}.")})


def test_weights_of_a_run_with_three_heads_start_one_with_a_linear_layer(tmp_path):
    state = weights.initial_state(TINY, saved(tmp_path, state_of(1, head="three")), seed=2)
    assert_starts_from(state, state_of(1, head="three"), state_of(2), {"fc.weight", "fc.bias"})


@pytest.mark.parametrize("architecture", [TINY, "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("channels", [1, 4])
def test_pretrained_weights_meet_other_channels_as_in_timm(tmp_path, architecture, channels):
    path = saved(tmp_path, state_of(1, architecture=architecture))
    theirs = timm.create_model(
        architecture, pretrained=True, pretrained_cfg_overlay={"file": path}, num_classes=18, in_chans=channels
    ).state_dict()
    ours = weights.initial_state(architecture, path, seed=2, channels=channels)
    head = ("fc.", "classifier.", "head.")
    assert all(torch.equal(ours[name], one) for name, one in theirs.items() if not name.startswith(head))


def test_a_grey_photo_of_one_channel_gives_what_its_three_equal_ones_gave(tmp_path):
    path = saved(tmp_path, state_of(1))
    grey = torch.rand(2, 1, 48, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for channels in (1, 3):
        network = build.build_network(TINY, class_count=0, channels=channels).eval()
        network.load_state_dict(weights.initial_state(TINY, path, 2, class_count=0, channels=channels))
        preprocessing = build.preprocessing_of(TINY, store.Frame(32, 48, channels=channels))
        prepared = preprocessing.prepared(grey.expand(-1, channels, -1, -1))
        with torch.inference_mode():
            found.append(network(prepared))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_weights_of_four_channels_start_a_run_of_four_as_they_are(tmp_path):
    kept = state_of(1, channels=4)
    path = saved(tmp_path, kept)
    assert torch.equal(weights.initial_state(TINY, path, 2, channels=4)["conv1.0.weight"], kept["conv1.0.weight"])
    with pytest.raises(ValueError, match=r"other\.safetensors: .*conv1\.0"):
        weights.initial_state(TINY, path, seed=2)


def test_weights_of_another_or_a_deeper_network_are_refused_with_tensors_that_differ(tmp_path):
    deeper = {**state_of(1), "layer4.7.conv1.weight": torch.zeros(3)}  # it holds every tensor, and more
    others = ((state_of(1, architecture="test_efficientnet"), "conv1.0"), ({}, "conv1.0"), (deeper, "layer4.7.conv1"))
    for other, tensor in others:
        with pytest.raises(ValueError, match=rf"other\.safetensors: .* belong to another network: .*{tensor}"):
            weights.initial_state(TINY, saved(tmp_path, other), seed=0)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(OSError, match=r"no .*gone\.safetensors"):
        weights.initial_state(TINY, str(tmp_path / "gone.safetensors"), seed=0)


def test_weights_of_a_fold_are_refused_since_they_know_other_folds_people(tmp_path):
    checkpoint.write_checkpoint(tmp_path / "best.safetensors", state_of(0), {"fold": 3})
    with pytest.raises(ValueError, match="was trained on fold 3 of a run: it knows people whom other folds validate"):
        weights.initial_state(TINY, str(tmp_path / "best.safetensors"), seed=0)


# What could run code.


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


def make_package(folder: Path, monkeypatch: pytest.MonkeyPatch, state: dict) -> None:
    """A package with a state dict, which is then taken for that of `TINY`."""
    package = folder / f"package_{folder.name}"
    package.mkdir()
    (package / "__init__.py").touch()
    torch.save(state, package / "weights.pth")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(weights.PACKAGED, TINY, (package.name, "weights.pth"))


def test_a_package_cannot_run_code_through_its_weights(tmp_path, monkeypatch):
    make_package(tmp_path, monkeypatch, {"fc.weight": Trap(tmp_path / "sprung")})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        weights.packaged_state(TINY)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("change", ["turned", "renamed"])
def test_a_package_with_other_tensors_is_refused(tmp_path, monkeypatch, change):
    state = state_of(1, class_count=1000)
    turned = {**state, "fc.weight": state["fc.weight"].T.contiguous()}
    renamed = {f"{name}x": value for name, value in state.items()}
    make_package(tmp_path, monkeypatch, {"turned": turned, "renamed": renamed}[change])
    with pytest.raises(ValueError, match=r"package_.*: .* does not fit"):
        weights.packaged_state(TINY)


def test_a_missing_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(weights.PACKAGED, TINY, ("no_such_package_at_all", "x.pth"))
    with pytest.raises(OSError, match="no_such_package_at_all is not installed: run make setup"):
        weights.packaged_state(TINY)


# Photos of other sizes than the network's own.


def test_position_embeddings_are_resampled_as_timm_does(tmp_path):
    path = saved(tmp_path, state_of(1, architecture="test_vit"))
    overlay = {"file": path, "num_classes": labels.class_count()}
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=18, img_size=TALL
    )
    run = run_of(architecture="test_vit", weights=path)
    ours = weights.first_weights(run, seed=2)
    build.of_run(run).load_state_dict(ours, strict=True)
    random = weights.first_weights(run_of(architecture="test_vit"), seed=2)
    assert_starts_from(ours, theirs.state_dict(), random, {"head.weight", "head.bias"})
    assert not torch.equal(ours["pos_embed"], random["pos_embed"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "test_vit", "image_width": 100}, "of 100 x 128 pixels, but 160 x 160: set image_width"),
        ({"architecture": "convit_tiny"}, "not take photos of 96 x 128 pixels, but 224 x 224"),
        ({"architecture": "botnet26t_256", "weights": "imagenet"}, "256 x 256 when it starts from weights: .* none"),
        ({"architecture": "resnet81"}, "near it: .*resnet18"),
        (
            {"architecture": "test_vit", "head": "attention"},
            "a head of attention needs maps.*use head: linear or three",
        ),
        ({"aux_loss": 0.4, "architecture": TINY}, "aux_loss = 0.4: test_resnet has no auxiliary .*set aux_loss to 0.0"),
        ({"aux_loss": 0.4, "architecture": "inception_v3"}, "96 x 128 pixels, but 299 x 299: set image_width"),
        ({"architecture": "deit_tiny_distilled_patch16_224", "head": "three"}, "layer head, head_dist.*head: linear"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_before_a_photo_is_decoded(tmp_path, changes, words):
    toys.prepare(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=words):
        dataset.open_trainable(tmp_path, tmp_path, run_of(**changes))
    assert not (tmp_path / "store").exists()


def test_what_fits_is_not_refused():
    weights.require_fits(run_of(architecture="test_vit", weights="imagenet", head="three", image_channels=4))
    weights.require_fits(run_of(architecture="tf_efficientnet_lite0", weights="imagenet"))
    for architecture in ("botnet26t_256", networks.CUSTOM):
        weights.require_fits(run_of(architecture=architecture))
