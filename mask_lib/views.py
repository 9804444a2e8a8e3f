"""Test-time views: a photo shown to a network in several ways, and its answers averaged."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch.nn import functional

from mask_lib import config, store

ZOOM = 0.92  # share of the photo that the zoomed-in views keep
View = Callable[[torch.Tensor], torch.Tensor]
ViewSet = Literal["faces", "dihedral"]
TtaAverage = Literal["probabilities", "logits"]


@dataclasses.dataclass(frozen=True)
class Tta:
    """How many test-time views, of which set, and what of their answers is averaged; types and values are checked."""

    num_tta: int = 1  # 1, 4 or 8
    tta_views: ViewSet = "faces"
    tta_average: TtaAverage = "probabilities"

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            config.checked(name, getattr(self, name), kind)
        self.views()

    def views(self) -> list[View]:
        """The views; each takes and gives (B, C, H, W) float32."""
        return views_of(self.num_tta, self.tta_views)

    def shown(self, batch: torch.Tensor) -> Iterator[torch.Tensor]:
        """What each view makes of the photos, (B, C, H, W) float32 each, one after the other.

        In the order of the photo, its mirror image, the photo zoomed, that mirrored … where `views` has mirror
        images last: a mirrored view is the plain one flipped, and zooming is what costs.
        """
        if self.num_tta == 1 or self.tta_views == "dihedral":
            yield from (view(batch) for view in self.views())
            return
        for view in upright()[: self.num_tta // 2]:
            seen = view(batch)
            yield seen
            yield seen.flip(3)

    def check_fits(self, frame: store.Frame) -> None:
        """Raise ValueError if the views would turn photos of this shape on their side."""
        if self.tta_views == "dihedral" and self.num_tta == 8 and frame.width != frame.height:
            raise ValueError(
                f"tta_views = 'dihedral' with num_tta = 8 transposes photos, which must be square for that; these are "
                f"{frame.width} x {frame.height} pixels: use num_tta = 4, or tta_views = 'faces'"
            )

    def averaged(self, logits: torch.Tensor) -> torch.Tensor:
        """(V, B, 18) float32 logits of V views → (B, 18) probabilities."""
        if self.tta_average == "logits":
            return logits.mean(dim=0).softmax(dim=1)
        return logits.softmax(dim=2).mean(dim=0)


def views_of(num_tta: int, tta_views: ViewSet = "faces") -> list[View]:
    """1, 4 or 8 views, the first of them the photo as it is.

    faces: as it is and zoomed in, each also mirrored, then moved. dihedral: flips, then their
    transposes, eight in all; wrong for upright faces, right for what has no up and down. Raises
    ValueError for another number.
    """
    if num_tta not in (1, 4, 8):
        raise ValueError(f"num_tta = {num_tta}: it must be 1, 4 or 8")
    if num_tta == 1:
        return [unchanged]
    if tta_views == "dihedral":
        return dihedral()[:num_tta]
    half = upright()[: num_tta // 2]
    return half + [lambda batch, view=view: view(batch).flip(3) for view in half]


def unchanged(batch: torch.Tensor) -> torch.Tensor:
    """The photos as they are."""
    return batch


def upright() -> list[View]:
    """Four views that suit faces, which are upright and nearly centred; each serves mirrored too."""
    shift = (1 - ZOOM) / 2
    return [
        unchanged,
        lambda batch: zoomed(batch, ZOOM),
        lambda batch: zoomed(batch, ZOOM, right=shift),
        lambda batch: zoomed(batch, ZOOM, down=shift),
    ]


def dihedral() -> list[View]:
    """The eight ways to lay a square on itself: four flips, then their transposes."""
    flips: list[View] = [
        unchanged,
        lambda batch: batch.flip(3),
        lambda batch: batch.flip(2),
        lambda batch: batch.flip(2, 3),
    ]
    return flips + [lambda batch, flip=flip: flip(batch).transpose(2, 3) for flip in flips]


def zoomed(batch: torch.Tensor, share: float, right: float = 0.0, down: float = 0.0) -> torch.Tensor:
    """(B, C, H, W) float32: the middle `share` of each photo, moved by shares of its size, at full size."""
    matrix = batch.new_tensor([[[share, 0, 2 * right], [0, share, 2 * down]]])
    grid = functional.affine_grid(matrix, [1, *batch.shape[1:]], align_corners=False).expand(len(batch), -1, -1, -1)
    return functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


ONE_VIEW = Tta()  # the photo as it is
