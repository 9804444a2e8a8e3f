"""Weights & Biases, imported only when recording, offline by default: it can never slow or break a run.

Offline runs lie in `<folder>/wandb/offline-run-*`: `wandb leet` shows and `wandb sync` uploads them.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

Mode = Literal["offline", "online", "disabled"]
START_SECONDS = 15.0  # for a server that does not answer
FINISH_SECONDS = 60.0  # for the last uploads; what is left then stays on disk for `wandb sync`


class Tracker:
    """One run's record; `run` is a wandb run, or None: every method does nothing. The first error in wandb is told as a
    warning and ends the tracking, never the training.
    """

    def __init__(self, run: Any = None) -> None:
        self.run, self.epochs_logged = run, 0

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Record an epoch of one fold, a row of `history.csv`, under names such as `fold0/val_macro_f1`."""
        values = {f"fold{int(row['fold'])}/{name}": value for name, value in row.items() if name != "fold"}
        with self._switched_off_by_errors():
            self.run and self.run.log(values, step=self.epochs_logged)
        self.epochs_logged += 1

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

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)


def start(
    run_settings: Mapping[str, Any],
    *,
    name: str,
    group: str,
    mode: Mode = "offline",
    folder: str | os.PathLike[str],
) -> Tracker:
    """Begin a record of `run_settings`, as `recorded` makes them, under `<folder>/wandb`.

    `group` ties the folds of one run together. Online needs a key and a server that answers, else it warns and records
    offline. If wandb fails, it warns and gives a Tracker that does nothing. Raises ValueError for another mode only.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"tracking mode = {mode!r}: it must be one of {', '.join(get_args(Mode))}")
    for attempt in {"disabled": (), "offline": ("offline",), "online": ("online", "offline")}[mode]:
        try:
            about = {"name": name, "group": group, "dir": Path(folder)}
            return Tracker(_init(attempt, config=dict(run_settings), **about))
        except Exception as error:
            outcome = "goes on offline" if attempt == "online" else "is off for this run"
            warnings.warn(f"tracking {outcome}: {type(error).__name__}: {error}", stacklevel=2)
    return Tracker()


def _init(mode: Mode, **about: Any) -> Any:
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
    return wandb.init(project="mask-workbench", mode=mode, settings=settings, **about)


def seed_fields(settings: Mapping[str, Any], device: str, k_fold: int) -> dict[str, Any]:
    """The eight fields, in order, that the recipe this project grew from records; image_size: [width, height]."""
    size = [settings["image_width"], settings["image_height"]]
    found = {"model": settings["architecture"], "device": device, "image_size": size, "k_fold": k_fold, **settings}
    names = ("model", "device", "image_size", "epochs", "k_fold", "batch_size", "learning_rate", "momentum")
    return {name: found[name] for name in names}


def recorded(settings: Mapping[str, Any], device: str, k_fold: int) -> dict[str, Any]:
    """What to `start` with: the `seed_fields`, so that dashboards made for them fit, and all of ours."""
    return {**seed_fields(settings, device, k_fold), **settings}
