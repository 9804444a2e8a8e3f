"""The training loop: one fold of one run, resumable at every step to the same bits.

All randomness of a step is a function of (seed, fold, epoch, step), so a checkpoint needs no generator's state.
"""

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import torch
from torch import nn

from mask_lib.base import config, files, interrupts, scores
from mask_lib.data import splits
from mask_lib.models import devices, distributed, weights
from mask_lib.models.checkpoint import Checkpoint, changes, read_all, read_checkpoint, refuse_changed, write_checkpoint
from mask_lib.models.predict import probability_table
from mask_lib.training import dataset, run_folder, step
from mask_lib.training.optimizer import frozen, stopped_early

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"  # what training goes on from, and if that is damaged
MOVING_AVERAGE = -1  # its key among the optimizer's states in a checkpoint: what only training goes on from
NOTE_SECONDS = 5.0  # between two notes of progress within an epoch
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


class FoldTraining(step.FoldNetwork):
    """One fold of one run: its network, its progress, and the checkpoints by which it can go on."""

    def __init__(self, run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos):
        super().__init__(run, fold, split, source)
        self.progress = Progress()

    def manifest(self) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {
            "run": self.run.settings(),
            "fold": self.fold,
            **self.data.trained_on,
            "dtype": str(self.dtype),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "place": dataclasses.asdict(self.progress),
        }

    def save(self, path: Path, with_optimizer: bool) -> None:
        """Write a checkpoint, if this is the first process; with the optimizer's state training can go on from it."""
        if distributed.rank():
            return
        progress = self.progress
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, devices.peak_memory_bytes(self.device))
        progress.scaler, progress.device = self.scaler.state_dict(), devices.device_name(self.device)
        state = self.optimizer.state_dict() if with_optimizer else None
        if state and self.moving_average:
            state = {**state, "state": {**state["state"], MOVING_AVERAGE: self.moving_average.module.state_dict()}}
        previous = path.with_name(PREVIOUS) if with_optimizer else None
        write_checkpoint(path, self.network.state_dict(), self.manifest(), state, previous)

    def check_place(self, place: Progress) -> None:
        """Raise OSError unless training can come to a checkpoint's `place`."""
        steps = self.data.step_count
        fits = place.epoch == len(place.history) and (place.epoch, place.step) <= (self.run.epochs, 0)
        if not (fits and place.step < steps):
            where = f"epoch {place.epoch} of {self.run.epochs}, step {place.step} of {steps}"
            raise OSError(f"it says of itself {where}, with {len(place.history)} epochs of history")

    def resume(self, found: Checkpoint) -> None:
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(found.state)
        self.progress = Progress(**found.manifest["place"])
        optimizer, states = self.optimizer.state_dict(), found.optimizer_state
        if self.moving_average:
            self.moving_average.module.load_state_dict(states.pop(MOVING_AVERAGE))
        self.optimizer.load_state_dict({**optimizer, "state": states})
        self.scaler.load_state_dict(self.progress.scaler)

    def train_epoch(
        self, folder: Path, checkpoint_seconds: float, on_step: OnStep, is_asked_to_stop: Callable[[], bool]
    ) -> None:
        """The rest of the epoch that training is in, with a checkpoint in `folder` every so many seconds.

        Raises KeyboardInterrupt, a checkpoint being written, after the step in which it was asked to stop.
        """
        if self.stages:  # the only epoch of a frozen network
            started = time.perf_counter()
            return self.record_progress(self.fit(), started)
        progress, todo, epoch = self.progress, self.data.batches(self.progress.epoch), self.progress.epoch
        self.forward.train()
        # On the device, and read there only when progress is recorded: the host runs ahead of the GPU.
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=self.device)
        saved = noted = time.perf_counter()
        started = saved - progress.seconds
        numbers = range(progress.step, len(todo))
        drawn = devices.one_ahead(lambda at: self.data.drawn(todo[at], self.seed_of(epoch, at)), numbers, self.device)
        with frozen(self.network, self.run, epoch), contextlib.closing(drawn):
            for number, parts in zip(numbers, drawn, strict=True):
                loss_sum += self.train_step(parts, epoch, number, len(todo), progress.history)
                progress.step = number + 1
                is_due = time.perf_counter() - saved >= checkpoint_seconds
                is_due, is_stopping = distributed.agreed(is_due, is_asked_to_stop())
                if (is_due or is_stopping) and progress.step < len(todo):
                    self.record_progress(loss_sum, started)
                    self.save(folder / LAST, with_optimizer=True)
                    if is_stopping:
                        place = f"step {progress.step} of {len(todo)} in epoch {epoch + 1}"
                        words = f"fold {self.fold} of {self.run.run} stopped after {place}, all of it on disk"
                        raise KeyboardInterrupt(f"{words}: run it again to go on from there")
                    saved = time.perf_counter()
                if time.perf_counter() - noted >= NOTE_SECONDS:
                    noted = time.perf_counter()
                    self.note(folder, noted - started)
                on_step(epoch * len(todo) + progress.step)
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
        if self.moving_average:
            predicted = self.predict(splits.VAL, self.moving_average.module).argmax(axis=1)
            row["val_ema_macro_f1"] = scores.summarise(self.data.labels[splits.VAL], predicted)["macro_f1"]
            if not distributed.rank():
                write_checkpoint(folder / "ema.safetensors", self.moving_average.module.state_dict(), self.manifest())
        if self.run.keep_epochs:
            self.save(epoch_path(folder, progress.epoch), with_optimizer=False)
            epoch_path(folder, progress.epoch - self.run.keep_epochs).unlink(missing_ok=True)
        # The last checkpoint ends the epoch: what is written before it is written again if a kill comes between.
        if not distributed.rank():
            files.write_csv(pd.DataFrame(progress.history), folder.parent / "history.csv")
        self.save(folder / LAST, with_optimizer=True)
        self.note(folder, 0.0)

    def note(self, folder: Path, seconds: float) -> None:
        """Write progress.json for whoever watches; seconds: spent so far on the epoch that training is in."""
        progress, steps = self.progress, self.data.step_count
        done, pace = progress.step * len(self.data.rows[splits.TRAIN]) / steps, progress.history[-1:]
        if not distributed.rank():
            found = {"epoch": progress.epoch, "epochs": self.run.epochs, "step": progress.step, "steps": steps}
            found["photos_per_second"] = done / seconds if done else pace[0]["photos_per_second"]
            found["best_macro_f1"] = progress.best_macro_f1 if pace else None
            found["device"] = devices.device_name(self.device)
            files.write_json(found, folder.parent / "progress.json")

    def epoch_row(self) -> dict[str, float]:
        """The ending epoch's row of history: its loss, scores of its network on the val photos, its pace."""
        count, seconds = len(self.data.rows[splits.TRAIN]), self.progress.seconds
        probabilities, truth = self.predict(splits.VAL), self.data.labels[splits.VAL]
        of_truth = np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)
        found = scores.summarise(truth, probabilities.argmax(axis=1))
        first = self.optimizer.param_groups[0]
        return {
            "fold": self.fold,
            "epoch": self.progress.epoch + 1,
            "train_loss": self.progress.loss_sum / count,
            "val_loss": float(-np.log(of_truth).mean(dtype=np.float64)),
            **{f"val_{name}": value for name, value in found.items()},
            "learning_rate": first["lr"] * (self.run.learning_rate / first["peak"]),  # whatever its layer's is
            "seconds": seconds,
            "photos_per_second": count / max(seconds, 1e-9),
        }

    def finished(self, place: Progress) -> bool:
        """Whether nothing is left to train from there: all epochs are done, or the run stopped early."""
        return place.epoch == self.run.epochs or stopped_early(self.run, place.history)

    def write_out_of_fold(self, folder: Path, split: pd.DataFrame) -> None:
        """Write what the weights that training chose say of the val photos."""
        with distributed.first_goes_first():
            chosen = folder / "checkpoint" / f"{run_folder.trained_weights(self.run)}.safetensors"
            self.network.load_state_dict(read_checkpoint(chosen)[0])
        validated = split.loc[split["split"] == splits.VAL, ["path", "label"]]
        table = probability_table(validated, self.predict(splits.VAL))
        with distributed.first_goes_first():
            if not distributed.rank():
                files.write_csv(table, folder / "oof.csv")


