"""Networks by name, at the size of the photos, and where a head of our own stands on them.

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

from mask_lib import labels, networks
from mask_lib.config import Head

OURS = (networks.AttentionHead, networks.ThreeHeads)
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
    if architecture != networks.CUSTOM and not timm.is_model(timm_name(architecture)):
        near = difflib.get_close_matches(architecture, [networks.CUSTOM, *timm.list_models()], n=5)
        raise ValueError(f"timm has no network {architecture!r}; near it: {', '.join(near) or 'nothing'}")


def timm_name(architecture: str) -> str:
    """What timm calls a network that the seeds may call otherwise."""
    return networks.SEED_NAMES.get(architecture, architecture)


def create(architecture: str, size: Size | None = None, **settings: Any) -> nn.Module:
    """A network of timm's, or our own, with random weights.

    One that is made for a single size is made for `size` instead of its usual one; others take any.
    """
    if architecture == networks.CUSTOM:
        return networks.CustomNetwork(**settings)
    if size is not None and size != own_size(architecture) and is_of_one_size(architecture):
        settings["img_size"] = size
    return timm.create_model(timm_name(architecture), **settings)


def own_size(architecture: str) -> Size:
    """Height and width of the photos that a network was made for, in pixels."""
    known = None if architecture == networks.CUSTOM else timm.get_pretrained_cfg(timm_name(architecture))
    return tuple(known.input_size[1:]) if known else (224, 224)


def is_of_one_size(architecture: str) -> bool:
    """Whether a network takes photos of the size it was built for alone, as most transformers do."""
    known = None if architecture == networks.CUSTOM else timm.get_pretrained_cfg(timm_name(architecture))
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
    new = (
        networks.ThreeHeads(place.features) if head == "three" else networks.AttentionHead(place.features, class_count)
    )
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
    if architecture == networks.CUSTOM:
        return ["classifier"]
    known = timm.get_pretrained_cfg(timm_name(architecture))
    return listed(known.classifier if known else None)


def listed(names: str | Sequence[str] | None) -> list[str]:
    """Names of layers, of which timm gives none, one or several."""
    return [names] if isinstance(names, str) else list(names or ())
