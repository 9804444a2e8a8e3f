"""How well networks that never saw a policy still recognise held-out people under it (Fast AutoAugment's density).

Lim et al. 2019: a policy is good if augmented photos still look like photos to a network trained without it.
That costs a forward pass a policy, where training with it costs tens of epochs. What it cannot see is
whether a policy teaches anything: doing next to nothing keeps every photo recognisable.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn

from mask_lib import (
    augment,
    config,
    devices,
    folds,
    inference,
    models,
    policies,
    runs,
    sampling,
    scores,
    store,
    training,
)


@dataclasses.dataclass(frozen=True)
class Judge:
    """A fold's network, trained without augmentation, and the validation photos of that fold."""

    fold: int
    network: nn.Module
    source: devices.DevicePhotos
    rows: np.ndarray  # of the store, one a validation photo
    labels: np.ndarray  # (N,) int64
    preprocessing: models.Preprocessing
    dtype: torch.dtype

    @torch.inference_mode()
    def score(self, policy: policies.Policy, views: int = 1, seed: int = 0) -> dict[str, float]:
        """`log_likelihood`, the mean of the true classes', and `macro_f1` of every photo under `views` draws.

        Each photo draws from the same random numbers whatever the policy, so that luck cancels out
        between policies.
        """
        self.network.eval()
        found = [self._log_probabilities(policy, sampling.step_seed(seed, self.fold, 0, view)) for view in range(views)]
        log_probabilities, truth = np.concatenate(found), np.tile(self.labels, views)  # (views x N, 18), (views x N,)
        of_truth = log_probabilities[np.arange(len(truth)), truth]
        macro_f1 = scores.summarise(truth, log_probabilities.argmax(axis=1))["macro_f1"]
        return {"log_likelihood": float(of_truth.mean(dtype=np.float64)), "macro_f1": macro_f1}

    def _log_probabilities(self, policy: policies.Policy, seed: int) -> np.ndarray:
        """(N, 18) float32 of the validation photos, augmented once."""
        generator, found = torch.Generator().manual_seed(seed), []
        for block in store.blocks(len(self.rows), inference.PREDICT_BATCH):
            photos = augment.augment(self.source.batch(self.rows[block]), policy, generator)
            with devices.autocast(self.source.device, self.dtype):
                logits = self.network(self.preprocessing.prepared(photos))
            found.append(logits.float().log_softmax(dim=1).cpu().numpy())
        return np.concatenate(found)


def judges(run: config.Run, splits: Mapping[int, pd.DataFrame], photos: store.Store, folder: Path) -> list[Judge]:
    """A judge for each of the run's folds; trained below `folder` if they are not, by one process at a time."""
    with FileLock(folder / f"{run.run}.lock"):
        result = runs.train_run(run, dict(splits), photos, folder, when_changed="restart")
    source = devices.DevicePhotos(photos, devices.pick_device())
    chosen = runs.chosen_folds(run, splits)
    return [read_judge(run, fold, splits[fold], source, result.folder) for fold in chosen]


def read_judge(run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos, folder: Path) -> Judge:
    """The judge of one fold of a run that is trained, with the weights that training chose."""
    checkpoint = folder / f"fold{fold}" / "checkpoint" / f"{training.trained_choice(run)}.safetensors"
    found = inference.load(*models.read_checkpoint(checkpoint), source.device)
    val = split[split["split"] == folds.VAL]
    return Judge(
        fold,
        found.network,
        source,
        source.store.rows(list(val["path"])),
        val["label"].to_numpy(np.int64),
        found.preprocessing,
        found.dtype,
    )
