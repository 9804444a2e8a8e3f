"""One fold of one run as a job: `python -m mask_lib.training --values JSON --fold K`; `--help` says more.

It does what the notebooks 03 and 04 do up to their training, which then find the fold finished and join it.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

from pydantic import Field, TypeAdapter

from mask_lib.base import checks, config, files, gpus, interrupts, labels
from mask_lib.training import tracking

# torch is imported where it is used: wrong parameters are refused without it, and a GPU is chosen before it starts.

EXPECTED = (ValueError, OSError, ArithmeticError, MemoryError, files.BusyError)  # whose words tell all there is to know


class Job(checks.Settings):
    """The parameters of a training notebook that are no settings of the run."""

    data_dir: str
    output_dir: str
    task: str = labels.DEFAULT
    plugins: tuple[str, ...] = ()
    when_changed: str = "refuse"
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0


def run_of(values: dict[str, Any], fold: int) -> config.Run:
    """The settings of a run of this fold alone, as its notebook reads them from its parameters."""
    if values.get("augmentation") == config.SEARCHED:
        from mask_lib.augment import search

        values = values | {"augmentation": search.resolved(config.SEARCHED, values["output_dir"])}
    return config.Run.from_parameters(values | {"folds": [fold]})


def train(job: Job, run: config.Run, tracked: tracking.Tracking, threads: int | None) -> None:
    """Train the run's fold, with at most so many CPU threads. Raises as `runs.train_folds` and what comes before it."""
    import torch

    from mask_lib.data import photos
    from mask_lib.models import distributed
    from mask_lib.training import dataset, runs

    torch.set_num_threads(min(threads or torch.get_num_threads(), torch.get_num_threads()))
    output = files.project_path(job.output_dir)
    data = photos.find_data(job.data_dir, unpack_into=output / "unpacked")
    splits = dataset.read_training_splits(output, run)
    folds = runs.chosen_folds(run, splits)
    decoded = dataset.open_trainable(data, output, run)
    options = {"when_changed": job.when_changed, "checkpoint_seconds": 60 * job.checkpoint_minutes}
    with distributed.processes():
        runs.train_folds(folds, run, splits, decoded, output, tracked, **options)


def become_torchrun(asked: argparse.Namespace) -> NoReturn:
    """Let torchrun take this process's place, with the GPUs that it has taken, and start the command several times."""
    for descriptor in gpus.held:
        os.set_inheritable(descriptor, True)
    threads = max((asked.threads or os.cpu_count() or 1) // asked.processes, 1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={asked.processes}"]
    command = ["-m", "mask_lib.training", f"--fold={asked.fold}", f"--threads={threads}"]
    os.execv(sys.executable, [sys.executable, *torchrun, *command, f"--values={json.dumps(asked.values)}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: 0, 1 for what is wrong with data or training, 2 for parameters, or 128 + a signal's number."""
    parser = argparse.ArgumentParser(prog="python -m mask_lib.training", description="Train one fold of one run.")
    about = "JSON of the parameters of 03_one_model or 04_three_model"
    parser.add_argument("--values", type=TypeAdapter(dict).validate_json, required=True, metavar="JSON", help=about)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--threads", type=int, help="the most CPU threads of a step (default: what torch takes)")
    parser.add_argument("--gpu", action="store_true", help="of several GPUs take one that is free, or wait for it")
    shared = "that share each batch, each on a GPU if there are some"
    parser.add_argument("--processes", type=int, default=1, help=shared)
    asked = parser.parse_args(arguments)
    os.environ.setdefault("MASK_LIB_HEADLESS", "1")  # nobody watches: few progress lines
    code = 2
    with interrupts.of_signals() as came, contextlib.redirect_stdout(sys.stderr):
        try:
            job, tracked = (kind.from_parameters(asked.values) for kind in (Job, tracking.Tracking))
            labels.use(job.task)
            config.import_plugins(list(job.plugins))
            run = run_of(asked.values, asked.fold)
            code = 1
            asked.gpu and gpus.take(asked.processes)
            if asked.processes > 1:
                become_torchrun(asked)
            train(job, run, tracked, asked.threads)
            return 0
        except KeyboardInterrupt as error:
            number = came[0] if came else signal.SIGINT
            print(f"ended by {number.name}; {error or 'nothing that it would go on from was lost'}")
            return 128 + number
        except EXPECTED as error:
            print(" ".join(str(error).split()))
            return code


if __name__ == "__main__":
    sys.exit(main())
