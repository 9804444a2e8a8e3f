"""Networks and heads of our own, in the shape of timm's, so that everything else treats both alike.

Networks by name, at the size of the photos, and where a head of our own stands on them.

timm's networks differ in what they call their last layer, in what comes before it and in whether their pooling
can be left out. So nothing of that is listed here: the places are tried, on torch's meta device, which knows
shapes and computes nothing.
"""

import contextlib
import dataclasses
import difflib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional

from mask_lib.base import labels
from mask_lib.base.config import Head

SEED_NAMES = {"se_resnext50": "seresnext50_32x4d"}  # what the seeds call a network: timm's name for it
CUSTOM = "custom_model"  # the architecture's name beside timm's
STEM = (32, 32, 48)  # channels of its three convolutions, of which the first halves the maps
STAGES = (48, 96, 192, 320)  # channels; each stage but the first halves the maps
BLOCKS = 2  # a stage
ATTENTION_NAMES = ("classes", "attention")


def normalised(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution without bias that divides the size of its maps by `stride`, batch normalisation and ReLU."""
    conv = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; ReLU after both are added (He et al. 2016).

    A shortcut that halves the maps averages before it projects, so that no pixel is passed over (ResNet-D,
    He et al. 2019).
    """

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        second = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.branch = nn.Sequential(*normalised(inside, outside, stride), second, nn.BatchNorm2d(outside))
        pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        project = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = nn.Identity() if inside == outside else nn.Sequential(pool, project)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        return functional.relu(self.shortcut(maps) + self.branch(maps))


class CustomNetwork(nn.Module):
    """A network of our own for faces of 32 pixels and more, to be trained from scratch: 5.0 M parameters.

    Made for short runs on few photos: ResNet-18's plan, narrower, with a stem of three small convolutions and
    shortcuts that average, as ResNet-D has them. Newer parts scored lower where they were tried, on one fold of some
    three thousand faces in eight epochs: inverted bottlenecks, squeeze and excite, SiLU, and blocks that start as
    nothing together with normalised features. Settings and methods are timm's, as far as this package calls them.
    """

    def __init__(self, num_classes: int, drop_rate: float = 0.0, in_chans: int = 3, global_pool: str = "avg"):
        super().__init__()
        self.num_classes, self.drop_rate, self.global_pool = num_classes, drop_rate, global_pool
        self.num_features = self.head_hidden_size = STAGES[-1]
        self.pretrained_cfg = {
            "architecture": CUSTOM,
            "input_size": (3, 224, 224),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "first_conv": "stem.0.0",
            "classifier": "classifier",
        }
        steps = itertools.pairwise((in_chans, *STEM))
        stem = [normalised(inside, outside, stride=1 if place else 2) for place, (inside, outside) in enumerate(steps)]
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1))
        inside, blocks = STEM[-1], []
        for stage, outside in enumerate(STAGES):
            blocks += [Block(inside, outside, stride=2 if stage else 1)]
            blocks += [Block(outside, outside, stride=1) for _ in range(BLOCKS - 1)]
            inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inside, num_classes) if num_classes else nn.Identity()
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, 320, H / 32, W / 32) maps."""
        return self.blocks(self.stem(photos))

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Maps → (B, 18) logits, or with `pre_logits` the (B, 320) features; maps stay maps without pooling."""
        features = maps.mean((2, 3)) if self.global_pool else maps
        features = functional.dropout(features, self.drop_rate, self.training)
        return features if pre_logits else self.classifier(features)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, 18) logits."""
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


class AttentionHead(nn.Module):
    """A class map times a map of where to look, for each class, summed (two 1 x 1 convolutions)."""

    def __init__(self, channels: int, class_count: int):
        super().__init__()
        self.channels = channels
        self.classes, self.attention = (nn.Conv2d(channels, class_count, 1) for _ in ATTENTION_NAMES)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, K) logits. Raises ValueError for anything but a convolution network's maps."""
        if maps.ndim != 4 or maps.shape[1] != self.channels:
            raise ValueError(
                f"head: attention needs maps of {self.channels} channels, as convolution networks make them, not "
                f"{tuple(maps.shape)}: use head: linear or three with this architecture"
            )
        where = self.attention(maps).flatten(2).softmax(dim=2)
        return (self.classes(maps).flatten(2) * where).sum(dim=2)


class ThreeHeads(nn.Module):
    """Three linear heads, of mask, gender and age, whose product is the answer.

    It gives the 18 joint log-probabilities, which are logits like any others: their softmax is the product
    of the three heads' and their cross-entropy the sum of the three, label smoothing included.
    """

    def __init__(self, features: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(kind)) for name, kind in labels.ATTRIBUTES.items()})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D), or (B, D, 1, 1), → (B, 18) float32 logits, in the order of `labels.joint`."""
        features = features.flatten(1)  # where the last layer was a 1 x 1 convolution
        mask, gender, age = (head(features).float().log_softmax(dim=1) for head in self.heads.values())
        return (mask[:, :, None, None] + gender[:, None, :, None] + age[:, None, None, :]).flatten(1)


OURS = (AttentionHead, ThreeHeads)
Size = tuple[int, int]  # height, width


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a head of our own stands on a network."""

    settings: dict[str, Any]  # which the network is created with
    name: str  # of the module that it replaces
    features: int  # numbers, or channels of maps, that are given to it


