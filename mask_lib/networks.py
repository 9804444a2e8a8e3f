"""Networks and heads of our own, in the shape of timm's, so that everything else treats both alike."""

import torch
from torch import nn
from torch.nn import functional

from mask_lib import labels

SEED_NAMES = {"se_resnext50": "seresnext50_32x4d"}  # what the seeds call a network: timm's name for it
CUSTOM = "custom_model"  # the architecture's name beside timm's
STEM = 32  # channels
STAGES = (("fused", 48), ("fused", 80), ("inverted", 160), ("inverted", 288))  # kind of block, channels
BLOCKS = 2  # a stage, of which the first halves the maps
EXPANSION = 4
FEATURES = 768  # of a photo, before the last layer
ATTENTION_NAMES = ("classes", "attention")


def normalised(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution, batch normalisation and SiLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.SiLU(inplace=True))


def convolution(inside: int, outside: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of what it gets, or divides it by `stride`."""
    return nn.Conv2d(inside, outside, size, stride, padding=size // 2, groups=groups, bias=False)


class SqueezeExcite(nn.Module):
    """Each channel times a share that all channels' means decide (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → the same shape."""
        means = maps.mean((2, 3), keepdim=True)
        return maps * self.expand(functional.silu(self.reduce(means))).sigmoid()


class Block(nn.Module):
    """An inverted bottleneck with a shortcut: expand, look around, excite, project; SiLU after both are added.

    fused: one dense 3 x 3 convolution expands and looks around, which is the better use of early, large
    maps (EfficientNetV2, Tan & Le 2021); inverted: 1 x 1, then 5 x 5 in each channel alone (MobileNetV4,
    Qin et al. 2024). A shortcut that changes size averages before it projects (ResNet-D, He et al. 2019).
    """

    def __init__(self, kind: str, inside: int, outside: int, stride: int):
        super().__init__()
        wide = EXPANSION * inside
        if kind == "fused":
            around = [normalised(convolution(inside, wide, 3, stride))]
        else:
            around = [
                normalised(convolution(inside, wide)),
                normalised(convolution(wide, wide, 5, stride, groups=wide)),
                SqueezeExcite(wide, inside // 4),
            ]
        self.branch = nn.Sequential(*around, convolution(wide, outside), nn.BatchNorm2d(outside))
        pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        project = nn.Sequential(convolution(inside, outside), nn.BatchNorm2d(outside))
        self.shortcut = nn.Identity() if (inside, stride) == (outside, 1) else nn.Sequential(pool, project)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) → (B, C', H / stride, W / stride)."""
        return functional.silu(self.shortcut(maps) + self.branch(maps))


class CustomNetwork(nn.Module):
    """A network of our own for faces of 32 pixels and more, to be trained from scratch: 2.4 M parameters.

    Made for short runs on few photos: wide and shallow, every block's sum goes through an activation, and
    the pooled features are normalised (the changes that let it learn faster than a ResNet-18 of 11 M).
    Settings and methods are timm's, as far as this package calls them.
    """

    def __init__(self, num_classes: int, drop_rate: float = 0.0, in_chans: int = 3, global_pool: str = "avg"):
        super().__init__()
        self.num_classes, self.drop_rate, self.global_pool = num_classes, drop_rate, global_pool
        self.num_features = self.head_hidden_size = FEATURES
        self.pretrained_cfg = {
            "architecture": CUSTOM,
            "input_size": (3, 224, 224),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "first_conv": "stem.0",
            "classifier": "classifier",
        }
        self.stem = normalised(convolution(in_chans, STEM, 3, stride=2))
        inside, blocks = STEM, []
        for kind, outside in STAGES:
            blocks += [Block(kind, inside, outside, stride=2)]
            blocks += [Block(kind, outside, outside, stride=1) for _ in range(BLOCKS - 1)]
            inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.last = normalised(convolution(inside, FEATURES))
        # Pooled maps differ little from photo to photo until they are scaled: with it the last layer learns at once.
        self.norm = nn.BatchNorm2d(FEATURES)
        self.classifier = nn.Linear(FEATURES, num_classes) if num_classes else nn.Identity()
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def forward_features(self, photos: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) photos → (B, 768, H / 32, W / 32) maps."""
        return self.last(self.blocks(self.stem(photos)))

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Maps → (B, 18) logits, or with `pre_logits` the (B, 768) features; maps stay maps without pooling."""
        features = self.norm(maps.mean((2, 3), keepdim=True)).flatten(1) if self.global_pool else self.norm(maps)
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
        self.classifier = nn.Linear(FEATURES, num_classes) if num_classes else nn.Identity()

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
