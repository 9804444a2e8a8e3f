"""A network by name and head, and the preprocessing that it wants."""

import statistics
from typing import Any

import timm
import torch
from pydantic.dataclasses import dataclass
from torch import nn

from mask_lib.base import labels
from mask_lib.base.config import FROZEN, Run
from mask_lib.data.store import Frame
from mask_lib.models import devices, networks

LEAST_DEVIATION = 1 / 255  # of a photo's channel; one of a single colour becomes 0, not amplified noise


@dataclass(frozen=True)
class Preprocessing:
    """How photos become a network's input; saved in each checkpoint, so that no later step can differ."""

    width: int
    height: int
    resize: str
    mean: tuple[float, ...]  # per channel, on a scale of 0 to 1
    std: tuple[float, ...]
    per_image: bool = False  # each photo's channels to mean 0 and deviation 1 instead, whatever mean and std say

    def prepared(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) float32 in [0, 1] → the same shape, normalised per channel, laid out channels last."""
        if self.per_image:
            std, mean = torch.std_mean(batch, dim=(2, 3), correction=0, keepdim=True)
            std = std.clamp_min(LEAST_DEVIATION)
        else:
            mean, std = (devices.constant(one, batch.device).view(1, -1, 1, 1) for one in (self.mean, self.std))
        return ((batch - mean) / std).contiguous(memory_format=torch.channels_last)


def build_network(
    architecture: str,
    class_count: int | None = None,
    channels: int = 3,
    size: networks.Size | None = None,
    head: str = "linear",
    dropout: float = 0.0,
    **settings: Any,
) -> nn.Module:
    """A network for photos of `channels` and `size`; random weights unless `settings`, timm's, say more.

    class_count: None for as many as `labels` has, which three heads always give; 0 for pooled features. head: linear
    (the network's own), frozen (which needs a size), or one of `networks.put_head`. ValueError if it does not fit;
    raises as `networks.create`.
    """
    class_count = labels.class_count() if class_count is None else class_count
    if head == FROZEN:
        backbone = networks.create(architecture, channels, size, num_classes=0, **settings)
        return networks.FrozenNetwork(backbone, torch.zeros(1, channels, *size))
    network = networks.create(architecture, channels, size, num_classes=class_count, drop_rate=dropout, **settings)
    if head != "linear":
        networks.put_head(network, head, class_count)
    return network


def of_run(run: Run, **settings: Any) -> nn.Module:
    """`build_network` of a run's settings. Raises networks.UnsupportedError for one that the network does not know."""
    try:
        name, rate = "drop_path", {"drop_path_rate": run.drop_path} if run.drop_path else {}
        network = build_network(run.architecture, dropout=run.dropout, **shape_of(run), **rate, **settings)
        name = "checkpoint_activations"
        if run.checkpoint_activations:
            network.set_grad_checkpointing(True)
    except (TypeError, AttributeError, AssertionError) as error:
        if not getattr(run, name):
            raise
        raise networks.UnsupportedError(f"{name}: {run.architecture} has none: leave it out ({error})") from error
    return network


def shape_of(run: Run) -> dict[str, Any]:
    """Channels, size and heads of a run's network, as `build_network` takes them."""
    shape = {"channels": run.image_channels, "size": (run.image_height, run.image_width), "head": run.head}
    return shape | {"aux_logits": True} if run.aux_loss else shape


def preprocessing_of(architecture: str, frame: Frame, per_image: bool = False) -> Preprocessing:
    """The network's own mean and standard deviation, from timm, with the frame's size and channels."""
    with networks.shapes_only():
        config = timm.data.resolve_model_data_config(networks.create(architecture))
    per_channel = []
    for colours in (config["mean"], config["std"]):
        middle = statistics.fmean(colours)  # for grey and for yellow
        per_channel.append({1: (middle,), 3: tuple(colours), 4: (*colours, middle)}[frame.channels])
    return Preprocessing(frame.width, frame.height, frame.resize, *per_channel, per_image)
