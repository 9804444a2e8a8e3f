"""Networks and their weights: any timm name with any head, what they start from, checkpoints with a manifest."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.optim import param_groups_layer_decay
from torch import nn

from mask_lib import files, heads, labels, pretrained
from mask_lib.config import Head, Run

MANIFEST_FORMAT = 1
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
    size: heads.Size | None = None,
) -> nn.Module:
    """A network of timm's, or `custom_model`, with random weights for photos of `channels`.

    It has `class_count` outputs (0: pooled features instead; three heads: always 18) from the `head`, which
    stands where the last layer was. size: height and width of the photos, for networks that take a single one;
    without it the network's own. Raises ValueError with near names if there is no such network, and where the
    head does not fit it.
    """
    heads.require_known(architecture)
    place = None if head == "linear" else heads.place_of(architecture, head)
    settings = place.settings if place else {"num_classes": class_count}
    network = heads.create(architecture, size, **settings, drop_rate=dropout, in_chans=channels)
    if place:
        heads.put(network, place, head, class_count)
    return network


def of_run(run: Run) -> nn.Module:
    """The network that a run's settings describe, with random weights."""
    return build(run.architecture, dropout=run.dropout, channels=run.image_channels, head=run.head, size=size_of(run))


def size_of(run: Run) -> heads.Size:
    """Height and width of a run's photos."""
    return run.image_height, run.image_width


def require_fits(run: Run) -> None:
    """Raise ValueError that says what to change unless a run's network and head take photos of its size.

    Nothing is computed and no weights are read, so it can be asked before photos are decoded.
    """
    height, width = size_of(run)
    own_height, own_width = heads.own_size(run.architecture)
    made_for = f"{run.architecture} does not take photos of {width} x {height} pixels, but {own_width} x {own_height}"
    advice = "set image_width and image_height to those"
    heads.require_known(run.architecture)
    if run.head != "linear":
        heads.place_of(run.architecture, run.head)
    try:
        with heads.without_arithmetic():
            network = of_run(run).eval()
            answer = network(torch.empty(2, run.image_channels, height, width))
    except Exception as error:  # timm says in many ways what a network cannot do
        raise ValueError(f"{made_for}: {advice} ({error})") from error
    if answer.shape != (2, labels.CLASS_COUNT):
        raise ValueError(f"{run.architecture} gives {tuple(answer.shape)} of 2 photos, not 18 numbers each")
    fixed = heads.is_of_one_size(run.architecture) and not hasattr(network, "set_input_size")
    if run.weights == "imagenet" and fixed:
        with heads.without_arithmetic():
            own = build(run.architecture, channels=run.image_channels, head=run.head)
        if misfits(network, own.state_dict()):
            raise ValueError(f"{made_for}, when it starts from weights: {advice}, or weights to none")


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
    size: heads.Size | None = None,
) -> dict[str, Any]:
    """The weights a run starts from: `weights` (imagenet, none or a path) under a new last layer.

    For photos of other than three channels the first convolution is widened or narrowed, and for photos of
    another `size` than the network's own its position embeddings are resampled. The new layer's
    random numbers depend on `seed` alone. Raises ValueError or OSError that says where weights can come from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(architecture, class_count, channels=channels, head=head, size=size)
    if weights == "none":
        return network.state_dict()
    if weights == "imagenet":
        found = pretrained.imagenet_state(architecture)
        return adopt(network, resampled(network, architecture, found, channels, size), weights)
    found, manifest = read_checkpoint(files.project_path(weights))
    if "fold" in manifest:
        raise ValueError(
            f"{weights} was trained on fold {manifest['fold']} of a run: it knows people whom other folds validate, "
            "and their scores would mean nothing; start from imagenet, none, or weights from elsewhere"
        )
    return adopt(network, resampled(network, architecture, found, channels, size), weights)


def first_weights(run: Run, seed: int) -> dict[str, Any]:
    """`initial_state` of the network that a run's settings describe."""
    channels, size = run.image_channels, size_of(run)
    return initial_state(run.architecture, run.weights, seed, channels=channels, head=run.head, size=size)


def adopt(network: nn.Module, found: Mapping[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    """The network's state with every tensor of `found` but the last layer's, which stays new.

    A first convolution of three channels is brought to the network's own number. Raises ValueError that
    names the tensors that do not fit.
    """
    wrong, head = misfits(network, found), heads.prefixes(network)
    if wrong:
        raise ValueError(f"{source}: these weights belong to another network; {len(wrong)} differ, such as {wrong[:3]}")
    found = {**found, **_widened(network, found)}
    return {name: old if name.startswith(head) else found[name] for name, old in network.state_dict().items()}


def misfits(network: nn.Module, found: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors, but the last layer's, that only one side has or that differ in shape."""
    found, state = {**found, **_widened(network, found)}, network.state_dict()
    misfit = [name for name, old in state.items() if name not in found or found[name].shape != old.shape]
    unused = sorted(set(found) - set(state))
    return [name for name in [*misfit, *unused] if not name.startswith(heads.prefixes(network))]


def resampled(
    network: nn.Module, architecture: str, found: Mapping[str, torch.Tensor], channels: int, size: heads.Size | None
) -> Mapping[str, torch.Tensor]:
    """`found` as it is, or where it belongs to the same network at its own size, as that one holds it at `size`.

    What depends on the size, such as position embeddings, is resampled by timm (`set_input_size`).
    """
    if not hasattr(network, "set_input_size") or not misfits(network, found):
        return found
    with torch.random.fork_rng(devices=[]):
        own = build(architecture, channels=channels)
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
    for prefix in heads.listed(network.pretrained_cfg.get("first_conv")):
        name = f"{prefix}.weight"
        wide, old = state.get(name), found.get(name)
        if wide is not None and old is not None and wide.ndim == old.ndim == 4 and old.shape[1] == 3 != wide.shape[1]:
            adapted[name] = timm.models.adapt_input_conv(wide.shape[1], old)
    return adapted


def parameter_groups(
    network: nn.Module, learning_rate: float, head_scale: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict]:
    """Optimizer groups: backbone and last layer, each with and without weight decay.

    Biases and normalisation weights, which have one dimension, are never decayed. Each group holds
    `peak`, its highest learning rate. With a `layer_decay` below 1 there are such groups for each layer
    as timm numbers them (a block of a transformer, of a ResNet …), and each learns that many times as
    fast as the one after it (Clark et al. 2020, ELECTRA); the last layer as fast as without.
    """
    head = {id(parameter) for layer in heads.last_layers(network) for parameter in layer.parameters()}
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
