"""Policy searches on the toy set, in this process or in ones that are killed on their way."""

import importlib
import multiprocessing
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import toys

from mask_lib.augment import search
from mask_lib.augment.search import Search
from mask_lib.training import policy_search

NETWORK = {
    "architecture": "test_resnet",
    "weights": "none",
    "image_width": toys.FRAME.width,
    "image_height": toys.FRAME.height,
    "epochs": 2,
    "batch_size": 12,
    "learning_rate": 0.05,
}
SMALL = {"policy_count": 3, "merged_count": 2, "sub_policy_count": 2, "smoothing_epochs": 2, "density_views": 1}


def settings(**changes) -> Search:
    """A search of seconds."""
    network = NETWORK | changes.pop("network", {})
    return Search(**({"search_network": network} | SMALL | changes))


def search_data(data: Path, output: Path) -> policy_search.SearchData:
    """What `toys.prepare` left, ready to search on."""
    return policy_search.SearchData(toys.splits(toys.table()), toys.opened(data), output / search.FOLDER)


def run(data: Path, output: Path, **changes) -> pd.DataFrame:
    """Search on the toy set; the trials. Who stops sending heartbeats counts as dead soon."""
    search.HEARTBEAT_SECONDS, search.GRACE_SECONDS, search.POLL_SECONDS = 1, 3, 0.1
    return policy_search.run_search(settings(**changes), search_data(data, output))


def run_and_die(data: Path, output: Path, kill_at: int, of: str, together: Any, changes: dict) -> None:
    """The same, but die by SIGKILL at the `kill_at`-th call of something, written `module:Class.method`.

    together: a barrier at which workers wait for one another with a trial in hand.
    """
    torch.set_num_threads(1)
    if kill_at:
        kill_in_call(of, kill_at)
    if together:
        meet_in_first_trial(together)
    run(data, output, **changes)


def meet_in_first_trial(together: Any) -> None:
    """Let the first trial of a worker wait until the others have theirs."""
    score, waits = policy_search.TrialScorer.__call__, iter([together.wait])

    def score_together(*arguments):
        next(waits, lambda: None)()
        return score(*arguments)

    policy_search.TrialScorer.__call__ = score_together


def kill_in_call(of: str, kill_at: int) -> None:
    """Make one call of something in mask_lib or Optuna fatal, before it does anything."""
    module, *path, name = of.split(":")[0], *of.split(":")[1].split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    whole, calls = getattr(owner, name), iter(range(1, kill_at + 1))

    def or_die(*arguments, **named):
        if next(calls) == kill_at:
            toys.die()
        return whole(*arguments, **named)

    setattr(owner, name, or_die)


def context() -> multiprocessing.context.BaseContext:
    """Processes forked from one that has torch loaded but never used."""
    found = multiprocessing.get_context("forkserver")
    # Not toys: a fork server does not know the tests' folder.
    found.set_forkserver_preload(["mask_lib.training.policy_search"])
    return found


def started(
    data: Path, output: Path, kill_at: int = 0, of: str = "", together: Any = None, **changes
) -> multiprocessing.Process:
    """A process that searches; see `run_and_die`."""
    process = context().Process(target=run_and_die, args=(data, output, kill_at, of, together, changes))
    process.start()
    return process


def exit_code(process: multiprocessing.Process) -> int:
    """How it ended."""
    process.join(180)
    return process.exitcode
