"""A network trained to tell faces apart: `plugins: [notebooks.plugins.face_network]` and `architecture: dlib_face`.

ResNet-29 of dlib (github.com/davisking/dlib-models: dlib_face_recognition_resnet_model_v1, public domain, CC0), trained
on about three million photos of 7,485 people at 150 x 150 pixels. The PyPI package face_recognition_models carries its
weights. Instead of batch normalisation each channel has a factor and a summand. dlib pads in its own way, on which its
numbers depend: convolutions with a stride leave out the edge, and what a shortcut lacks is filled up with zeros.
"""

import itertools
import math
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import adapt_input_conv, build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn
from torch.nn import functional

from mask_lib.models.networks import StagedNetwork

PACKAGE = "face_recognition_models"
INSIDE = "models/dlib_face_recognition_resnet_model_v1.dat"
STAGES = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))  # channels and blocks; each but the first halves the maps


def weights_path() -> str:
    """The file of the package; where it would be without it."""
    found = util.find_spec(PACKAGE)
    return str(Path(found.origin).parent / INSIDE if found and found.origin else Path(PACKAGE, INSIDE))


default_cfgs = generate_default_cfgs(
    {
        "dlib_face": {
            "file": weights_path(),
            "custom_load": True,
            "input_size": (3, 150, 150),
            "mean": (122.782 / 255, 117.001 / 255, 104.298 / 255),
            "std": (256 / 255,) * 3,
            "interpolation": "bilinear",
            "first_conv": "stem.0",
            "classifier": "classifier",
        }
    }
)


class Affine(nn.Module):
    """A factor and a summand for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the same shape."""
        return maps * self.weight[:, None, None] + self.bias[:, None, None]


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without weights."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        first = nn.Conv2d(inside, outside, 3, stride, padding=2 - stride)
        second = nn.Conv2d(outside, outside, 3, padding=1)
        self.branch = nn.Sequential(first, Affine(outside), nn.ReLU(), second, Affine(outside))
        self.shortcut = nn.AvgPool2d(2) if stride == 2 else nn.Identity()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H', W'), both halved or as they were."""
        kept, changed = self.shortcut(maps), self.branch(maps)
        higher, wider = (kept.shape[side] - changed.shape[side] for side in (2, 3))  # by one pixel at most
        kept = functional.pad(kept, (0, 0, 0, 0, 0, changed.shape[1] - kept.shape[1]))
        return functional.relu(kept + functional.pad(changed, (0, wider, 0, higher)))


class FaceNetwork(StagedNetwork):
    """5.5 M parameters beside the last layer; takes photos of about 110 pixels a side and more."""

    def __init__(self, num_classes: int, in_chans: int = 3, **settings: Any):
        stem, blocks, inside = [nn.Conv2d(in_chans, 32, 7, 2), Affine(32), nn.ReLU(), nn.MaxPool2d(3, 2)], [], 32
        for stage, (width, count) in enumerate(STAGES):
            parts = [Block(width if part else inside, width, 1 if part or not stage else 2) for part in range(count)]
            blocks.append(nn.Sequential(*parts))
            inside = width
        super().__init__(stem, blocks, inside, num_classes, **settings)

    def load_pretrained(self, path: str) -> None:
        """dlib's weights under the last layer at hand; timm calls it, since its configuration says `custom_load`.

        dlib's file holds the numbers of each layer, from the first on, as float32 behind their four dimensions, and
        between them what is of no use here. Raises OSError without the file, ValueError for another one.
        """
        if not Path(path).is_file():
            raise OSError(
                f"the package {PACKAGE}, whose weights dlib_face starts from, is not installed: run make setup"
            )
        raw, at = Path(path).read_bytes(), 0
        for layer in (part for part in self.modules() if isinstance(part, nn.Conv2d | Affine)):
            shape = (32, 3, 7, 7) if layer is self.stem[0] else tuple(layer.weight.shape)
            size, weights = len(layer.bias), math.prod(shape)
            header = packed(2, weights + size, 1, 1, 1)  # the form's version, then dlib's four dimensions
            if (found := raw.find(header, at)) < 0:
                raise ValueError(f"{path} is not the file of the package {PACKAGE} that dlib_face starts from")
            at = found + len(header)
            numbers = torch.from_numpy(np.frombuffer(raw, "<f4", weights + size, at).copy())
            weight = numbers[:weights].view(shape)
            if layer is self.stem[0]:
                weight = adapt_input_conv(layer.in_channels, weight)
            layer.load_state_dict({"weight": weight, "bias": numbers[weights:]})

    def forward_intermediates(
        self, photos: torch.Tensor, indices: int | None = None, intermediates_only: bool = False
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """The maps of the last `indices` stages, or of all, behind the last ones unless `intermediates_only`."""
        found = list(itertools.accumulate(self.blocks, lambda maps, stage: stage(maps), initial=self.stem(photos)))[1:]
        kept = found[-(indices or len(found)) :]
        return kept if intermediates_only else (found[-1], kept)


def packed(*numbers: int) -> bytes:
    """Positive whole numbers as dlib's files hold them: how many bytes follow, then those, the lowest first."""
    sizes = [(number.bit_length() + 7) // 8 for number in numbers]
    return b"".join(
        bytes([size]) + number.to_bytes(size, "little") for number, size in zip(numbers, sizes, strict=True)
    )


@register_model
def dlib_face(pretrained: bool = False, **settings: Any) -> FaceNetwork:
    """What `timm.create_model` calls."""
    return build_model_with_cfg(FaceNetwork, "dlib_face", pretrained, **settings)
