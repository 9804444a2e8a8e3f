"""A search's study in a journal file: any number of processes share it, any of them may be killed at any moment.

Optuna keeps the trials. What it leaves open is settled here: who works on what, that a dead worker's
trial is taken over by another, and that a line cut short by a kill does not spoil what comes after it.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mask_lib import config, files, resuming

NAME, SETTINGS, SLOT, WORKER = "search", "settings", "slot", "worker"  # of the study; attributes of it and of trials
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
POLL_SECONDS = 0.5  # between two looks whether the others have finished
# What replaying a line of another program, or one that was tampered with, may raise inside Optuna.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, RuntimeError)


class ChangedSearchError(ValueError):
    """A journal holds a search of other settings or other photos."""


class JournalLock:
    """One writer at a time, by a lock that the kernel takes from a process that dies.

    It stands in for Optuna's own locks, files that a killed process leaves behind for half a minute.
    Across machines it needs a shared file system with locks, as NFS has.
    """

    def __init__(self, journal: Path):
        self.journal, self.lock = journal, FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        self.lock.acquire()
        mend(self.journal)
        return True

    def release(self) -> None:
        self.lock.release()


def mend(journal: Path) -> None:
    """Cut off a last line without an end: its writer was killed, and what is appended would be lost with it."""
    if not journal.exists():
        return
    with journal.open("rb+") as handle:
        content_end = handle.seek(0, os.SEEK_END)
        handle.seek(max(content_end - 1, 0))
        if handle.read(1) in (b"\n", b""):
            return
        handle.seek(0)
        handle.truncate(handle.read().rfind(b"\n") + 1)


def open_study(
    journal: Path,
    settings: dict[str, Any],
    when_changed: config.WhenChanged = "refuse",
) -> optuna.Study:
    """The study of a journal, to be maximised; a new one where there is none.

    settings: plain data that a study must have been made with to go on. Raises ChangedSearchError that
    lists what differs (with `when_changed` restart the journal's folder is put aside instead) and
    ValueError for a file that is no such journal.
    """
    journal.parent.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(journal.parent.with_name(f".{journal.parent.name}.lock")):
        study = _loaded(journal)
        differences = _differences(study.user_attrs.get(SETTINGS), settings) if study else []
        if differences and when_changed == "refuse":
            raise ChangedSearchError(
                f"{files.shown_path(journal)} holds a search with other settings ({'; '.join(differences)}). Give this "
                "one another output_dir, or set when_changed: restart to put the old one aside and begin anew."
            )
        if differences:
            aside = resuming.put_aside(journal.parent)
            print(f"put the search of other settings aside: {files.shown_path(aside)}")
        is_ready = study and not differences and SETTINGS in study.user_attrs
        return study if is_ready else _created(journal, settings)


def read_study(journal: Path) -> optuna.Study:
    """The study of a journal that exists. Raises FileNotFoundError, and ValueError as `open_study` does."""
    study = _loaded(journal)
    if study is None:
        raise FileNotFoundError(f"{files.shown_path(journal)} holds no search: run 02_search_augmentation first")
    return study


def _storage(journal: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every trial
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalLock(journal)))


def _loaded(journal: Path) -> optuna.Study | None:
    """The study, None where there is no journal or an empty one. Raises ValueError for anything else."""
    if not journal.exists() or not journal.stat().st_size:
        return None
    with JournalLock(journal).lock:
        mend(journal)
    try:
        storage = _storage(journal)
        names = [study.study_name for study in storage.get_all_studies()]
        if not names:
            return None  # its first line was cut short
        study = optuna.load_study(study_name=NAME, storage=storage, sampler=_nothing_drawn())
        checked(study.get_trials(deepcopy=False))
    except UNREADABLE as error:
        raise ValueError(
            f"{files.shown_path(journal)} is not the journal of a search, or is damaged ({type(error).__name__}: "
            f"{error}): move it away to search anew"
        ) from error
    return study


def _created(journal: Path, settings: dict[str, Any]) -> optuna.Study:
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_storage(journal),
        study_name=NAME,
        direction="maximize",
        sampler=_nothing_drawn(),
        load_if_exists=True,
    )
    study.set_user_attr(SETTINGS, settings)
    return study


def _nothing_drawn() -> optuna.samplers.BaseSampler:
    """The sampler until `claim` asks with another: Optuna's default would already draw for a trial taken over."""
    return optuna.samplers.RandomSampler(seed=0)


def _differences(old: Any, new: dict[str, Any]) -> list[str]:
    """What differs between two searches' settings; one killed before it could note them (None) has nothing to lose."""
    if old is None:
        return []
    if not isinstance(old, dict):
        return ["settings that are no settings"]
    return [f"{name}: {old.get(name)} → {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]


def checked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials, if they are as `claim` makes them. Raises ValueError that names one that is not."""
    for trial in trials:
        slot = trial.user_attrs.get(SLOT)
        if trial.state == TrialState.WAITING or (trial.state in COUNTED and not isinstance(slot, int)):
            raise ValueError(f"trial {trial.number} has no place in a search")
    return trials


@contextlib.contextmanager
def worker(journal: Path) -> Iterator[str]:
    """A name for whoever works on a study; others see from its lock that it is alive, however it dies."""
    name = secrets.token_hex(8)
    path = _lock_path(journal, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield name
    finally:
        path.unlink(missing_ok=True)


def _lock_path(journal: Path, name: str) -> Path:
    return journal.parent / "workers" / f"{name}.lock"


def is_alive(journal: Path, name: Any) -> bool:
    """Whether a worker holds its lock, on this machine or another that shares the folder."""
    known = isinstance(name, str) and name.isalnum()  # a name from a file becomes part of a path
    if not known or not _lock_path(journal, name).exists():
        return False
    try:
        with FileLock(_lock_path(journal, name), timeout=0):
            _lock_path(journal, name).unlink(missing_ok=True)  # no name is ever given twice
            return False
    except Timeout:
        return True


def claim(
    study: optuna.Study, journal: Path, name: str, total: int, ask: Callable[[optuna.Study, int], optuna.Trial]
) -> optuna.Trial | None:
    """A trial to work on: one that a dead worker left, else a new one for the first free place of 0 … total-1.

    None once all places are done. Where others work on the last ones it waits for them: one may die.
    ask: makes the trial of a place; what it proposes should follow from the place and the finished
    trials alone, so that an interrupted search proposes what it would have proposed in one go.
    """
    while True:
        with FileLock(f"{journal}.claim.lock"):
            running = _running(study)
            left = [trial for trial in running if not is_alive(journal, trial.user_attrs[WORKER])]
            if left:
                trial = optuna.Trial(study, left[0]._trial_id)
                trial.set_user_attr(WORKER, name)
                return trial
            taken = {trial.user_attrs[SLOT] for trial in [*running, *finished(study)]}
            free = [slot for slot in range(total) if slot not in taken]
            if free:
                trial = ask(study, free[0])
                trial.set_user_attr(WORKER, name)
                trial.set_user_attr(SLOT, free[0])  # last of all: it makes the trial count
                return trial
        if not running:
            return None
        time.sleep(POLL_SECONDS)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    """Trials begun and not finished, by a worker alive or dead.

    One whose asking was cut short is marked failed: the claim's lock is held, so nobody is asking now.
    """
    found = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in found:
        if SLOT not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)
    return [trial for trial in found if SLOT in trial.user_attrs]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, by their places."""
    found = study.get_trials(deepcopy=False, states=COUNTED)
    return sorted(found, key=lambda trial: trial.user_attrs[SLOT])