@contextlib.contextmanager
def alone(run: config.Run, fold: int, folder: Path) -> Iterator[None]:
    """Within it no other training has a fold's folder, and errors of memory say what to lower."""
    busy, lock = f"fold {fold} of {run.run} is being trained", folder.with_name(f".{folder.name}.lock")
    with contextlib.nullcontext() if distributed.rank() else files.lock(lock, busy, wait=False):
        if not distributed.rank():
            files.remove_temporaries(folder)
        try:
            yield
        except torch.OutOfMemoryError as error:
            what = f"{run.batch_size} photos of {run.image_width} x {run.image_height} pixels, {run.architecture}"
            advice = "lower batch_size and raise accumulate_steps by as much, or set checkpoint_activations: true"
            words = f"the GPU's memory is too small to train on so much at once ({what}): {advice}"
            raise MemoryError(words) from error


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
    stages: Sequence[np.ndarray] = (),
) -> pd.DataFrame:
    """Train one fold in `folder`, from where it was left; returns its out-of-fold table.

    Columns `path, label` and `labels.probability_columns()` for the fold's val photos. Writes `history.csv`,
    `oof.csv` and `checkpoint/{last,best}.safetensors`; also `ema` and `epoch…` there if the settings ask. stages: of a
    frozen network.
    ChangedSettingsError if the folder holds a run of other settings, unless when_changed: restart puts it aside;
    BusyError if another process trains the fold. Raises as `left_off` and, after a SIGINT, as `train_epoch` does.
    """
    with alone(run, fold, folder), interrupts.deferred() as is_asked_to_stop:
        training = FoldTraining(run, fold, split, source)
        training.start(network, forward)
        training.stages = stages
        with distributed.first_goes_first():
            found = left_off(training, folder, when_changed)
            is_done = (folder / "oof.csv").exists()
        if found:
            training.resume(found)
        else:
            seed = 0 if stages else dataset.step_seed(run.seed, fold, 0, 0)  # 0: as of the backbone that `stages` is of
            network.load_state_dict(weights.first_weights(run, seed))
        if not (is_done and training.finished(training.progress)):
            remove_untrue(folder)
            devices.reset_peak_memory(source.device)
            while not training.finished(training.progress):
                training.train_epoch(folder / "checkpoint", checkpoint_seconds, on_step, is_asked_to_stop)
                training.finish_epoch(folder / "checkpoint")
                on_epoch(training.progress.history[-1])
            training.write_out_of_fold(folder, split)
        return scores.read_probabilities(folder / "oof.csv", "path")


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
            found, wanted = read_all(path), training.manifest()
            place = Progress(**found.manifest["place"])
            if training.finished(place):
                del wanted["dtype"]  # no training goes on from it
            if differences := changes(found.manifest, wanted):
                refuse_changed(differences, folder, when_changed)
                break
            training.check_place(place)
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
    stale = [folder.parent / run_folder.SCORES, folder.parent / run_folder.AVERAGING]
    if folder.name == run_folder.LOOKS:
        stale = [folder / run_folder.UNSEEN]
    for path in (*folder.glob("oof.*.csv"), *stale):
        path.unlink(missing_ok=True)


def epoch_path(checkpoint_folder: Path, epoch: int) -> Path:
    """Where training keeps the weights after an epoch, counted from 1."""
    return checkpoint_folder / f"epoch{epoch:03d}.safetensors"
