"""Networks by any timm name, the input they want, and checkpoints with a manifest."""

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
from torch import nn

from mask_lib import files, heads, labels
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
