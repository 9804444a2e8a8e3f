"""The custom network behaves as timm's do, heads fit networks of every make, and three heads are one distribution."""

import copy
import itertools
import json

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import toys  # noqa: F401, timm knows toy_inception then
from torch import nn
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.data import store
from mask_lib.models import build, networks
from mask_lib.training import optimizer

HEADS = {"attention": networks.AttentionHead, "three": networks.AttributeHeads}
HEADS["three_attention"] = networks.AttributeHeads
TWO = (labels.Attribute("helmet", ("on", "off"), "ab"), labels.Attribute("crew", ("red", "blue", "white"), "xyz"))


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def custom() -> nn.Module:
    return build.build_network(networks.CUSTOM).eval()


def test_the_custom_network_is_small_and_made_for_mean_and_deviation_of_a_half(custom):
    assert sum(parameter.numel() for parameter in custom.parameters()) <= 5_000_000
    without_classes = build.build_network(networks.CUSTOM, class_count=0)
    assert without_classes(photos(2, 3, 32, 48)).shape == (2, custom.num_features)
    found = build.preprocessing_of(networks.CUSTOM, store.Frame(32, 32, channels=4))
    assert (found.mean, found.std) == ((0.5,) * 4, (0.5,) * 4)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 47), (96, 128)])
