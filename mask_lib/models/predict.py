"""Test-time views: a photo shown to a network in several ways, and its answers averaged."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from mask_lib.base import config, labels
from mask_lib.data import store
from mask_lib.models import build, devices

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


PREDICT_BATCH = 64  # photos; small enough for any network on any GPU in use


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module,
    source: devices.DevicePhotos,
    rows: np.ndarray,
    preprocessing: build.Preprocessing,
    dtype: torch.dtype = torch.float32,
    tta: Tta = ONE_VIEW,
) -> np.ndarray:
    """(N, 18) float32 probabilities of the store's `rows`, averaged over the views as `tta` says."""
    tta.check_fits(source.store.frame)
    network.eval()
    found = [np.empty((0, labels.CLASS_COUNT), dtype=np.float32)]
    for block in store.blocks(len(rows), PREDICT_BATCH):
        batch = source.batch(rows[block]).float() / 255
        with devices.autocast(source.device, dtype):
            logits = [network(preprocessing.prepared(seen)).float() for seen in tta.shown(batch)]
        found.append(tta.averaged(torch.stack(logits)).cpu().numpy())
    return np.concatenate(found)


def probability_table(keys: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """`keys` with the columns p00 … p17 beside them."""
    return keys.reset_index(drop=True).join(pd.DataFrame(probabilities, columns=list(labels.PROBABILITY_COLUMNS)))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network as its checkpoint describes it: normalisation and precision are always those of its training."""

    network: nn.Module
    preprocessing: build.Preprocessing
    dtype: torch.dtype

    def predict(
        self, source: devices.DevicePhotos, rows: np.ndarray, tta: Tta = ONE_VIEW
    ) -> np.ndarray:  # (N, 18) float32
        """As `predict` gives them."""
        return predict_probabilities(self.network, source, rows, self.preprocessing, self.dtype, tta)


def load_network(state: dict[str, torch.Tensor], manifest: dict[str, Any], device: torch.device) -> Loaded:
    """A checkpoint's network on `device`."""
    preprocessing = build.Preprocessing.from_manifest(manifest)
    run = config.Run.from_settings(manifest["run"])
    network = build.of_run(run)
    network.load_state_dict(state)
    network.to(device, memory_format=torch.channels_last)
    return Loaded(network, preprocessing, devices.dtype_for(run.precision, device))
