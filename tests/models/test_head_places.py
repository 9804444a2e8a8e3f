"""Heads find their place on networks of every make, and photos of any size are taken or refused in words."""

import pytest
import timm
import torch
import toys
from safetensors.torch import save_file

from mask_lib.base import config, labels
from mask_lib.models import build, networks, weights
from mask_lib.training import dataset

TALL = (128, 96)  # height, width


def run_of(**changes) -> config.Run:
    return config.Run(**{"image_width": TALL[1], "image_height": TALL[0], "weights": "none", **changes})


def shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("convformer_s18", "attention"),  # a last layer with a hidden one before it
        ("shvit_s1", "attention"),  # one with batch normalisation
        ("inception_next_atto", "attention"),  # pooling within the head
        ("efficientvit_b0", "attention"),
        ("vgg11", "attention"),
        ("dpn68", "three"),  # convolutions as last layers
        ("dla34", "three"),
        ("resnetv2_50", "three"),
    ],
)
def test_a_head_finds_its_place(architecture, head):
    with networks.without_arithmetic():
        network = build.build_network(architecture, head=head, channels=4).eval()
        assert network(torch.empty(2, 4, 224, 224)).shape == (2, labels.CLASS_COUNT)
    (layer,) = networks.last_layers(network)
    assert isinstance(layer, {"attention": networks.AttentionHead, "three": networks.ThreeHeads}[head])


def test_the_place_is_given_maps_and_pooling_is_left_to_the_head():
    network = build.build_network("inception_next_atto", head="attention").eval()
    batch = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network.forward_features(batch)
        assert maps.shape[2:] == (2, 3)
        assert torch.equal(network(batch), networks.last_layers(network)[0](maps))


def test_three_heads_read_the_features_that_a_convolution_did():
    head = networks.ThreeHeads(5)
    features = torch.randn(2, 5)
    assert torch.equal(head(features[:, :, None, None]), head(features))


@pytest.mark.parametrize("wrong", [AssertionError("Only token or avg pooling"), TypeError("unexpected keyword")])
def test_whatever_timm_says_of_what_it_cannot_do_becomes_a_sentence(monkeypatch, wrong):
    def refuse(*_rest, **_settings):
        raise wrong

    monkeypatch.setattr(timm, "create_model", refuse)
    networks.place_of.cache_clear()
    with pytest.raises(
        ValueError, match=rf"head: attention needs maps.*test_resnet has none \({wrong}\): use head: lin"
    ):
        build.build_network("test_resnet", head="attention")


def test_looking_for_a_place_uses_up_no_random_number():
    networks.place_of.cache_clear()
    before = torch.get_rng_state()
    networks.place_of("test_resnet", "attention")
    weights.require_fits(run_of(architecture="test_resnet", head="three"))
    assert torch.equal(torch.get_rng_state(), before)


def test_pretrained_weights_start_a_network_whose_whole_head_is_replaced(tmp_path):
    path = tmp_path / "pretrained.safetensors"
    kept = build.build_network("inception_next_atto", class_count=1000).state_dict()
    save_file(kept, path)
    state = weights.initial_state("inception_next_atto", str(path), seed=0, head="attention")
    assert {name for name in state if name not in kept} == {
        f"head.{part}.{kind}" for part in networks.ATTENTION_NAMES for kind in ("weight", "bias")
    }
    assert all(torch.equal(value, kept[name]) for name, value in state.items() if name in kept)


def test_a_transformer_takes_photos_of_the_runs_size():
    run = run_of(architecture="test_vit", head="three", image_channels=4)
    network = build.of_run(run)
    network.load_state_dict(weights.first_weights(run, seed=0))
    assert network(torch.rand(2, 4, *TALL)).shape == (2, labels.CLASS_COUNT)


def test_position_embeddings_are_resampled_as_timm_does(tmp_path):
    path = tmp_path / "pretrained.safetensors"
    save_file(weights.initial_state("test_vit", "none", seed=1), path)
    overlay = {"file": str(path), "num_classes": labels.CLASS_COUNT}
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=labels.CLASS_COUNT, img_size=TALL
    ).state_dict()
    before = torch.get_rng_state()
    ours = weights.first_weights(run_of(architecture="test_vit", weights=str(path)), seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert shapes(ours) == shapes(theirs)
    body = [name for name in ours if not name.startswith("head.")]
    assert all(torch.equal(ours[name], theirs[name]) for name in body)
    assert not torch.equal(ours["head.weight"], theirs["head.weight"])


def test_weights_of_the_runs_own_size_stay_as_they_are(tmp_path):
    path = tmp_path / "other.safetensors"
    kept = weights.initial_state("test_vit", "none", seed=1, size=TALL)
    save_file(kept, path)
    state = weights.first_weights(run_of(architecture="test_vit", weights=str(path)), seed=2)
    assert torch.equal(state["pos_embed"], kept["pos_embed"])
    with pytest.raises(ValueError, match=r"belong to another network; 1 differ, such as \['pos_embed'\]"):
        weights.initial_state("test_vit", str(path), seed=2, size=(64, 64))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"architecture": "test_vit", "image_width": 100},
            "photos of 100 x 128 pixels, but 160 x 160: set image_width",
        ),
        ({"architecture": "convit_tiny"}, "not take photos of 96 x 128 pixels, but 224 x 224"),
        (
            {"architecture": "botnet26t_256", "weights": "imagenet"},
            "256 x 256, when it starts from weights: .* none",
        ),
        ({"architecture": "resnet81"}, "near it: .*resnet18"),
        ({"architecture": "test_vit", "head": "attention"}, "head: attention needs maps"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_before_a_photo_is_decoded(tmp_path, changes, words):
    toys.prepare(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=words):
        dataset.open_trainable(tmp_path, tmp_path, run_of(**changes))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("architecture", ["test_vit", "botnet26t_256", "tf_efficientnet_lite0", networks.CUSTOM])
def test_what_fits_is_not_refused(architecture):
    weights.require_fits(run_of(architecture=architecture))
