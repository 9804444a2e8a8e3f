"""Weights & Biases, imported only when recording, offline by default: it can never slow or break a run.

Each fold is a record of its own, in a group named like its run, under an id that another process finds again. Offline
records lie in `<output_dir>/wandb/offline-run-*`: `wandb leet` shows and `wandb sync` uploads them.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mask_lib.base import checks, config, files

START_SECONDS = 15.0  # for a server that does not answer
FINISH_SECONDS = 60.0  # for the last uploads; what is left then stays on disk for `wandb sync`


class Tracking(checks.Settings):
    """What a notebook's parameters say of Weights & Biases."""

    tracking_mode: Literal["offline", "online", "disabled"] = "offline"
    wandb_project: str = "mask-workbench"
    wandb_entity: str = ""  # a user's or a team's name; empty: the account's own
    wandb_tags: tuple[str, ...] = ()


class Tracker(contextlib.AbstractContextManager):
    """One fold's record. `begin` gives its wandb run, or None: then every method does nothing. The first error in wandb
    is told as a warning and ends the tracking, never the training.
    """

    def __init__(self, begin: Callable[[], Any] = lambda: None) -> None:
        self.begin, self.run = begin, None

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Record an epoch, a row of `history.csv`. The first begins the record: none is made of a finished fold."""
        with self._switched_off_by_errors():
            if self.begin:
                begin, self.begin = self.begin, None
                self.run = begin()
            _log(self.run, row)

    def finish(self, summary: Mapping[str, Any] | None = None, *, failed: bool = False) -> None:
        """Record the final numbers, and close. Calling it again does nothing."""
        run, self.run = self.run, None
        with self._switched_off_by_errors():
            run and run.summary.update(summary or {})
            run and run.finish(exit_code=int(failed))

    @contextlib.contextmanager
    def _switched_off_by_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.run = None
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"tracking stops here, training goes on: wandb failed, {reason}", stacklevel=4)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)


def of_fold(settings: Tracking, run: config.Run, fold: int, folder: Path, device: str, fold_count: int) -> Tracker:
    """The record of one fold of the run in `folder`: its config are all our settings, and beside them the fields of the
    recipe this project grew from, under the names that it gave them, so that dashboards made for those fit.

    A process that goes on with a fold logs the epochs from before too, under the same id: wandb cannot go on with an
    offline record. If wandb fails, it warns and records nothing.
    """
    if settings.tracking_mode == "disabled":
        return Tracker()
    seeds = {"model": run.architecture, "epoch": run.epochs, "img_x": run.image_width, "img_y": run.image_height}
    recorded = {**run.settings(), **seeds, "kfold_num": fold_count, "device": device}
    named = {"name": f"{run.run} fold {fold}", "group": run.run, "dir": folder.parents[1]}
    named["id"] = files.digest([str(folder.parents[1]), run.run, fold])

    def begin() -> Any:
        history = files.read_csv(folder / f"fold{fold}" / "history.csv", {"epoch": "int64"}, others=None)
        *before, _ = history.to_dict("records")
        started = start(settings, config=recorded, resumed=bool(before), **named)
        for row in before:
            _log(started, row)
        return started

    return Tracker(begin)


def _log(run: Any, row: Mapping[str, Any]) -> None:
    values = {name: value for name, value in row.items() if name != "fold"}
    run and run.log(values, step=int(row["epoch"]))


def start(settings: Tracking, *, resumed: bool = False, **about: Any) -> Any:
    """A wandb run, or None. `resumed`: one of the same id goes on, which wandb does online alone; else it is replaced.

    Online needs a key and a server that answers, else it warns and records offline.
    """
    for mode in ("online", "offline") if settings.tracking_mode == "online" else ("offline",):
        resume = {"resume": "allow"} if resumed and mode == "online" else {}
        try:
            return _init(settings, mode, **resume, **about)
        except Exception as error:
            outcome = "goes on offline" if mode == "online" else "is off for this run"
            warnings.warn(f"tracking {outcome}: {type(error).__name__}: {error}", stacklevel=2)
            about["id"] += "-offline"  # wandb holds the id of what it could not start
    return None


def _init(tracking: Tracking, mode: str, **about: Any) -> Any:
    # wandb reports on itself over the network, even offline, unless told not to before it starts.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    # init would ask for the key on a screen nobody watches.
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConnectionError("there is no key; run `wandb login` or set WANDB_API_KEY")
    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        symlink=False,  # some shared file systems have no links
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=START_SECONDS,
        login_timeout=START_SECONDS,
        finish_timeout=FINISH_SECONDS,
        reinit="create_new",  # a run that someone opened in the same notebook stays open
    )
    where = {"project": tracking.wandb_project, "entity": tracking.wandb_entity or None, "tags": tracking.wandb_tags}
    return wandb.init(mode=mode, settings=settings, allow_val_change=True, **where, **about)
