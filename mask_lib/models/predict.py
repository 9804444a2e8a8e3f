"""Class probabilities of photos by a network, averaged over test-time views."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from mask_lib.base import config, labels
from mask_lib.data import store
from mask_lib.models import build, devices, networks

PREDICT_BATCH = 64  # photos, at most, unless more are asked for
ZOOM = 0.92  # share of the photo that the zoomed-in views keep
CHOICES = {"num_tta": (1, 4, 8), "tta_views": ("faces", "dihedral"), "tta_average": ("probabilities", "logits")}


@dataclasses.dataclass(frozen=True)
class Tta:
    """Test-time augmentation: how many views, of which set, and what is averaged. ValueError for other values.

    faces: the photo as it is and zoomed in, then moved, each also mirrored. dihedral: flips, then their transposes.
    """

    num_tta: int = 1  # 1, 4 or 8
    tta_views: Literal["faces", "dihedral"] = "faces"
    tta_average: Literal["probabilities", "logits"] = "probabilities"
    predict_batch: int = 0  # photos at once, which changes no answer; 0: as suits the batch of training

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices or type(value) is not type(choices[0]):
                raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(map(str, choices))}")

    def views(self, batch: torch.Tensor) -> Iterator[torch.Tensor]:
        """(B, C, H, W) float32 → `num_tta` tensors of that shape, the first of them the photos as they are."""
        if self.num_tta == 1:
            yield batch
        elif self.tta_views == "dihedral":
            flips = [batch, batch.flip(3), batch.flip(2), batch.flip(2, 3)]
            yield from flips
            yield from (flip.transpose(2, 3) for flip in flips[: self.num_tta - 4])
        else:
            shift = (1 - ZOOM) / 2
            crops = ({}, {"share": ZOOM}, {"share": ZOOM, "right": shift}, {"share": ZOOM, "down": shift})
            for crop in crops[: self.num_tta // 2]:
                seen = zoomed(batch, **crop) if crop else batch
                yield seen
                yield seen.flip(3)  # zooming is what costs

    def check_fits(self, frame: store.Frame) -> None:
        """Raise ValueError if the views would transpose photos that are not square."""
        if self.tta_views == "dihedral" and self.num_tta == 8 and frame.width != frame.height:
            raise ValueError(
                f"tta_views = 'dihedral' with num_tta = 8 transposes photos, which must be square for that; these are "
                f"{frame.width} x {frame.height} pixels: use num_tta = 4, or tta_views = 'faces'"
            )

    def plain(self) -> dict[str, Any]:
        """What of it changes answers, as plain data."""
        return {name: getattr(self, name) for name in CHOICES}

    def averaged(self, logits: torch.Tensor) -> torch.Tensor:
        """(V, …, classes) float32 logits of V views → (…, classes) probabilities."""
        if self.tta_average == "logits":
            return logits.mean(dim=0).softmax(dim=-1)
        return logits.softmax(dim=-1).mean(dim=0)


ONE_VIEW = Tta()  # the photo as it is


def zoomed(batch: torch.Tensor, share: float, right: float = 0.0, down: float = 0.0) -> torch.Tensor:
    """(B, C, H, W) float32: the middle `share` of each photo, moved by shares of its size, at full size."""
    matrix = devices.constant((share, 0.0, 2 * right, 0.0, share, 2 * down), batch.device).view(1, 2, 3)
    grid = functional.affine_grid(matrix, [1, *batch.shape[1:]], align_corners=False).expand(len(batch), -1, -1, -1)
    return functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def batch_size_of(run: config.Run) -> int:
    """How many photos a run's networks predict at once: without gradients twice as many as they train on fit."""
    return min(2 * run.batch_size, PREDICT_BATCH)


def probability_table(keys: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """`keys` with the probability columns p00, p01 … beside them."""
    return keys.reset_index(drop=True).join(pd.DataFrame(probabilities, columns=labels.probability_columns()))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network as its checkpoint describes it: normalisation and precision are always those of its training."""

    network: nn.Module | Sequence[nn.Module]  # or several frozen ones of one backbone
    preprocessing: build.Preprocessing
    dtype: torch.dtype
    batch_size: int = PREDICT_BATCH  # photos at once, fewer where memory is too small (`devices.in_batches`)

    @torch.inference_mode()
    def predict(self, source: devices.DevicePhotos, rows: np.ndarray, tta: Tta = ONE_VIEW) -> np.ndarray:
        """(N, classes) float32 probabilities of the store's `rows`, averaged over the views as `tta` says; of F frozen
        networks, whose backbone photos pass once, (N, F, classes).
        """
        tta.check_fits(source.store.frame)
        together = self.network if isinstance(self.network, Sequence) else None
        for one in together or [self.network]:
            one.eval()

        def answer(rows: np.ndarray) -> np.ndarray:
            batch = source.batch(rows).float() / 255
            with devices.autocast(source.device, self.dtype):
                views = map(self.preprocessing.prepared, tta.views(batch))
                ask = functools.partial(networks.of_one_backbone, together) if together else self.network
                logits = [ask(view).float() for view in views]
            return tta.averaged(torch.stack(logits)).cpu().numpy()

        nothing = np.empty((0, *([len(together)] if together else []), labels.class_count()), dtype=np.float32)
        return np.concatenate([nothing, *devices.in_batches(rows, tta.predict_batch or self.batch_size, answer)])


def load_network(state: dict[str, torch.Tensor], manifest: dict[str, Any], device: torch.device) -> Loaded:
    """A checkpoint's network on `device`. Raises ValueError for one of another task."""
    labels.refuse_other(manifest.get("task"), "these weights are")
    run = config.Run(**manifest["run"])
    network = build.of_run(run)
    network.load_state_dict(state)
    network.to(device, memory_format=torch.channels_last)
    preprocessing = build.Preprocessing(**manifest["preprocessing"])
    return Loaded(network, preprocessing, devices.dtype_for(run.precision, device), batch_size_of(run))
