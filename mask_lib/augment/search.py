"""What a policy search is: one frozen, checked dataclass.

A search's study in a journal file: any number of processes share it, any of them may be killed at any moment.

Optuna keeps the trials. What it leaves open is settled here: who works on what, that a dead worker's
trial is taken over by another, and that a line cut short by a kill does not spoil what comes after it.

Which policies of a search by halving go on past a rung, a number of epochs, and which stop there.

Successive halving (Jamieson and Talwalkar 2016) whose workers never wait for one another (Li et al. 2020): a policy is
measured against those that reached the rung before it. One in `factor` goes on, but never fewer than `at_least`, so
that so many policies are trained to the end whatever the first epochs look like.

No augmentation is outside of this: what is easiest to learn leads after an epoch or two, and measured against it
every policy might stop. It is trained to the end, for it is the bar to clear.

What a search found, as tables: its trials, the best of them, and what its operations had to do with it.

What a search of augmentation came to, as it lies on disk: its best policy, and whether that is worth using.

A run that is to be trained with `augmentation: searched` asks here. The policy counts only with a verdict on it, and
one that it won; until then, and after one that it lost, it is TrivialAugment, which takes no search.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mask_lib.augment.policy import (
    OPERATIONS,
    SEED,
    Policy,
    Space,
    Step,
    merge_policies,
    random_policy,
    read_policy,
    write_policy,
)
from mask_lib.base import config, files

Kind = Literal["density", "halving", "random"]
NOT_OF_THE_NETWORK = ("run", "folds", "augmentation")  # settings of a run that the search sets itself


@dataclasses.dataclass(frozen=True)
class Search:
    """Every setting of a search. However it is built, types and ranges are checked; ValueError names the field."""

    search_kind: Kind = "density"
    search_network: dict[str, Any] = dataclasses.field(default_factory=dict)  # settings of a run, of each training
    search_folds: tuple[int, ...] = (0,)  # density: a network for each; else only the first is trained
    search_seed: int = 0
    policy_count: int = 50  # beside no augmentation
    merged_count: int = 5  # the best so many become one policy; halving trains at least as many to the end
    policy_operations: tuple[str, ...] = SEED
    sub_policy_count: int = 5
    steps_each: int = 2  # operations of a sub-policy
    smoothing_epochs: int = 5  # the reward of a training is its last epochs' mean macro F1
    halving_factor: int = 3  # of the policies that reach a rung one in so many goes on, for so many times the epochs
    halving_first_epochs: int = 1  # the first rung
    density_epochs: int = 0  # of the networks trained once; 0: as many as any training here
    density_views: int = 2  # of each photo under a policy

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = dict if field.name == "search_network" else field.type
            object.__setattr__(self, field.name, config.checked(field.name, getattr(self, field.name), kind))
        at_least = {"policy_count": 1, "merged_count": 1, "sub_policy_count": 1, "steps_each": 1, "search_seed": 0}
        at_least |= {"smoothing_epochs": 1, "halving_factor": 2, "halving_first_epochs": 1, "density_views": 1}
        for name, least in (at_least | {"density_epochs": 0}).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least {least}")
        if not self.search_folds:
            raise ValueError("search_folds = []: name the folds to search on, such as [0]")
        try:
            Policy("these", tuple((Step(name),) for name in self.policy_operations))
        except ValueError as error:
            raise ValueError(f"policy_operations, {error}") from None
        if self.network().checkpoint_choice == "swa":
            advice = "no weights are averaged in a search; write best, last or ema"
            raise ValueError(f"search_network, checkpoint_choice = 'swa': {advice}")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """A search from a mapping that holds its fields among others, such as a notebook's `globals()`."""
        return cls(**{field.name: parameters[field.name] for field in dataclasses.fields(cls)})

    def network(self, **changes: Any) -> config.Run:
        """The run that each training of the search is, with `changes`. Raises ValueError for what is no setting."""
        own = sorted(set(self.search_network) & set(NOT_OF_THE_NETWORK))
        if own:
            raise ValueError(f"search_network: the search sets {', '.join(own)} itself")
        return config.Run.from_settings({**self.search_network, "augmentation": "none", **changes})

    def network_for(self, epochs: int, **changes: Any) -> config.Run:
        """The same, trained for so many epochs; 0: for as many as any training here."""
        return self.network(**({"epochs": epochs} if epochs else {}), **changes)

    def space(self) -> Space:
        """What policies are drawn from. What is never taken is what recognisability alone would like best."""
        drawn = Space(self.policy_operations, self.sub_policy_count, self.steps_each)
        if self.search_kind != "density":
            return drawn
        return dataclasses.replace(drawn, probabilities=tuple(share for share in drawn.probabilities if share > 0))

    def recorded(self, data: str) -> dict[str, Any]:
        """What a journal must have been made with to go on: settings that change what a trial is worth."""
        # Halving trains to the end at least as many as are merged; elsewhere the number changes no trial.
        unused = ("policy_count", "search_network", *(() if self.search_kind == "halving" else ("merged_count",)))
        settings = {name: value for name, value in vars(self).items() if name not in unused}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        return {**plain, **self.network().settings(), "run": "", "the photos, their labels or the split": data}


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
    when_changed: str = "refuse",
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
            aside = files.put_aside(journal.parent)
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
def worker_name(journal: Path) -> Iterator[str]:
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
            taken = {trial.user_attrs[SLOT] for trial in [*running, *finished_trials(study)]}
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


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, by their places."""
    found = study.get_trials(deepcopy=False, states=COUNTED)
    return sorted(found, key=lambda trial: trial.user_attrs[SLOT])


def is_rung(epochs: int, first: int, factor: int) -> bool:
    """Whether so many epochs are one of first, first x factor, first x factor x factor …"""
    while first < epochs:
        first *= factor
    return first == epochs


def reached(trials: Sequence[FrozenTrial], epochs: int) -> dict[int, float]:
    """By place, what the policies that reached a rung had scored there; no augmentation is none of them."""
    found = {trial.user_attrs.get(SLOT): trial.intermediate_values.get(epochs) for trial in trials}
    return {place: value for place, value in found.items() if place and value is not None}


def goes_on(place: int, values: Mapping[int, float], factor: int, at_least: int) -> bool:
    """Whether the policy of a place is among the best of a rung; values: by place, its own too.

    Of equals the earlier place is the better one.
    """
    ranked = sorted(values, key=lambda one: (-values[one], one))
    return place in ranked[: max(at_least, len(ranked) // factor)]


POLICY, SECONDS, MACRO_F1 = "policy", "seconds", "macro_f1"  # attributes of a trial
TRIAL_COLUMNS = ["trial", "state", "value", "macro_f1", "epochs", "seconds", "policy"]
COMPLETE, PRUNED = "complete", "pruned"


def trials_table(finished: list[FrozenTrial]) -> pd.DataFrame:
    """One row a finished trial, columns `COLUMNS`; trial 0 is no augmentation.

    value is what the search maximises; a pruned trial has none. policy is JSON text. Raises ValueError
    for a trial whose policy is none, as in a journal that was tampered with.
    """
    return pd.DataFrame([_row(trial) for trial in finished], columns=TRIAL_COLUMNS)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    number, attributes = trial.user_attrs[SLOT], trial.user_attrs
    try:
        policy = Policy.from_plain(attributes.get(POLICY))
    except ValueError as error:
        raise ValueError(f"trial {number} of the search's journal holds no policy: {error}") from None
    return {
        "trial": number,
        "state": COMPLETE if trial.state == TrialState.COMPLETE else PRUNED,
        "value": trial.value if trial.state == TrialState.COMPLETE else np.nan,
        "macro_f1": attributes.get(MACRO_F1, np.nan),
        "epochs": len(trial.intermediate_values),
        "seconds": attributes.get(SECONDS, np.nan),
        "policy": json.dumps(policy.plain()),
    }


def read_trials(folder: Path) -> pd.DataFrame:
    """The trials as a search wrote them below `folder`. Raises FileNotFoundError that says what to run first."""
    path = Path(folder) / "trials.csv"
    if not path.exists():
        raise FileNotFoundError(f"there is no {files.shown_path(path)}: run 02_search_augmentation first")
    return pd.read_csv(path)


def best_policies(trials: pd.DataFrame, count: int) -> list[Policy]:
    """The policies of the `count` trials with the highest value, the best first; no augmentation is none of them.

    Raises ValueError if no policy was scored to the end.
    """
    scored = trials[(trials["state"] == COMPLETE) & (trials["trial"] > 0)]
    if scored.empty:
        raise ValueError("no policy was scored to the end")
    ranked = scored.sort_values(["value", "trial"], ascending=[False, True]).head(count)
    return [Policy.from_plain(json.loads(text)) for text in ranked["policy"]]


def operation_importance(trials: pd.DataFrame) -> pd.DataFrame:
    """Which operations the score of a policy goes with: columns `operation`, `correlation`, `policies`.

    correlation: Spearman's, over the scored policies, between the value and how much a policy uses the
    operation (`use`); 0 where all use it alike. policies: how many use it at all. With few trials it
    is a hint; it is no effect, since nothing was held fixed.
    """
    scored = trials[(trials["state"] == COMPLETE) & (trials["trial"] > 0)]
    uses = pd.DataFrame([operation_use(Policy.from_plain(json.loads(text))) for text in scored["policy"]]).fillna(0.0)
    ranks = scored["value"].rank().to_numpy()
    found = pd.DataFrame(
        {
            "operation": list(uses.columns),
            "correlation": [_correlation(uses[name].rank().to_numpy(), ranks) for name in uses],
            "policies": [int((uses[name] > 0).sum()) for name in uses],
        }
    )
    return found.sort_values(["correlation", "operation"], ascending=[False, True], ignore_index=True)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Pearson's; 0 where one side does not vary, or for fewer than two values."""
    varies = len(left) > 1 and np.ptp(left) > 0 and np.ptp(right) > 0
    return float(np.corrcoef(left, right)[0, 1]) if varies else 0.0


