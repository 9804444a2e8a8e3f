"""Weights & Biases, offline by default: it records a run and can never slow or break one.

Offline runs lie in `<folder>/wandb/offline-run-*`; `wandb leet` shows them in a terminal and
`wandb sync` uploads them later. Importing this module does not import wandb.
"""

import netrc
import os
import socket
import threading
import urllib.parse
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

Mode = Literal["offline", "online", "disabled"]
PUBLIC_HOST = "api.wandb.ai"  # where keys in a .netrc file usually belong, whatever address is the default today
KEY_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
CONNECT_SECONDS = 3.0
START_SECONDS = 15.0  # for a server that accepts connections and then says nothing
FINISH_SECONDS = 60.0  # for the last uploads; what is left then stays on disk for `wandb sync`


class Tracker:
    """One run's record. A context manager: it finishes itself, as failed if an error passed through.

    `run` is a wandb run, or None, in which case every method does nothing. The first error in wandb
    is told as a warning and ends the tracking, never the training.
    """

    def __init__(self, run: Any = None) -> None:
        self.run, self.epochs_logged = run, 0

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers by name at a step, such as an epoch. Steps must not decrease."""
        if self.run is None:
            return
        try:
            self.run.log(dict(values), step=step)
        except Exception as error:
            self._switch_off("log", error)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Record an epoch of one fold, a row of `history.csv`, under names such as `fold0/val_macro_f1`."""
        values = {f"fold{int(row['fold'])}/{name}": value for name, value in row.items() if name != "fold"}
        self.log(values, step=self.epochs_logged)
        self.epochs_logged += 1

    def finish(self, summary: Mapping[str, Any] | None = None, *, failed: bool = False) -> None:
        """Record the final numbers, nested ones as `outer.inner`, and close. Calling it again does nothing.

        wandb's own process writes the last lines to disk, some milliseconds after this returns.
        """
        if self.run is None:
            return
        try:
            self.run.summary.update(flattened(summary or {}))
            self.run.finish(exit_code=1 if failed else 0)
        except Exception as error:
            self._switch_off("finish", error)
        self.run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(failed=kind is not None)

    def _switch_off(self, step: str, error: Exception) -> None:
        self.run = None
        warnings.warn(f"tracking stops here, training goes on: wandb's {step} failed, {_in_words(error)}", stacklevel=3)


def start(
    run_settings: Mapping[str, Any],
    *,
    project: str = "mask-workbench",
    name: str,
    group: str,
    mode: Mode = "offline",
    folder: str | os.PathLike[str],
) -> Tracker:
    """Begin a record of `run_settings` under `<folder>/wandb`; nested settings become `outer.inner`.

    A run's are given as `recorded` makes them.
    `folder` is the experiment's output folder. `group` ties the folds of one run together. Online
    needs a key and a server that answers: without them it warns and records offline. `disabled`
    does not even import wandb. If wandb fails, it warns and gives a Tracker that does nothing.
    Raises ValueError for another mode, and nothing else.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"tracking mode = {mode!r}: it must be one of {', '.join(get_args(Mode))}")
    attempts: tuple[Mode, ...] = {"disabled": (), "offline": ("offline",), "online": ("online", "offline")}[mode]
    for attempt in attempts:
        try:
            return Tracker(_begin(flattened(run_settings), project, name, group, attempt, Path(folder)))
        except Exception as error:
            outcome = "goes on offline" if attempt == "online" else "is off for this run"
            warnings.warn(f"tracking {outcome}: {_in_words(error)}", stacklevel=2)
    return Tracker()


def seed_fields(settings: Mapping[str, Any], device: str, k_fold: int) -> dict[str, Any]:
    """The eight fields, by name and in order, that the recipe this project grew from records of a run.

    model, device, image_size ([width, height] in pixels), epochs, k_fold, batch_size, learning_rate and
    momentum; from a run's `settings()`. Raises KeyError for settings that lack one.
    """
    return {
        "model": settings["architecture"],
        "device": device,
        "image_size": [settings["image_width"], settings["image_height"]],
        "epochs": settings["epochs"],
        "k_fold": k_fold,
        "batch_size": settings["batch_size"],
        "learning_rate": settings["learning_rate"],
        "momentum": settings["momentum"],
    }


def recorded(settings: Mapping[str, Any], device: str, k_fold: int) -> dict[str, Any]:
    """What to `start` with: the `seed_fields`, so that dashboards made for them fit, and all of ours."""
    return {**seed_fields(settings, device, k_fold), **settings}


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one flat one, its names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat.update(flattened(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value})
    return flat


def _begin(config: dict[str, Any], project: str, name: str, group: str, mode: Mode, folder: Path) -> Any:
    # wandb reports on itself over the network, even offline, unless told not to before it starts.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    if mode == "online":
        _require_server(wandb.setup().settings)
    return wandb.init(
        project=project, name=name, group=group, mode=mode, dir=folder, config=config, settings=_settings(wandb)
    )


def _settings(wandb: Any) -> Any:
    """Quiet, no code or machine details collected, no links, and a limit on every wait."""
    return wandb.Settings(
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


def _require_server(settings: Any) -> None:
    """Raise ConnectionError, in words for a person, without a key at hand or a server that answers.

    wandb itself would ask for the key on a screen nobody watches, or wait for minutes.
    """
    host = urllib.parse.urlsplit(settings.base_url)
    set_now = any(os.environ.get(name) for name in KEY_VARIABLES)  # wandb's settings are older than a notebook's cells
    kept = settings.api_key or settings.identity_token_file or _netrc_knows({host.netloc, PUBLIC_HOST})
    if not (set_now or kept):
        raise ConnectionError(f"there is no key for {host.netloc}; run `wandb login` or set WANDB_API_KEY")
    if not _answers(host):
        raise ConnectionError(f"{host.netloc} does not answer; `wandb sync` uploads the run once it does")


def _netrc_knows(hosts: set[str]) -> bool:
    path = os.environ.get("NETRC") or Path.home() / ".netrc"
    try:
        return any(netrc.netrc(path).authenticators(host) for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(host: urllib.parse.SplitResult) -> bool:
    """Whether the host, or the proxy that leads to it, accepts a connection within `CONNECT_SECONDS`.

    In a thread of its own, because a look-up of the name has no time limit.
    """
    proxy = urllib.request.getproxies().get(host.scheme)
    if proxy and not urllib.request.proxy_bypass(host.hostname or ""):
        host = urllib.parse.urlsplit(proxy)
    connected = threading.Event()

    def connect() -> None:
        port = host.port or (443 if host.scheme == "https" else 80)
        try:
            socket.create_connection((host.hostname, port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return
        connected.set()

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(CONNECT_SECONDS)
    return connected.is_set()


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, ConnectionError) else f"{type(error).__name__}: {error}"
