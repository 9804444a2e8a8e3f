"""Networks and heads of our own behave as timm's do, and three heads are one joint distribution."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.models import build, checkpoint, networks, weights
from mask_lib.training import optimizer


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def custom() -> nn.Module:
    return build.build_network(networks.CUSTOM).eval()


def test_the_custom_network_is_small(custom):
    assert sum(parameter.numel() for parameter in custom.parameters()) <= 5_000_000


@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 47), (64, 64), (96, 128), (224, 224)])
def test_the_custom_network_takes_photos_of_any_size(custom, width, height):
    batch = photos(2, 3, height, width)
    with torch.inference_mode():
        maps = custom.forward_features(batch)
        assert maps.shape[2:] == (-(-height // 32), -(-width // 32))
        assert torch.equal(custom(batch), custom.forward_head(maps))
        assert custom.forward_head(maps, pre_logits=True).shape == (2, custom.num_features)
    assert custom(batch).shape == (2, labels.CLASS_COUNT)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_custom_network_takes_grey_colour_and_yellow(channels):
    network = build.build_network(networks.CUSTOM, channels=channels)
    preprocessing = build.preprocessing_of(networks.CUSTOM, 32, 32, "stretch", channels)
    assert (preprocessing.mean, preprocessing.std) == ((0.5,) * channels, (0.5,) * channels)
    assert network(preprocessing.prepared(photos(2, channels, 32, 32))).shape == (2, labels.CLASS_COUNT)


def test_the_custom_network_without_a_last_layer_gives_features_or_maps():
    batch = photos(2, 3, 32, 48)
    assert build.build_network(networks.CUSTOM, class_count=0)(batch).shape == (2, networks.STAGES[-1])
    network = networks.CustomNetwork(0, global_pool="")
    assert network(batch).shape == (2, networks.STAGES[-1], 1, 2)
    network.reset_classifier(5, "avg")
    assert network(batch).shape == (2, 5) and network.get_classifier().out_features == 5


def test_the_custom_network_forgets_in_training_only():
    network = build.build_network(networks.CUSTOM, dropout=0.9).eval()
    batch = photos(2, 3, 32, 32)
    assert torch.equal(network(batch), network(batch))
    maps = network.forward_features(batch)
    network.train()
    assert not torch.equal(network.forward_head(maps), network.forward_head(maps))


def test_each_parameter_of_the_custom_network_learns_and_its_first_layers_the_slowest():
    network = build.build_network(networks.CUSTOM)
    functional.cross_entropy(network(photos(4, 3, 48, 48)), torch.arange(4)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    groups = optimizer.parameter_groups(network, 1.0, head_scale=1.0, weight_decay=0.01, layer_decay=0.5)
    peak_of = {id(parameter): group["peak"] for group in groups for parameter in group["params"]}
    peaks = [peak_of[id(parameter)] for parameter in network.parameters()]
    assert peaks == sorted(peaks) and len(set(peaks)) == len(network.blocks) + 2
    assert peak_of[id(network.classifier.weight)] == 1.0


def test_the_custom_network_has_no_imagenet_weights_to_start_from():
    with pytest.raises(ValueError, match="custom_model has no ImageNet weights: set weights to none"):
        weights.initial_state(networks.CUSTOM, "imagenet", seed=0)
    state = weights.initial_state(networks.CUSTOM, "none", seed=0)
    again = weights.initial_state(networks.CUSTOM, "none", seed=0)
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_a_misspelt_custom_network_is_recognised():
    with pytest.raises(ValueError, match=r"near it: .*custom_model"):
        build.build_network("custom_modle")


def test_attention_is_each_class_looked_for_where_its_map_says():
    head = networks.AttentionHead(5, 3)
    maps = photos(2, 5, 4, 6)
    where = functional.softmax(head.attention(maps).view(2, 3, -1), dim=2).view(2, 3, 4, 6)
    torch.testing.assert_close(head(maps), (head.classes(maps) * where).sum((2, 3)))


def test_attention_without_a_preference_is_mean_pooling():
    head = networks.AttentionHead(5, 3)
    nn.init.zeros_(head.attention.weight)
    maps = photos(2, 5, 4, 6)
    torch.testing.assert_close(head(maps), head.classes(maps).mean((2, 3)))


def test_attention_can_see_one_place_alone():
    head = networks.AttentionHead(2, 3)
    nn.init.zeros_(head.attention.weight)
    with torch.no_grad():
        head.attention.weight[:, 1] = 1e4
    maps = torch.randn(1, 2, 4, 6)
    maps[:, 1] = 0
    maps[0, 1, 2, 3] = 1
    torch.testing.assert_close(head(maps), head.classes(maps)[:, :, 2, 3])


@pytest.mark.parametrize(
    "architecture",
    ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "regnetx_002", networks.CUSTOM],
)
@pytest.mark.parametrize("head", ["attention", "three"])
def test_heads_stand_on_any_convolution_network(architecture, head):
    network = build.build_network(architecture, head=head, channels=4)
    assert network(photos(2, 4, 64, 48)).shape == (2, labels.CLASS_COUNT)
    layers = networks.last_layers(network)
    assert [type(layer).__name__ for layer in layers] == [{"attention": "AttentionHead", "three": "ThreeHeads"}[head]]
    groups = optimizer.parameter_groups(network, 0.1, head_scale=10, weight_decay=0.0)
    peak_of = {id(parameter): group["peak"] for group in groups for parameter in group["params"]}
    assert {peak_of[id(parameter)] for parameter in layers[0].parameters()} == {1.0}
    assert len(peak_of) == len(list(network.parameters()))


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", networks.CUSTOM])
@pytest.mark.parametrize("head", ["attention", "three"])
def test_heads_forget_in_training_only(architecture, head):
    network = build.build_network(architecture, head=head, dropout=0.9).eval()
    batch = photos(2, 3, 64, 48)
    maps = network.forward_features(batch)
    assert torch.equal(network.forward_head(maps), network.forward_head(maps))
    network.train()
    assert not torch.equal(network.forward_head(maps), network.forward_head(maps))


def test_three_heads_stand_on_a_transformer_and_attention_does_not():
    batch = photos(2, 3, 160, 160)
    assert build.build_network("test_vit", head="three")(batch).shape == (2, labels.CLASS_COUNT)
    with pytest.raises(
        ValueError, match=r"head: attention needs maps of the photo.*test_vit.*use head: linear or three"
    ):
        build.build_network("test_vit", head="attention")


def test_a_network_with_two_last_layers_keeps_them():
    with pytest.raises(ValueError, match=r"deit_tiny_distilled_patch16_224 has .*head_dist.*use head: linear"):
        build.build_network("deit_tiny_distilled_patch16_224", head="three")


@pytest.mark.parametrize("head", ["attention", "three"])
@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet"])
def test_pretrained_weights_start_a_network_under_another_head(tmp_path, architecture, head):
    kept = build.build_network(architecture, class_count=1000).state_dict()
    checkpoint.write_checkpoint(tmp_path / "pretrained.safetensors", kept, {})
    state = weights.initial_state(architecture, str(tmp_path / "pretrained.safetensors"), seed=2, head=head)
    random = weights.initial_state(architecture, "none", seed=2, head=head)
    last = timm.get_pretrained_cfg(architecture).classifier
    new = {name for name in state if name.startswith(f"{last}.")}
    assert len(new) == {"attention": 4, "three": 6}[head]
    assert all(torch.equal(value, random[name] if name in new else kept[name]) for name, value in state.items())


def test_weights_of_a_run_with_three_heads_start_one_with_18_outputs(tmp_path):
    kept = weights.initial_state("test_resnet", "none", seed=1, head="three")
    checkpoint.write_checkpoint(tmp_path / "three.safetensors", kept, {})
    state = weights.initial_state("test_resnet", str(tmp_path / "three.safetensors"), seed=2)
    assert torch.equal(state["conv1.0.weight"], kept["conv1.0.weight"])
    build.build_network("test_resnet").load_state_dict(state, strict=True)


def three_answers(count: int = 64) -> tuple[networks.ThreeHeads, torch.Tensor, list[torch.Tensor]]:
    """Three heads, features, and what each head says of them alone, as probabilities."""
    head = networks.ThreeHeads(7)
    features = torch.randn(count, 7, generator=torch.Generator().manual_seed(1)) * 5
    return head, features, [head.heads[name](features).softmax(dim=1) for name in labels.ATTRIBUTES]


def test_three_heads_and_18_outputs_agree_after_a_round_trip():
    """Product, then marginals: what makes both kinds of network one ensemble."""
    head, features, alone = three_answers()
    joint = head(features).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(joint, labels.joint(dict(zip(labels.names(), (one.detach().numpy() for one in alone), strict=True))), atol=1e-6)
    for one, back in zip(alone, labels.marginals(joint).values(), strict=True):
        np.testing.assert_allclose(back, one.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_joint_cross_entropy_is_the_sum_of_the_three(smoothing):
    head, features, _ = three_answers()
    target = torch.arange(len(features)) % labels.CLASS_COUNT
    parts = torch.unravel_index(target, labels.SHAPE)
    expected = sum(
        functional.cross_entropy(head.heads[name](features), part, label_smoothing=smoothing)
        for name, part in zip(labels.ATTRIBUTES, parts, strict=True)
    )
    found = functional.cross_entropy(head(features), target, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


def test_three_heads_add_up_in_full_precision_under_autocast():
    head, features, _ = three_answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joint = head(features)
    assert joint.dtype == torch.float32
    torch.testing.assert_close(joint.logsumexp(dim=1), torch.zeros(len(features)), atol=1e-5, rtol=0)


def prepared(batch: torch.Tensor, per_image: bool = True) -> torch.Tensor:
    return build.preprocessing_of("test_resnet", 24, 32, "stretch", batch.shape[1], per_image).prepared(batch)


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


def test_a_checkpoint_from_before_there_was_the_choice_is_read():
    new = build.preprocessing_of("test_resnet", 24, 32, "stretch", per_image=True)
    assert build.Preprocessing.from_manifest({"preprocessing": vars(new)}) == new
    old = {name: value for name, value in vars(new).items() if name != "per_image"}
    assert build.Preprocessing.from_manifest({"preprocessing": old}).per_image is False