def operation_use(policy: Policy) -> dict[str, float]:
    """How much of each operation a photo meets on the mean: probability times magnitude, 1 where it has none."""
    found: dict[str, float] = {}
    for steps in policy.sub_policies:
        for step in steps:
            magnitude = 1.0 if step.magnitude is None else step.magnitude
            share = step.probability * magnitude / len(policy.sub_policies)
            found[step.operation] = found.get(step.operation, 0.0) + share
    return found


FOLDER = "search"
SEARCHED = "searched"
FALLBACK = "trivialaugment"
WRITTEN = ("trials.csv", "best_policy.json", "verdict.json", "journal.log")


def policy_digest(policy: Policy) -> str:
    """The same for policies that do the same, whatever their names."""
    return files.digest(policy.plain()["sub_policies"])


def best_path(output_dir: Path) -> Path:
    """Where the policy lies that a search found."""
    return Path(output_dir) / FOLDER / "best_policy.json"


def verdict_path(output_dir: Path) -> Path:
    """Where it lies whether that policy is worth using."""
    return Path(output_dir) / FOLDER / "verdict.json"


def read_verdict(output_dir: Path) -> dict[str, Any] | None:
    """What `policy_search.reach` wrote, None if nothing. Raises ValueError that names a file that is no verdict."""
    path = verdict_path(output_dir)
    if not path.exists():
        return None
    found = files.read_json(path)
    kinds = {"policy": str, "beats_trivialaugment": bool, "candidates": dict, "sentence": str}
    if not isinstance(found, dict) or any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(
            f"{files.shown_path(path)} is no verdict of a search: remove it and run 02_search_augmentation"
        )
    return found


