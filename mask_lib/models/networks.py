"""Networks by any timm name at the size of the photos, heads on them, and the `custom_model`.

A head takes the place of a network's last layer; all other tensors keep timm's names.
"""

import contextlib
import difflib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import huggingface_hub
import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, parse_model_name, register_model
from torch import nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation as Conv  # 3 x 3, batch normalisation, ReLU

from mask_lib.base import labels

SEED_NAMES = {"se_resnext50": "seresnext50_32x4d"}  # what the seeds call a network: timm's name for it
CUSTOM = "custom_model"
STEM = (32, 32, 48)  # channels of its three convolutions, of which the first halves the maps
BLOCKS = (48, 48, 96, 96, 192, 192, 320, 320)  # channels, two a stage; each stage but the first halves the maps
AUXILIARY = "AuxLogits"  # what timm calls inception_v3's classifier of earlier maps, for training alone
HUB_SECONDS = 3  # to wait for an answer
STAGES_KEPT = 2  # of a frozen network, the last ones
Size = tuple[int, int]  # height, width

_SETTINGS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "first_conv": "stem.0.0"}
default_cfgs = generate_default_cfgs({CUSTOM: _SETTINGS | {"classifier": "classifier"}})  # timm finds it by this name


class Block(nn.Module):
    """Two 3 x 3 convolutions (He et al. 2016) beside a shortcut that averages before it projects (ResNet-D)."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        second, project = Conv(outside, outside, activation_layer=None), Conv(inside, outside, 1, activation_layer=None)
        self.branch = nn.Sequential(*Conv(inside, outside, stride=stride), *second)
        pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity() if inside == outside else nn.Sequential(pool, project)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        return functional.relu(self.shortcut(maps) + self.branch(maps))


class StagedNetwork(nn.Module):
    """A stem, blocks and a last layer for pooled features, with what timm and `put_head` ask of a network."""

    def __init__(self, stem: list, blocks: list, width: int, num_classes: int, drop_rate=0.0, global_pool="avg"):
        super().__init__()
        self.stem, self.blocks, self.drop_rate = nn.Sequential(*stem), nn.Sequential(*blocks), drop_rate
        self.num_features = self.head_hidden_size = width
        self.reset_classifier(num_classes, global_pool)
        for part in (one for one in self.modules() if isinstance(one, nn.Conv2d)):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, D, H', W') maps."""
        return self.blocks(self.stem(photos))

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Maps → (B, classes) logits, or with `pre_logits` the (B, D) features; maps stay maps without pooling."""
        features = maps.mean((2, 3)) if self.global_pool else maps
        features = functional.dropout(features, self.drop_rate, self.training)
        return features if pre_logits else self.classifier(features)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, classes) logits."""
        return self.forward_head(self.forward_features(photos))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer of `num_classes` outputs; 0: none."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters belong to which layer, for a decay of the learning rate by depth."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


class CustomNetwork(StagedNetwork):
    """A network for faces of 32 pixels and more, to be trained from scratch on few photos: 5.0 M parameters.

    ResNet-18's plan, narrower, with the stem and the shortcuts of ResNet-D (He et al. 2019). Newer parts scored lower
    on a fold of faces in eight epochs: inverted bottlenecks, squeeze and excite, SiLU, blocks that start at 0.
    """

    def __init__(self, num_classes: int, in_chans: int = 3, **settings: Any):
        stem = [Conv(*pair, stride=1 if at else 2) for at, pair in enumerate(itertools.pairwise((in_chans, *STEM)))]
        pairs = itertools.pairwise((STEM[-1], *BLOCKS))
        blocks = [Block(inside, outside, stride=1 if inside == outside else 2) for inside, outside in pairs]
        super().__init__([*stem, nn.MaxPool2d(3, 2, padding=1)], blocks, BLOCKS[-1], num_classes, **settings)


@register_model
def custom_model(pretrained: bool = False, **settings: Any) -> CustomNetwork:
    """What `timm.create_model` calls."""
    return build_model_with_cfg(CustomNetwork, CUSTOM, pretrained, **settings)


def timm_name(architecture: str) -> str:
    """What timm calls a network that the seeds may call otherwise."""
    return SEED_NAMES.get(architecture, architecture)


