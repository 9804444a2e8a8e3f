"""The training loop: one fold of one run, resumable at every step to the same bits.

All randomness of a step is a function of (seed, fold, epoch, step), so a checkpoint needs no generator's state.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import torch
from timm.utils import ModelEmaV3
from torch import nn

from mask_lib.augment import apply, policy
from mask_lib.base import config, files, interrupts, scores
from mask_lib.data import splits
from mask_lib.models import build, devices, weights
from mask_lib.models.checkpoint import Checkpoint, changes, read_all, read_checkpoint, refuse_changed, write_checkpoint
from mask_lib.models.predict import batch_size_of, predict_probabilities, probability_table
from mask_lib.training import dataset, mixing, run_folder
from mask_lib.training.loss import class_weights, loss_of
from mask_lib.training.optimizer import build_optimizer, frozen_backbone, learning_rate_factor, stopped_early
from mask_lib.training.targets import BatchTargets, fold_targets, numbers_digest

HISTORY_TIMES = ("seconds", "photos_per_second")  # what differs between two equal runs
LAST, PREVIOUS = "last.safetensors", "previous.safetensors"  # what training goes on from, and if that is damaged
MOVING_AVERAGE = -1  # its key among the optimizer's states in a checkpoint: what only training goes on from
OnStep = Callable[[int], None]  # steps of this fold finished so far


@pydantic.dataclasses.dataclass
class Progress:
    """How far a fold's training has come; `place` in a checkpoint's manifest, as JSON."""

    epoch: pydantic.NonNegativeInt = 0  # epochs finished
    step: pydantic.NonNegativeInt = 0  # steps finished of the next one
    loss_sum: float = 0.0  # over those steps, each times its photos
    seconds: float = 0.0  # spent on those steps
    best_macro_f1: float = -1.0
    history: list[dict[str, int | float]] = dataclasses.field(default_factory=list)
    scaler: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: str = ""  # that took the last of those steps
    peak_memory_bytes: int = 0  # the most that training has used


class FoldTraining:
    """One fold of one run: photos, targets, network, optimizer and progress."""

    def __init__(self, run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos):
        self.run, self.fold, self.photos, self.device = run, fold, source, source.device
        frame, train = source.store.frame, split[split["split"] == splits.TRAIN]
        self.data = splits.fingerprint(source.store.content, split, run.weights)
        self.rows = {part: source.store.rows(list(table["path"])) for part, table in split.groupby("split")}
        self.targets = fold_targets(train, run, self.device)
        self.labels = {part: table["label"].to_numpy(np.int64) for part, table in split.groupby("split")}
        self.labels[splits.TRAIN] = self.targets.labels
        self.numbers = numbers_digest(train, run)
        self.dtype = devices.dtype_for(run.precision, self.device)
        self.preprocessing = build.preprocessing_of(
            run.architecture, frame.width, frame.height, frame.resize, run.image_channels, run.per_image_norm
        )
        counted = self.targets.labels[self.targets.is_real]
        self.class_weights = class_weights(counted, run.class_balance).to(self.device)
        self.policy = policy.named_policy(run.augmentation)
        self.partners = mixing.photos_of_last_group(self.targets.labels) if run.mixing == "cutmix_old" else None
        self.progress = Progress()

    def start(self, network: nn.Module, forward: nn.Module) -> None:
        """Take a network with its initial weights; `forward` is the same one, compiled or not."""
        self.network, self.forward = network, forward
        self.optimizer = build_optimizer(network, self.run)
        self.moving_average = moving_average(network, self.run.ema_decay) if self.run.ema_decay else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def manifest(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {
            "run": self.run.settings(),
            "fold": self.fold,
            "policy": self.policy.plain(),
            "data": self.data,
            "years": self.numbers,
            "dtype": str(self.dtype),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "place": dataclasses.asdict(self.progress),
        }

    def save(self, path: Path, with_optimizer: bool) -> None:
        """Write a checkpoint; with the optimizer's state training can go on from it."""
        progress = self.progress
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, devices.peak_memory_bytes(self.device))
        progress.scaler, progress.device = self.scaler.state_dict(), devices.device_name(self.device)
        state = self.optimizer.state_dict() if with_optimizer else None
        if state and self.moving_average:
            state = {**state, "state": {**state["state"], MOVING_AVERAGE: self.moving_average.module.state_dict()}}
        previous = path.with_name(PREVIOUS) if with_optimizer else None
        write_checkpoint(path, self.network.state_dict(), self.manifest(), state, previous)

    def check_place(self, place: Mapping[str, Any]) -> None:
        """Raise OSError or pydantic's ValidationError unless training can come to a checkpoint's `place`."""
        steps = dataset.step_count(len(self.rows[splits.TRAIN]), self.run.batch_size)
        found = Progress(**place)
        fits = found.epoch == len(found.history) and (found.epoch, found.step) <= (self.run.epochs, 0)
        if not (fits and found.step < steps):
            where = f"epoch {found.epoch} of {self.run.epochs}, step {found.step} of {steps}"
            raise OSError(f"it says of itself {where}, with {len(found.history)} epochs of history")

    def resume(self, found: Checkpoint) -> None:
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(found.state)
        self.progress = Progress(**found.manifest["place"])
        optimizer, states = self.optimizer.state_dict(), found.optimizer_state
        if self.moving_average:
            self.moving_average.module.load_state_dict(states.pop(MOVING_AVERAGE))
        self.optimizer.load_state_dict({**optimizer, "state": states})
        self.scaler.load_state_dict(self.progress.scaler)

    def train_step(self, batch: np.ndarray, epoch: int, step: int, step_count: int) -> torch.Tensor:
        """One update on the photos at positions `batch`; returns their summed loss, a float64 scalar."""
        factor = learning_rate_factor(self.run, epoch + step / step_count, self.progress.history)
        loss = self.update(batch, dataset.step_seed(self.run.seed, self.fold, epoch, step), factor)
        if self.moving_average:
            self.moving_average.update(self.network, step=epoch * step_count + step)
        return loss

    def update(self, batch: np.ndarray, seed: int, factor: float) -> torch.Tensor:
        """The same with `factor` times the peak learning rates and all random numbers from `seed`."""
        torch.manual_seed(seed)  # dropout and the like
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        photos, found = self.augmented(batch, seed)
        with devices.autocast(self.device, self.dtype):
            logits = self.forward(self.preprocessing.prepared(photos))
        loss = loss_of(logits.float(), found.target, self.run, self.class_weights, found.weights)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().double() * len(batch)

    def augmented(self, batch: np.ndarray, seed: int) -> tuple[torch.Tensor, BatchTargets]:
        """The photos at positions `batch`, (B, C, H, W) float32, augmented and mixed, and their targets."""
        random = np.random.default_rng(seed)
        positions, partner = batch, None
        if self.run.mixing != "none":
            positions, partner = mixing.with_partners(batch, self.partners, random)
        pixels = self.photos.batch(self.rows[splits.TRAIN][positions])
        photos = apply.augment(pixels, self.policy, torch.Generator().manual_seed(seed))
        found = self.targets.batch(positions)
        return (photos, found) if partner is None else mixing.mixed(photos, found, partner, self.run, random)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of an epoch's photos among the train rows, batch by batch."""
        found, run = self.targets, self.run
        return dataset.batches(found.labels, run.batch_size, run.seed, self.fold, epoch, run.sampling, found.is_real)

    def train_epoch(
        self, checkpoint: Path, checkpoint_seconds: float, on_step: OnStep, is_asked_to_stop: Callable[[], bool]
    ) -> None:
        """The rest of the epoch that training is in, with a checkpoint every so many seconds.

        Raises KeyboardInterrupt, a checkpoint being written, after the step in which it was asked to stop.
        """
        progress, todo = self.progress, self.batches(self.progress.epoch)
        self.forward.train()
        # On the device, and read there only when progress is recorded: the host runs ahead of the GPU.
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=self.device)
        started, saved = time.perf_counter() - progress.seconds, time.perf_counter()
        with frozen_backbone(self.network, progress.epoch < self.run.frozen_epochs):
            for step in range(progress.step, len(todo)):
                loss_sum += self.train_step(todo[step], progress.epoch, step, len(todo))
                progress.step = step + 1
                is_due = time.perf_counter() - saved >= checkpoint_seconds
                if (is_due or is_asked_to_stop()) and progress.step < len(todo):
                    self.record_progress(loss_sum, started)
                    self.save(checkpoint, with_optimizer=True)
                    if is_asked_to_stop():
                        place = f"step {progress.step} of {len(todo)} in epoch {progress.epoch + 1}"
                        words = f"fold {self.fold} of {self.run.run} stopped after {place}, all of it on disk"
                        raise KeyboardInterrupt(f"{words}: run it again to go on from there")
                    saved = time.perf_counter()
                on_step(progress.epoch * len(todo) + progress.step)
        self.record_progress(loss_sum, started)

    def record_progress(self, loss_sum: torch.Tensor, started: float) -> None:
        """Note the epoch's loss and time so far. Raises FloatingPointError before a lost run can be saved."""
        self.progress.loss_sum, self.progress.seconds = loss_sum.item(), time.perf_counter() - started
        if not math.isfinite(self.progress.loss_sum):
            raise FloatingPointError(
                f"fold {self.fold}, epoch {self.progress.epoch}: the loss is {self.progress.loss_sum}; lower "
                f"learning_rate ({self.run.learning_rate}) or set precision: float32"
            )

    def finish_epoch(self, folder: Path) -> None:
        """Validate, write history and the checkpoints in `folder`, move on to the next epoch."""
        progress, row = self.progress, self.epoch_row()
        progress.history.append(row)
        improved = row["val_macro_f1"] > progress.best_macro_f1
        progress.best_macro_f1 = max(progress.best_macro_f1, row["val_macro_f1"])
        progress.epoch, progress.step, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
        if improved:
            self.save(folder / "best.safetensors", with_optimizer=False)
        self.validate_moving_average(folder / "ema.safetensors")
        if self.run.keep_epochs:
            self.save(epoch_path(folder, progress.epoch), with_optimizer=False)
            epoch_path(folder, progress.epoch - self.run.keep_epochs).unlink(missing_ok=True)
        # The last checkpoint ends the epoch: what is written before it is written again if a kill comes between.
        files.write_csv(pd.DataFrame(progress.history), folder.parent / "history.csv")
        self.save(folder / "last.safetensors", with_optimizer=True)

    def epoch_row(self) -> dict[str, float]:
        """The ending epoch's row of history: its loss, scores of its network on the val photos, its pace."""
        count, seconds = len(self.rows[splits.TRAIN]), self.progress.seconds
        probabilities, truth = self.predict(splits.VAL), self.labels[splits.VAL]
        of_truth = np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)
        found = scores.summarise(truth, probabilities.argmax(axis=1))
        first = self.optimizer.param_groups[0]
        return {
            "fold": self.fold,
            "epoch": self.progress.epoch + 1,
            "train_loss": self.progress.loss_sum / count,
            "val_loss": float(-np.log(of_truth).mean(dtype=np.float64)),
            **{f"val_{name}": float(value) for name, value in found.items()},
            "learning_rate": first["lr"] * (self.run.learning_rate / first["peak"]),  # whatever its layer's is
            "seconds": seconds,
            "photos_per_second": count / max(seconds, 1e-9),
        }

    def validate_moving_average(self, path: Path) -> None:
        """Score the moving average, if there is one, into the epoch's row of history; write it if none was better."""
        if not self.moving_average:
            return
        predicted = self.predict(splits.VAL, self.moving_average.module).argmax(axis=1)
        found = float(scores.summarise(self.labels[splits.VAL], predicted)["macro_f1"])
        *before, row = self.progress.history
        row["val_ema_macro_f1"] = found
        if found > max((one["val_ema_macro_f1"] for one in before), default=-1.0):
            write_checkpoint(path, self.moving_average.module.state_dict(), self.manifest())

    def finished(self) -> bool:
        """Whether nothing is left to train: all epochs are done, or the run stopped early."""
        return self.progress.epoch == self.run.epochs or stopped_early(self.run, self.progress.history)

    def predict(self, part: str, network: nn.Module | None = None) -> np.ndarray:
        """(N, C) float32 probabilities of one part of the split, by the network in training or another."""
        network = network or self.network
        how = {"dtype": self.dtype, "batch_size": batch_size_of(self.run)}
        return predict_probabilities(network, self.photos, self.rows[part], self.preprocessing, **how)


