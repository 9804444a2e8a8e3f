"""What a step meets of a fold: photos, augmented and mixed, and their targets.

The CPU draws all of a step from its seed, and sends it to the device in one copy that the host does not wait for. So
on a GPU the host runs ahead: nothing is read back but where training writes it down.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mask_lib.augment import apply, policy
from mask_lib.base import config, files, labels
from mask_lib.data import splits
from mask_lib.models import build, devices, distributed, features
from mask_lib.models.predict import Loaded, batch_size_of
from mask_lib.training import dataset, mixing
from mask_lib.training.loss import BatchTargets, class_weights, fold_targets, known_numbers, loss_of, reads_numbers
from mask_lib.training.optimizer import History, build_optimizer, learning_rate_factor


class Part(NamedTuple):
    """Photos that go through the network at once, as the CPU drew them: a step, or one of its accumulated parts."""

    count: int  # photos, of all processes
    calls: list[list[tuple[str, int]]]  # of the augmentation's `apply.Plan`
    sent: devices.Packed  # for `FoldData.received`


def trained_on(run: config.Run, content: str, split: pd.DataFrame) -> dict[str, Any]:
    """What beside the settings must be as it was for a checkpoint to be trusted, as its manifest has it; content: of
    the store, as `splits.fingerprint` takes it. `years` are None where no training reads them.
    """
    named, data = policy.named_policy(run.augmentation).plain(), splits.fingerprint(content, split, run.weights)
    train = split[split["split"] == splits.TRAIN]
    years = files.digest(known_numbers(train).tolist()) if reads_numbers(run) else None
    return {"task": labels.schema(), "policy": named, "data": data, "years": years}


class FoldData:
    """The photos and targets of one fold of a run, part by part of its split, and what each step meets of them."""

    def __init__(self, run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos):
        self.run, self.fold, self.photos, self.device = run, fold, source, source.device
        train = split[split["split"] == splits.TRAIN]
        self.trained_on = trained_on(run, source.store.content, split)
        self.rows = {part: source.store.rows(list(table["path"])) for part, table in split.groupby("split")}
        self.step_count = dataset.step_count(len(train), run.photos_a_step())  # of an epoch
        self.targets = fold_targets(train, run, self.device)
        self.labels = {part: table["label"].to_numpy(np.int64) for part, table in split.groupby("split")}
        counted = self.targets.labels[self.targets.is_real]
        self.class_weights = class_weights(counted, run.class_balance).to(self.device)
        self.policy = policy.named_policy(run.augmentation)
        self.partners = mixing.photos_of_last_group(self.targets.labels) if run.mixing == "cutmix_old" else None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of an epoch's photos among the train rows, step by step."""
        return dataset.batches(self.run, self.fold, epoch, self.targets.labels, self.targets.is_real)

    def drawn(self, batch: np.ndarray, seed: int) -> list[Part]:
        """The parts of a step on the photos at positions `batch`, each of at most `batch_size`; on the CPU."""
        random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        parts = np.array_split(batch, min(self.run.accumulate_steps, len(batch)))
        return [self._drawn_part(part, random, generator) for part in parts]

    def _drawn_part(self, batch: np.ndarray, random: np.random.Generator, generator: torch.Generator) -> Part:
        """Drawn is for all photos, sent what this process's share of them needs."""
        positions, shape, mix = batch, self.photos.store.frame.shape, []
        here = wanted = np.arange(len(batch))[distributed.share(len(batch))]
        if self.run.mixing != "none":
            positions, partner = mixing.with_partners(batch, self.partners, random)
            kept = mixing.drawn_parts(self.run, len(batch), *shape[:2], random)
            wanted = np.concatenate([here, np.setdiff1d(partner[here], here)])
            mix = [pd.Index(wanted).get_indexer(partner[here]), *(one[here] for one in kept)]
        plan = apply.plan(self.policy, len(positions), (shape[2], *shape[:2]), generator, wanted)
        asked = self.photos.asked_for(self.rows[splits.TRAIN][positions[wanted]])
        numbers = map(torch.from_numpy, [positions[wanted], *mix])
        sent = devices.Packed.of([asked, plan.rows, plan.parameters, *numbers], self.device)
        return Part(len(batch), plan.calls, sent)

    def received(self, part: Part) -> tuple[Tensor, BatchTargets]:
        """The photos of a part, (B, C, H, W) float32, augmented and mixed, and their targets, on the device."""
        asked, rows, parameters, positions, *mix = part.sent.on(self.device)
        photos = apply.perform(self.photos.received(asked), apply.Plan(part.calls, rows, parameters))
        found = BatchTargets(*(None if one is None else one[positions] for one in self.targets.rows))
        return mixing.mixed(photos, found, mix[0], mixing.as_shares(mix[1:])) if mix else (photos, found)