class Probe(nn.Module):
    """Stands where a head could, and notes what it is given."""

    given: torch.Size | None = None

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(B, …) → (B, 18) zeros."""
        self.given = given.shape
        return given.new_zeros(len(given), labels.CLASS_COUNT)


def require_known(architecture: str) -> None:
    """Raise ValueError with near names unless timm has the network or it is our own."""
    if architecture != CUSTOM and not timm.is_model(timm_name(architecture)):
        near = difflib.get_close_matches(architecture, [CUSTOM, *timm.list_models()], n=5)
        raise ValueError(f"timm has no network {architecture!r}; near it: {', '.join(near) or 'nothing'}")


def timm_name(architecture: str) -> str:
    """What timm calls a network that the seeds may call otherwise."""
    return SEED_NAMES.get(architecture, architecture)


def create(architecture: str, size: Size | None = None, **settings: Any) -> nn.Module:
    """A network of timm's, or our own, with random weights.

    One that is made for a single size is made for `size` instead of its usual one; others take any.
    """
    if architecture == CUSTOM:
        return CustomNetwork(**settings)
    if size is not None and size != own_size(architecture) and is_of_one_size(architecture):
        settings["img_size"] = size
    return timm.create_model(timm_name(architecture), **settings)


def own_size(architecture: str) -> Size:
    """Height and width of the photos that a network was made for, in pixels."""
    known = None if architecture == CUSTOM else timm.get_pretrained_cfg(timm_name(architecture))
    return tuple(known.input_size[1:]) if known else (224, 224)


def is_of_one_size(architecture: str) -> bool:
    """Whether a network takes photos of the size it was built for alone, as most transformers do."""
    known = None if architecture == CUSTOM else timm.get_pretrained_cfg(timm_name(architecture))
    return bool(known and known.fixed_input_size)


@contextlib.contextmanager
def without_arithmetic() -> Iterator[None]:
    """Within it networks are built and called for their shapes alone; no random number is used up."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        yield


@functools.cache
def place_of(architecture: str, head: Head) -> Place:
    """Where `head`, attention or three, stands on a network. Raises ValueError where it does not fit."""
    names, reason = _last_names(architecture), ""
    if len(names) != 1:
        raise ValueError(f"head: {head} replaces one last layer, but {architecture} has {names}: use head: linear")
    for settings, name in _candidates(names[0], head):
        try:
            place = _tried(architecture, settings, name, head)
        except Exception as error:  # timm says in many ways what a network cannot do
            reason = f" ({error})"
            continue
        if place:
            return place
    needed = "maps of the photo, as convolution networks make them," if head == "attention" else "one row of features"
    others = "linear or three" if head == "attention" else "linear"
    raise ValueError(f"head: {head} needs {needed} where {architecture} has none{reason}: use head: {others}")


def _candidates(name: str, head: Head) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings, and the module to replace: the last layer, or what holds it, without pooling where maps are wanted."""
    if head == "three":
        yield {"num_classes": labels.CLASS_COUNT}, name
        return
    parts = name.split(".")
    holders = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    yield from itertools.product(({"num_classes": 0, "global_pool": ""}, {"num_classes": 0}), holders)


def _tried(architecture: str, settings: dict[str, Any], name: str, head: Head) -> Place | None:
    """The place, if what stands there gives the network's answer and is given what the head needs."""
    probe = Probe()
    with without_arithmetic():
        network = create(architecture, **settings).eval()
        network.set_submodule(name, probe)
        answer = network(torch.empty(2, 3, *own_size(architecture)))
    if probe.given is None or answer.shape != (2, labels.CLASS_COUNT):
        return None
    _, features, *places = probe.given
    if head == "three":
        fits = all(side == 1 for side in places)
    else:
        channels_first = features in (network.num_features, network.head_hidden_size)
        not_pooled = "global_pool" in settings or max(places, default=1) > 1
        fits = channels_first and len(places) == 2 and not_pooled
    return Place(settings, name, features) if fits else None


def put(network: nn.Module, place: Place, head: Head, class_count: int) -> None:
    """Put a new `head` on a network that was created with the place's settings."""
    new = ThreeHeads(place.features) if head == "three" else AttentionHead(place.features, class_count)
    network.set_submodule(place.name, new)


def last_layers(network: nn.Module) -> tuple[nn.Module, ...]:
    """The layers that give the logits: one, but several in distilled networks."""
    ours = tuple(part for part in network.modules() if isinstance(part, OURS))
    layers = ours or network.get_classifier()
    return layers if isinstance(layers, tuple) else (layers,)


def prefixes(network: nn.Module) -> tuple[str, ...]:
    """What the names of the last layer's tensors begin with, under our own head as under the network's."""
    ours = [name for name, part in network.named_modules() if isinstance(part, OURS)]
    return tuple(f"{name}." for name in [*ours, *listed(network.pretrained_cfg.get("classifier"))])


def _last_names(architecture: str) -> list[str]:
    """What a network calls its last layers."""
    if architecture == CUSTOM:
        return ["classifier"]
    known = timm.get_pretrained_cfg(timm_name(architecture))
    return listed(known.classifier if known else None)


def listed(names: str | Sequence[str] | None) -> list[str]:
    """Names of layers, of which timm gives none, one or several."""
    return [names] if isinstance(names, str) else list(names or ())