def require_known(architecture: str) -> None:
    """ValueError with near names for a network that timm lacks; OSError for `hf-hub:` if the hub is out of reach."""
    source, name = parse_model_name(timm_name(architecture))
    if source is None and not timm.is_model(name):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ValueError(f"timm has no network {architecture!r}; near it: {', '.join(near) or 'nothing'}")
    if source == "hf-hub" and not isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
        advice = "copy that repository here and write architecture: local-dir:ITS_PATH, or use a network of timm's own"
        require_hub(f"settings of {architecture}", advice)


def require_hub(wanted: str, advice: str) -> None:
    """Raise OSError with advice within seconds if the hub cannot be reached; its own client tries for a minute."""
    try:
        huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        raise OSError(f"{wanted} could not be fetched from the Hugging Face hub ({error}): {advice}") from error


def create(architecture: str, channels: int = 3, size: Size | None = None, **settings: Any) -> nn.Module:
    """A network by `timm.create_model`; one that takes a single size is made for `size`. Raises as `require_known`.

    With timm's aux_logits=True it gives (B, 2, classes) in training, logits and auxiliary ones, else logits alone.
    """
    require_known(architecture)
    name = timm_name(architecture)
    if size is not None:
        wanted = timm.models.resolve_model_input_args(name, {"input_size": (channels, *size)})
        settings["img_size"] = wanted.get("img_size")  # None: left out by timm
    if not settings.get("aux_logits"):
        return timm.create_model(name, in_chans=channels, **settings)
    last = {"classifier": ("fc", f"{AUXILIARY}.fc")}  # timm leaves out the weights of the first alone
    overlay = settings.pop("pretrained_cfg_overlay", {}) | last
    network = timm.create_model(name, in_chans=channels, pretrained_cfg_overlay=overlay, **settings)
    network.register_forward_hook(lambda network, _, both: torch.stack(both, 1) if network.training else both[0])
    return network


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Within it networks are built and called on torch's meta device: nothing is computed, no random number drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        yield


class AttentionHead(nn.Module):
    """A map of each class times a softmax map of where to look for it, summed (two 1 x 1 convolutions)."""

    def __init__(self, channels: int, class_count: int):
        super().__init__()
        self.classes = nn.Conv2d(channels, class_count, 1)
        self.attention = nn.Conv2d(channels, class_count, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, K) logits. Raises UnsupportedError for anything but a convolution network's maps."""
        channels = self.classes.in_channels
        if maps.ndim != 4 or maps.shape[1] != channels:
            needed = f"maps of {channels} channels, as convolution networks make them, not {tuple(maps.shape)}"
            raise UnsupportedError(f"a head of attention needs {needed}: use head: linear or three")
        where = self.attention(maps).flatten(2).softmax(dim=2)
        return (self.classes(maps).flatten(2) * where).sum(dim=2)


class AttributeHeads(nn.Module):
    """One layer for each attribute of `labels`, which give joint log-probabilities; `head: three`, three_attention."""

    def __init__(self, features: int, layer: Callable[[int, int], nn.Module] = nn.Linear):
        super().__init__()
        self.heads = nn.ModuleDict({one.name: layer(features, one.size) for one in labels.attributes()})
        self.takes_maps = layer is AttentionHead

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D), (B, D, 1, 1) or maps → (B, classes) float32 logits, in the order of `labels.joint`."""
        if not self.takes_maps:
            features = features.flatten(1)  # where the last layer was a 1 x 1 convolution
        joint = features.new_zeros(len(features), 1, dtype=torch.float32)
        for head in self.heads.values():
            alone = head(features).float().log_softmax(dim=1)
            joint = (joint[:, :, None] + alone[:, None, :]).flatten(1)
        return joint


class FrozenNetwork(nn.Module):
    """A backbone that never learns, and for each of its last stages a layer for each attribute; `head: frozen`.

    The layers see each channel's mean and deviation (`moments`). Log-probabilities of several stages are averaged.
    """

    def __init__(self, backbone: nn.Module, photo: torch.Tensor):
        """backbone: without last layer; photo: (1, C, H, W), of the size it takes."""
        super().__init__()
        self.backbone = backbone.eval()
        with torch.no_grad():
            widths = [one.shape[1] for one in moments(backbone, photo)]
        self.heads = nn.ModuleList(AttributeHeads(width) for width in widths)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, classes) float32 logits."""
        return self.of_moments(moments(self.backbone, photos))

    def of_moments(self, found: list[torch.Tensor]) -> torch.Tensor:
        """The logits by what `moments` gives."""
        return torch.stack([head(one) for head, one in zip(self.heads, found, strict=True)]).mean(dim=0)

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """As of any module, but the backbone's statistics stay as they are."""
        super().train(mode)
        self.backbone.eval()
        return self