def test_the_custom_network_takes_photos_of_any_size(custom, width, height):
    batch = photos(2, 3, height, width)
    with torch.inference_mode():
        maps = custom.forward_features(batch)
        assert maps.shape[2:] == (-(-height // 32), -(-width // 32))
        assert torch.equal(custom(batch), custom.forward_head(maps))
        assert custom.forward_head(maps, pre_logits=True).shape == (2, custom.num_features)
    assert custom(batch).shape == (2, labels.class_count())


def peaks_of(network: nn.Module, **changes) -> dict[int, float]:
    """The highest learning rate of each parameter, by its id."""
    groups = optimizer.parameter_groups(network, Run(weight_decay=0.01, **changes))
    return {id(parameter): group["peak"] for group in groups for parameter in group["params"]}


def test_each_parameter_of_the_custom_network_learns_and_its_first_layers_the_slowest():
    network = build.build_network(networks.CUSTOM)
    functional.cross_entropy(network(photos(4, 3, 48, 48)), torch.arange(4)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    peak_of = peaks_of(network, learning_rate=1.0, layer_decay=0.5)
    peaks = [peak_of[id(parameter)] for parameter in network.parameters()]
    assert peaks == sorted(peaks) and len(set(peaks)) == len(network.blocks) + 2
    assert peak_of[id(network.classifier.weight)] == 1.0


# Names.


@pytest.mark.parametrize(
    ("name", "near"), [("resnet81", "resnet18"), ("custom_modle", "custom_model"), ("%%%%%%", "nothing")]
)
def test_an_unknown_network_is_refused_with_near_names(name, near):
    with pytest.raises(ValueError, match=f"no network '{name}'; near it: .*{near}"):
        build.build_network(name)


def test_a_network_described_on_a_hub_out_of_reach_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(OSError, match=r"settings of hf-hub:timm/resnet18 could not be fetched .*local-dir:ITS_PATH"):
        build.build_network("hf-hub:timm/resnet18")


def test_a_network_described_in_a_folder_is_built(tmp_path):
    described = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    name = f"local-dir:{tmp_path}"
    assert build.build_network(name, head="three")(photos(2, 3, 32, 32)).shape == (2, labels.class_count())
    assert build.preprocessing_of(name, store.Frame(32, 32)).mean == (0.1, 0.2, 0.3)


# Heads.


def test_attention_is_each_class_looked_for_where_its_map_says():
    head, maps = networks.AttentionHead(5, 3), photos(2, 5, 4, 6)
    where = functional.softmax(head.attention(maps).view(2, 3, -1), dim=2).view(2, 3, 4, 6)
    torch.testing.assert_close(head(maps), (head.classes(maps) * where).sum((2, 3)))
    nn.init.zeros_(head.attention.weight)  # no preference is mean pooling
    torch.testing.assert_close(head(maps), head.classes(maps).mean((2, 3)))


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        *itertools.product(["test_resnet", "test_efficientnet", "test_convnext", networks.CUSTOM], HEADS),
        ("mobilenetv3_small_050", "attention"),  # a last layer with a hidden one before it
        ("convformer_s18", "attention"),
        ("regnetx_002", "attention"),
        ("shvit_s1", "attention"),  # one with batch normalisation
        ("inception_next_atto", "attention"),  # pooling that cannot be left out of the head
        ("efficientvit_b0", "attention"),
        ("vgg11", "attention"),
        ("dpn68", "three"),  # convolutions as last layers
        ("dla34", "three"),
        ("resnetv2_50", "three"),
        ("vit_tiny_patch16_224", "three"),
        ("swin_tiny_patch4_window7_224", "three"),
    ],
)
def test_heads_fit_networks_of_every_make_and_learn_as_fast_as_heads_should(architecture, head):
    with networks.shapes_only():
        network = build.build_network(architecture, head=head, channels=4).eval()
        assert network(torch.empty(2, 4, 224, 224)).shape == (2, labels.class_count())
    (layer,) = networks.last_layers(network)
    assert isinstance(layer, HEADS[head])
    peak_of = peaks_of(network, learning_rate=0.1, head_learning_rate_scale=10.0, layer_decay=0.5)
    assert {peak_of[id(parameter)] for parameter in layer.parameters()} == {1.0}
    assert len(peak_of) == len(list(network.parameters()))


@pytest.mark.parametrize("architecture", ["test_resnet", "test_convnext", "inception_next_atto", networks.CUSTOM])
def test_heads_are_given_what_timm_gives_its_last_layer_and_attention_maps(architecture):
    """All other tensors have timm's names, so the weights of the plain network are loaded under a head."""
    plain, batch, given = build.build_network(architecture).eval(), photos(2, 3, 64, 96), {}
    for head in HEADS:
        network = build.build_network(architecture, head=head).eval()
        network.load_state_dict(plain.state_dict(), strict=False)
        networks.last_layers(network)[0].register_forward_hook(lambda _, got, out, head=head: given.update({head: got}))
        with torch.inference_mode():
            network(batch)
    with torch.inference_mode():
        maps = plain.forward_features(batch)
        assert torch.equal(given["three"][0].flatten(1), plain.forward_head(maps, pre_logits=True))
        assert given["attention"][0].shape == maps.shape
        assert torch.equal(given["three_attention"][0], given["attention"][0])
        if architecture != "test_convnext":  # whose head normalises before its last layer
            assert torch.equal(given["attention"][0], maps)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", networks.CUSTOM])
@pytest.mark.parametrize("head", ["linear", *HEADS])
def test_dropout_acts_in_training_only(architecture, head):
    network = build.build_network(architecture, head=head, dropout=0.9).eval()
    maps = network.forward_features(photos(2, 3, 64, 48))
    assert torch.equal(network.forward_head(maps), network.forward_head(maps))
    network.train()
    assert not torch.equal(network.forward_head(maps), network.forward_head(maps))


@pytest.mark.parametrize("head", ["linear", *HEADS])
def test_an_auxiliary_classifier_answers_in_training_alone_and_learns_as_fast_as_heads_should(head):
    network, batch = build.build_network("toy_inception", head=head, aux_logits=True), photos(2, 3, 24, 16)
    both = network.train()(batch)
    assert both.shape == (2, 2, labels.class_count())
    functional.cross_entropy(both[:, 1], torch.tensor([0, 17])).backward()
    learning = {name for name, one in network.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    assert {name.partition(".")[0] for name in learning} == {"first", "AuxLogits"}
    peak_of = peaks_of(network, learning_rate=0.1, head_learning_rate_scale=10.0)
    assert {peak_of[id(one)] for one in [*network.fc.parameters(), *network.AuxLogits.fc.parameters()]} == {1.0}
    assert copy.deepcopy(network).eval()(batch).shape == (2, labels.class_count())


@pytest.mark.parametrize("head", ["linear", *HEADS])
def test_inception_has_one(head):
    with networks.shapes_only():
        network = build.build_network("inception_v3", head=head, aux_logits=True, channels=4)
        assert network(torch.empty(5, 4, 299, 320)).shape == (5, 2, labels.class_count())
        assert network.eval()(torch.empty(2, 4, 299, 320)).shape == (2, labels.class_count())


def test_whatever_timm_says_of_what_it_cannot_do_becomes_a_sentence(monkeypatch):
    monkeypatch.setattr(timm.models.ResNet, "reset_classifier", lambda *_: torch.zeros(1).fall_over())
    with pytest.raises(ValueError, match=r"the last layer fc of ResNet \(.*fall_over.*\): use head: linear"):
        build.build_network("test_resnet", head="attention")


def head_and_features(layer=nn.Linear, *places: int) -> tuple[networks.AttributeHeads, torch.Tensor]:
    features = torch.randn(64, 7, *places, generator=torch.Generator().manual_seed(1)) * 5
    return networks.AttributeHeads(7, layer), features


@pytest.mark.parametrize("task", [labels.task().attributes, TWO, TWO[:1]])
@pytest.mark.parametrize("given", [(nn.Linear,), (networks.AttentionHead, 2, 3)], ids=["features", "maps"])
def test_the_softmax_is_the_product_of_the_heads_and_its_marginals_are_theirs_again(task, given):
    with labels.using(task):
        head, features = head_and_features(*given)
        alone = {name: one(features).softmax(dim=1).detach().numpy() for name, one in head.heads.items()}
        joint = head(features).softmax(dim=1).detach().numpy()
        assert joint.shape == (64, labels.class_count()) and list(alone) == list(labels.names())
        np.testing.assert_allclose(joint, labels.joint(alone), atol=1e-6)
        for name, back in labels.marginals(joint).items():
            np.testing.assert_allclose(back, alone[name], atol=1e-6)
        if features.ndim == 2:  # where the last layer was a convolution
            assert torch.equal(head(features[:, :, None, None]), head(features))


def test_three_heads_add_up_in_full_precision_under_autocast():
    head, features = head_and_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        joint = head(features)
    assert joint.dtype == torch.float32
    torch.testing.assert_close(joint.logsumexp(dim=1), torch.zeros(len(features)), atol=1e-5, rtol=0)