def standing_verdict(output_dir: Path) -> dict[str, Any] | None:
    """The verdict on the very policy that lies there; None where there is none, or one on another policy.

    Raises ValueError that names a file that is no policy or no verdict.
    """
    path = best_path(output_dir)
    if not path.exists():
        return None
    policy, found = read_policy(path), read_verdict(output_dir)
    return found if found is not None and found["policy"] == policy_digest(policy) else None


def chosen_augmentation(output_dir: Path) -> str:
    """What a run should be trained with: the best policy's path if it beat TrivialAugment, else `trivialaugment`.

    Also `trivialaugment` where there was no search, no verdict, or one on another policy. Raises as
    `standing_verdict` does.
    """
    found = standing_verdict(output_dir)
    won = found is not None and found["beats_trivialaugment"]
    return files.shown_path(best_path(output_dir)) if won else FALLBACK


def resolved(augmentation: str, output_dir: str | os.PathLike[str] | None) -> str:
    """A run's augmentation, `searched` being what the search in `output_dir` came to; any other stays.

    Raises FileNotFoundError if there was no search, ValueError for no output_dir and as `chosen_augmentation`.
    """
    if augmentation != SEARCHED:
        return augmentation
    if output_dir is None:
        raise ValueError(f"augmentation = {SEARCHED!r} stands for what lies in an output_dir: name that too")
    output = files.project_path(output_dir)
    if not best_path(output).exists():
        raise FileNotFoundError(
            f"augmentation = {SEARCHED!r}, but there is no {files.shown_path(best_path(output))}: run "
            f"02_search_augmentation first, or write {FALLBACK}"
        )
    return chosen_augmentation(output)