class FoldNetwork:
    """A fold's network with what it learns from and by: its updates and its predictions."""

    stages: Sequence[np.ndarray] = ()  # of a frozen network: (N, D) features of the store's photos by each stage

    def __init__(self, run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos):
        self.run, self.fold, self.device = run, fold, source.device
        self.data = FoldData(run, fold, split, source)
        self.dtype = devices.dtype_for(run.precision, self.device)
        self.preprocessing = build.preprocessing_of(run.architecture, source.store.frame, run.per_image_norm)

    def start(self, network: nn.Module, forward: nn.Module) -> None:
        """Take a network with its initial weights; `forward` is the same one, compiled or not."""
        devices.configure(self.device, self.run.deterministic)
        self.network, self.forward = network, forward
        self.optimizer = build_optimizer(network, self.run)
        self.moving_average = moving_average(network, self.run.ema_decay) if self.run.ema_decay else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def fit(self) -> Tensor:
        """Set the layers of a frozen network to logistic regressions of the train rows, the numeric attribute's values
        counting alike. Returns the same as `train_step`.
        """
        rows, found, number = self.data.rows[splits.TRAIN], self.data.targets, labels.number()
        weights = self.data.class_weights.cpu().numpy()[found.labels]
        if found.rows.weights is not None:
            weights = weights * found.rows.weights.cpu().numpy()
        for heads, stage in zip(self.network.heads, self.stages, strict=True):
            for name, values in labels.decode_all(found.labels).items():
                layer, is_number = heads.heads[name], number is not None and number.name == name
                how = {"weights": weights, "balanced": is_number}
                fitted = features.fit_logistic(stage[rows], values, layer.out_features, **how)
                for parameter, value in zip((layer.weight, layer.bias), fitted, strict=True):
                    parameter.data.copy_(torch.from_numpy(value))
        target = torch.tensor(found.labels, device=self.device)
        return nn.functional.cross_entropy(self.known_logits(splits.TRAIN).double(), target, reduction="sum")

    @torch.no_grad()
    def known_logits(self, part: str) -> Tensor:
        """(N, C) float32 logits of a frozen network for one part of the split, by its photos' known features."""
        found = [torch.from_numpy(stage[self.data.rows[part]]).to(self.device) for stage in self.stages]
        return self.network.of_moments(found)

    def train_step(self, parts: list[Part], epoch: int, number: int, step_count: int, history: History = ()) -> Tensor:
        """One update on what `FoldData.drawn` gave for a step; returns its photos' summed loss, a float64 scalar."""
        factor = learning_rate_factor(self.run, epoch + number / step_count, history)
        loss = self.update(parts, self.seed_of(epoch, number), factor)
        if self.moving_average:
            self.moving_average.update(self.network, step=epoch * step_count + number)
        return loss

    def seed_of(self, epoch: int, number: int) -> int:
        """The seed of all random numbers of a step."""
        return dataset.step_seed(self.run.seed, self.fold, epoch, number)

    def update(self, parts: list[Part], seed: int, factor: float) -> Tensor:
        """The same with `factor` times the peak learning rates, and dropout and the like by `seed`."""
        torch.manual_seed(seed + distributed.rank())
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses, count = [], sum(part.count for part in parts)
        for part in parts:
            photos, found = self.data.received(part)
            with devices.autocast(self.device, self.dtype):
                logits = self.forward(self.preprocessing.prepared(photos))
            # Of the photos of all processes, by the logits and targets of this one's share.
            whole = (None if one is None else distributed.joined(one, part.count) for one in (logits.float(), *found))
            logits, target, weights = whole
            loss = loss_of(logits, target, self.run, self.data.class_weights, weights)
            self.scaler.scale(loss * (part.count / count)).backward()
            losses.append(loss.detach().double() * part.count)
        distributed.sum_gradients(self.network.parameters())
        if self.run.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.run.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return sum(losses)

    def predict(self, part: str, network: nn.Module | None = None) -> np.ndarray:
        """(N, C) float32 probabilities of one part of the split, by the network in training or another."""
        if self.stages:
            return self.known_logits(part).softmax(dim=1).cpu().numpy()
        rows = self.data.rows[part]
        asked = Loaded(network or self.forward, self.preprocessing, self.dtype, batch_size_of(self.run))
        found = asked.predict(self.data.photos, rows[distributed.share(len(rows))])
        return distributed.joined(torch.from_numpy(found), len(rows)).numpy()


def moving_average(network: nn.Module, decay: float) -> ModelEmaV3:
    """An average of all weights and statistics; its decay is s / (s + 10) after s steps, up to `decay`."""
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_gamma=10, warmup_power=1)