def of_one_backbone(frozen: Sequence[FrozenNetwork], photos: torch.Tensor) -> torch.Tensor:
    """(B, F, classes) float32 logits of F frozen networks, whose backbones are alike."""
    found = moments(frozen[0].backbone, photos)
    return torch.stack([one.of_moments(found) for one in frozen], dim=1)


def moments(backbone: nn.Module, photos: torch.Tensor) -> list[torch.Tensor]:
    """Mean and deviation of each channel of the last two stages, each (B, 2 x channels), of a network without last
    layer; one without timm's `forward_intermediates` gives its (B, D) pooled features alone.
    """
    if not hasattr(backbone, "forward_intermediates"):
        return [backbone(photos)]
    return moments_of(backbone.forward_intermediates(photos, indices=STAGES_KEPT, intermediates_only=True))


def moments_of(stages: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same of (B, C, H, W) maps of stages."""
    return [torch.cat([one.mean((2, 3)), one.std((2, 3), correction=0)], dim=1) for one in stages]


class UnsupportedError(ValueError):
    """A head or another setting that does not fit a network, or one without maps that keep places apart."""


def put_head(network: nn.Module, head: str, class_count: int) -> None:
    """Put a head of attention, three or three_attention for a network's last layers; UnsupportedError if it cannot."""
    names = last_names(network)
    try:
        (name,) = (one for one in names if not one.startswith(AUXILIARY))
        if head == "three":
            last = network.get_submodule(name)
            width = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        else:
            name, width = leave_out_pooling(network, name)
        network.set_submodule(name, new_head(head, width, class_count))
        if auxiliary := getattr(network, AUXILIARY, None):
            auxiliary.fc = new_head(head, auxiliary.conv1.conv.out_channels, class_count)
            if head != "three":  # the same layers without the mean that timm takes before the last of them
                layers = OrderedDict(pool=nn.AvgPool2d(5, stride=3), **dict(auxiliary.named_children()))
                setattr(network, AUXILIARY, nn.Sequential(layers))
    except Exception as error:  # timm says in many ways what a network cannot do
        name = type(network).__name__
        words = f"head: {head} cannot replace the last layer {', '.join(names)} of {name} ({error}): use head: linear"
        raise UnsupportedError(words) from error


def new_head(head: str, width: int, class_count: int) -> nn.Module:
    """A head for (B, width) features, or of attention, for (B, width, H, W) maps."""
    if head == "attention":
        return AttentionHead(width, class_count)
    return AttributeHeads(width, AttentionHead if head == "three_attention" else nn.Linear)


def leave_out_pooling(network: nn.Module, last: str) -> tuple[str, int]:
    """Remove the layer named `last` and pooling; returns the module that is given maps then, and their channels."""
    try:
        network.reset_classifier(0, "")
        channels = network.head_hidden_size
    except AssertionError:  # some heads cannot do without pooling: all of the head is replaced
        last, channels = last.partition(".")[0], network.num_features
    modules = dict(network.named_modules())
    while last not in modules:  # it went together with the module that held it
        last = last.rpartition(".")[0]
    return last, channels


def last_layers(network: nn.Module) -> tuple[nn.Module, ...]:
    """The layers that give the logits: one, but several in distilled networks and with an auxiliary classifier."""
    outer = (part for name, part in network.named_modules() if ".heads." not in name)  # not of AttributeHeads
    heads = tuple(part for part in outer if isinstance(part, AttentionHead | AttributeHeads))
    layers = heads or network.get_classifier()
    layers = layers if isinstance(layers, tuple) else (layers,)
    auxiliary = None if heads else getattr(network, AUXILIARY, None)
    return (*layers, auxiliary.fc) if auxiliary else layers


def last_names(network: nn.Module) -> list[str]:
    """The names of a network's own last layers, as timm has them; without them of what it calls its classifier."""
    names = getattr(network, "pretrained_cfg", {}).get("classifier")
    if names:
        return [names] if isinstance(names, str) else list(names)
    layers = last_layers(network)
    return [name for name, part in network.named_modules() if any(part is layer for layer in layers)]