def written(output_dir: Path) -> list[str]:
    """Names of the files of a search that are there; a verdict only if it is on the policy that is."""
    names = [name for name in WRITTEN if (Path(output_dir) / FOLDER / name).exists()]
    stale = verdict_path(output_dir).name if standing_verdict(output_dir) is None else None
    return [name for name in names if name != stale]


RANDOM_FIRST = 10  # policies that the density search draws blindly before it learns from them


def ask(search: Search, study: optuna.Study, slot: int) -> optuna.Trial:
    """The trial of a place, with its policy as an attribute; all chance follows from the seed and the place."""
    seed = int(np.random.SeedSequence([search.search_seed, slot]).generate_state(1)[0])
    # Without the joint model of all parameters: place 0 has none, and nothing is shared by all trials.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_FIRST, multivariate=False, seed=seed)
    trial = study.ask()
    if slot == 0:
        policy = Policy("none")
    elif search.search_kind == "density":
        policy = suggested(trial, search.space(), f"policy {slot}")
    else:
        policy = random_policy(np.random.default_rng(seed), search.space(), f"policy {slot}")
    trial.set_user_attr(POLICY, policy.plain())
    return trial


def suggested(trial: optuna.Trial, space: Space, name: str) -> Policy:
    """The policy of `space` that the trial's sampler suggests."""

    def step(place: str) -> Step:
        operation = trial.suggest_categorical(f"operation {place}", space.operations)
        probability, magnitude = (
            choices[trial.suggest_int(f"{what} {place}", 0, len(choices) - 1)]
            for what, choices in (("probability", space.probabilities), ("magnitude", space.magnitudes))
        )
        return Step(operation, probability, magnitude if OPERATIONS[operation].unit else None)

    places = range(space.sub_policies), range(space.steps)
    return Policy(name, tuple(tuple(step(f"{sub}.{at}") for at in places[1]) for sub in places[0]))


def write_results(search: Search, study: optuna.Study, folder: Path) -> pd.DataFrame:
    """Write `trials.csv` and `best_policy.json`, the best policies merged; returns the trials.

    A best policy that a verdict has chosen among these very candidates stays.
    """
    found = trials_table(finished_trials(study))
    files.write_csv(found, folder / "trials.csv")
    merged = candidates(found, search.merged_count)["merged"]
    path = best_path(folder.parent)
    judged = read_verdict(folder.parent) if path.exists() else None
    if judged is None or policy_digest(merged) not in judged["candidates"].values():
        write_policy(merged, path)
    return found


def candidates(found: pd.DataFrame, merged_count: int, alone: int = 1) -> dict[str, Policy]:
    """What a search hands to the verdict, by name: its best policies `merged` into one, and some of them alone.

    alone: how many: `best`, `best 2` … Policies that do the same stand there once, under the first name.
    """
    first = best_policies(found, max(merged_count, alone))
    by_name = {"merged": merge_policies(first[:merged_count], "merged")}
    by_name |= {f"best {place}" if place > 1 else "best": policy for place, policy in enumerate(first[:alone], 1)}
    names = {policy_digest(policy): name for name, policy in reversed(by_name.items())}
    return {name: policy for name, policy in by_name.items() if name in names.values()}
