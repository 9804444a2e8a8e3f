"""Averages of networks' weights: over the steps of training, over its last epochs, over runs.

An average of weights is a new network, whose activations batch normalisation has never seen: without
new statistics it may be worthless. SWA: Izmailov et al. 2018; soups: Wortsman et al. 2022.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import update_bn

from mask_lib import config, devices, files, inference, models

REFRESH_BATCH = 64  # photos; statistics are means over batches, so much smaller ones would be noisy


def moving_average(network: nn.Module, decay: float) -> ModelEmaV3:
    """An exponential moving average of all weights and of batch normalisation's statistics.

    After s steps the decay is s / (s + 10), up to `decay`, so that the first weights are soon forgotten.
    """
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_gamma=10, warmup_power=1)


def epoch_path(checkpoint_folder: Path, epoch: int) -> Path:
    """Where training keeps the weights after an epoch, counted from 1."""
    return checkpoint_folder / f"epoch{epoch:03d}.safetensors"


def kept_epochs(checkpoint_folder: Path) -> dict[int, Path]:
    """The checkpoints of the epochs that training kept, in order."""
    found = {int(path.stem.removeprefix("epoch")): path for path in checkpoint_folder.glob("epoch[0-9]*.safetensors")}
    return dict(sorted(found.items()))


def chosen_epochs(
    checkpoint_folder: Path, average_epochs: int, first_epoch: int = 0, last_epoch: int = 0
) -> dict[int, Path]:
    """The kept epochs first_epoch … last_epoch (0: without that end); the last `average_epochs` if both are 0.

    Raises ValueError for a range that is empty or reaches beyond what was kept, and where nothing was
    kept for a range.
    """
    kept = kept_epochs(checkpoint_folder)
    if average_epochs < 1:
        raise ValueError(f"average_epochs = {average_epochs}: it must be at least 1")
    if not first_epoch and not last_epoch:
        return dict(list(kept.items())[-average_epochs:])
    first, last = first_epoch or min(kept, default=0), last_epoch or max(kept, default=0)
    if not kept or first > last or not {first, last} <= set(kept):
        there = f"{min(kept)} to {max(kept)}" if kept else "none"
        raise ValueError(
            f"first_epoch = {first_epoch}, last_epoch = {last_epoch}: {files.shown_path(checkpoint_folder)} keeps the "
            f"epochs {there}; train with keep_epochs set to how many of the last you want"
        )
    return {epoch: path for epoch, path in kept.items() if first <= epoch <= last}


def mean_state(paths: Sequence[Path], same: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """The equal mean of the weights of checkpoints, summed in float64; whole numbers are the last one's.

    Batch normalisation's statistics are stale in it: see `refresh_batch_norm`. Raises ValueError as
    `check_alike` does.
    """
    check_alike(paths, same)
    first, _ = models.read_checkpoint(paths[0])
    total = {name: value.double() if value.is_floating_point() else value for name, value in first.items()}
    for path in paths[1:]:
        state, _ = models.read_checkpoint(path)
        total = {name: value + state[name] if value.is_floating_point() else state[name]
                 for name, value in total.items()}  # fmt: skip
    return {name: (value / len(paths)).to(first[name].dtype) if value.is_floating_point() else value
            for name, value in total.items()}  # fmt: skip


def check_alike(paths: Sequence[Path], same: Collection[str] | None = None) -> None:
    """Raise ValueError that names two checkpoints whose weights must not be averaged, and why.

    They must be of the same fold, photos, labels, preprocessing and shapes. same: names of the settings
    that must agree too, all of them if None.
    """
    manifests, shapes = [models.read_manifest(path) for path in paths], [models.read_shapes(path) for path in paths]
    for path, manifest, shape in zip(paths, manifests, shapes, strict=True):
        reasons = unlike(manifests[0], manifest, same) + misfits(shapes[0], shape)
        if reasons:
            names = " and ".join(files.shown_path(one) for one in (paths[0], path))
            raise ValueError(f"{names} cannot be averaged: {'; '.join(reasons)}")


def unlike(one: Mapping[str, Any], other: Mapping[str, Any], same: Collection[str] | None = None) -> list[str]:
    """Why two checkpoints' weights must not be averaged, by their manifests; empty if they may."""
    settings = [
        {name: value for name, value in manifest["run"].items() if same is None or name in same}
        for manifest in (one, other)
    ]
    reasons = config.changed(*settings)
    if one["fold"] != other["fold"]:
        reasons.append(f"fold: {one['fold']} → {other['fold']}; an average would know every fold's people")
    elif one["data"] != other["data"]:
        reasons.append("they were trained on other photos, labels or another split")
    return reasons + ["the preprocessing differs"] * (one["preprocessing"] != other["preprocessing"])


def misfits(one: Mapping[str, list[int]], other: Mapping[str, list[int]]) -> list[str]:
    """The first of the tensors that only one of two networks has, or that differ in shape, from their shapes."""
    wrong = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    seen = [f"{name}: {one.get(name)} → {other.get(name)}" for name in wrong[:3]]
    return [f"{len(wrong)} tensors differ in shape, such as {', '.join(seen)}"] if wrong else []


def refresh_batch_norm(loaded: inference.Loaded, source: devices.DevicePhotos, rows: np.ndarray) -> None:
    """Estimate a network's batch-norm statistics anew, in place, on the store's `rows` as they are, in float32.

    rows: training photos only. Photos come shuffled, always alike, since statistics of a batch of one
    person's photos would be narrower than those of all. A network without batch normalisation stays as it is.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in loaded.network.modules()):
        return
    shuffled = np.random.default_rng(0).permutation(rows)
    parts = np.array_split(shuffled, math.ceil(len(rows) / REFRESH_BATCH))  # none is so small as to count too much
    update_bn((loaded.preprocessing.prepared(source.batch(part).float() / 255) for part in parts), loaded.network)