def train_fold(
    run: config.Run,
    fold: int,
    split: pd.DataFrame,
    source: devices.DevicePhotos,
    folder: Path,
    network: nn.Module,
    forward: nn.Module,
    when_changed: str = "refuse",
    checkpoint_seconds: float = 300,
    on_step: OnStep = lambda done: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> pd.DataFrame:
    """Train one fold in `folder`, from where it was left; returns its out-of-fold table.

    Columns `path, label` and `labels.probability_columns()` for the fold's val photos. Writes `history.csv`,
    `oof.csv` and `checkpoint/{last,best}.safetensors`; also `ema` and `epoch…` there if the settings ask.
    ChangedSettingsError if the folder holds a run of other settings, unless when_changed: restart puts it aside;
    BusyError if another process trains the fold. Raises as `left_off` and, after a SIGINT, as `train_epoch` does.
    """
    busy, lock = f"fold {fold} of {run.run} is being trained", folder.with_name(f".{folder.name}.lock")
    with files.lock(lock, busy, wait=False), interrupts.deferred() as is_asked_to_stop:
        files.remove_temporaries(folder)
        training = FoldTraining(run, fold, split, source)
        training.start(network, forward)
        if found := left_off(training, folder, when_changed):
            training.resume(found)
        else:
            network.load_state_dict(weights.first_weights(run, dataset.step_seed(run.seed, fold, 0, 0)))
        if training.finished() and (folder / "oof.csv").exists():
            return scores.read_probabilities(folder / "oof.csv", "path")
        remove_untrue(folder)
        devices.reset_peak_memory(source.device)
        checkpoints = folder / "checkpoint"
        while not training.finished():
            training.train_epoch(checkpoints / LAST, checkpoint_seconds, on_step, is_asked_to_stop)
            training.finish_epoch(checkpoints)
            on_epoch(training.progress.history[-1])
        chosen = checkpoints / f"{run_folder.trained_weights(run)}.safetensors"
        network.load_state_dict(read_checkpoint(chosen)[0])
        validated = split.loc[split["split"] == splits.VAL, ["path", "label"]]
        out_of_fold = probability_table(validated, training.predict(splits.VAL))
        return scores.read_probabilities(files.write_csv(out_of_fold, folder / "oof.csv"), "path")  # as readers see it


def left_off(training: FoldTraining, folder: Path, when_changed: str) -> Checkpoint | None:
    """The checkpoint in a fold's folder to go on from: the last, or with a warning the one before if that is damaged.

    None where there is none, or what is there was put aside. Raises ChangedSettingsError, and OSError that says what
    to do if nothing there can be read, unless when_changed is restart.
    """
    damage: list[str] = []
    for path in (folder / "checkpoint" / LAST, folder / "checkpoint" / PREVIOUS):
        if not path.exists():
            continue
        try:
            found = read_all(path)
            if differences := changes(found.manifest, training.manifest()):
                refuse_changed(differences, folder, when_changed)
                break
            training.check_place(found.manifest["place"])
        except (OSError, pydantic.ValidationError, KeyError) as error:
            damage.append(f"{files.shown_path(path)} is damaged ({' '.join(str(error).split())})")
            continue
        if damage:
            warnings.warn(f"{damage[0]}: training goes on from {path.name}, the checkpoint before it", stacklevel=2)
        return found
    else:
        if not damage:
            return None
        if when_changed != "restart":
            advice = "set when_changed: restart to put this fold aside and train it anew"
            raise OSError(f"{'; '.join(damage)}: {advice}")
    files.put_aside(folder)
    return None


def remove_untrue(folder: Path) -> None:
    """Remove what a fold's folder that trains on makes untrue: its run's scores, and averages of its weights."""
    run = folder.parent
    for path in (run / "scores.json", run / run_folder.AVERAGING, *folder.glob("oof.*.csv")):
        path.unlink(missing_ok=True)


def moving_average(network: nn.Module, decay: float) -> ModelEmaV3:
    """An average of all weights and statistics; its decay is s / (s + 10) after s steps, up to `decay`."""
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_gamma=10, warmup_power=1)


def epoch_path(checkpoint_folder: Path, epoch: int) -> Path:
    """Where training keeps the weights after an epoch, counted from 1."""
    return checkpoint_folder / f"epoch{epoch:03d}.safetensors"
