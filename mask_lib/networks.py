"""Networks and heads of our own, in the shape of timm's, so that everything else treats both alike."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from mask_lib import labels

SEED_NAMES = {"se_resnext50": "seresnext50_32x4d"}  # what the seeds call a network: timm's name for it
CUSTOM = "custom_model"  # the architecture's name beside timm's
STEM = (32, 32, 48)  # channels of its three convolutions, of which the first halves the maps
STAGES = (48, 96, 192, 320)  # channels; each stage but the first halves the maps
BLOCKS = 2  # a stage
ATTENTION_NAMES = ("classes", "attention")


def normalised(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution without bias that divides the size of its maps by `stride`, batch normalisation and ReLU."""
    conv = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; ReLU after both are added (He et al. 2016).

    A shortcut that halves the maps averages before it projects, so that no pixel is passed over (ResNet-D,
    He et al. 2019).
    """

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        second = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.branch = nn.Sequential(*normalised(inside, outside, stride), second, nn.BatchNorm2d(outside))
        pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        project = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = nn.Identity() if inside == outside else nn.Sequential(pool, project)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        return functional.relu(self.shortcut(maps) + self.branch(maps))


class CustomNetwork(nn.Module):
    """A network of our own for faces of 32 pixels and more, to be trained from scratch: 5.0 M parameters.

    Made for short runs on few photos: ResNet-18's plan, narrower, with a stem of three small convolutions and
    shortcuts that average, as ResNet-D has them. Newer parts scored lower where they were tried, on one fold of some
    three thousand faces in eight epochs: inverted bottlenecks, squeeze and excite, SiLU, and blocks that start as
    nothing together with normalised features. Settings and methods are timm's, as far as this package calls them.
    """

    def __init__(self, num_classes: int, drop_rate: float = 0.0, in_chans: int = 3, global_pool: str = "avg"):
        super().__init__()
        self.num_classes, self.drop_rate, self.global_pool = num_classes, drop_rate, global_pool
        self.num_features = self.head_hidden_size = STAGES[-1]
        self.pretrained_cfg = {
            "architecture": CUSTOM,
            "input_size": (3, 224, 224),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "first_conv": "stem.0.0",
            "classifier": "classifier",
        }
        steps = itertools.pairwise((in_chans, *STEM))
        stem = [normalised(inside, outside, stride=1 if place else 2) for place, (inside, outside) in enumerate(steps)]
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1))
        inside, blocks = STEM[-1], []
        for stage, outside in enumerate(STAGES):
            blocks += [Block(inside, outside, stride=2 if stage else 1)]
            blocks += [Block(outside, outside, stride=1) for _ in range(BLOCKS - 1)]
            inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inside, num_classes) if num_classes else nn.Identity()
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, 320, H / 32, W / 32) maps."""
        return self.blocks(self.stem(photos))

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Maps → (B, 18) logits, or with `pre_logits` the (B, 320) features; maps stay maps without pooling."""
        features = maps.mean((2, 3)) if self.global_pool else maps
        features = functional.dropout(features, self.drop_rate, self.training)
        return features if pre_logits else self.classifier(features)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, 18) logits."""
        return self.forward_head(self.forward_features(photos))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer of `num_classes` outputs; 0: none."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters belong to which layer, for a decay of the learning rate by depth."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


class AttentionHead(nn.Module):
    """A class map times a map of where to look, for each class, summed (two 1 x 1 convolutions)."""

    def __init__(self, channels: int, class_count: int):
        super().__init__()
        self.channels = channels
        self.classes, self.attention = (nn.Conv2d(channels, class_count, 1) for _ in ATTENTION_NAMES)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, K) logits. Raises ValueError for anything but a convolution network's maps."""
        if maps.ndim != 4 or maps.shape[1] != self.channels:
            raise ValueError(
                f"head: attention needs maps of {self.channels} channels, as convolution networks make them, not "
                f"{tuple(maps.shape)}: use head: linear or three with this architecture"
            )
        where = self.attention(maps).flatten(2).softmax(dim=2)
        return (self.classes(maps).flatten(2) * where).sum(dim=2)


class ThreeHeads(nn.Module):
    """Three linear heads, of mask, gender and age, whose product is the answer.

    It gives the 18 joint log-probabilities, which are logits like any others: their softmax is the product
    of the three heads' and their cross-entropy the sum of the three, label smoothing included.
    """

    def __init__(self, features: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(kind)) for name, kind in labels.ATTRIBUTES.items()})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D), or (B, D, 1, 1), → (B, 18) float32 logits, in the order of `labels.joint`."""
        features = features.flatten(1)  # where the last layer was a 1 x 1 convolution
        mask, gender, age = (head(features).float().log_softmax(dim=1) for head in self.heads.values())
        return (mask[:, :, None, None] + gender[:, None, :, None] + age[:, None, None, :]).flatten(1)
