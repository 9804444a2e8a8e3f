"""A search over augmentation policies as an Optuna study: its settings, its trials, and the files that it leaves.

Any number of processes share a study. Every policy has a place, from 0, no augmentation, to `policy_count`; all places
wait in Optuna's queue from the start. The place of a worker that died goes back there after `GRACE_SECONDS`.
"""

import json
import os
import time
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from mask_lib.augment import policy as policies
from mask_lib.augment.policy import OPERATIONS, SEED, Policy, Space, Step
from mask_lib.base import checks, config, files

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 60
POLL_SECONDS = 0.5
RANDOM_FIRST = 10  # policies that the density search draws blindly before it learns from them
SETTINGS, PLACE, POLICY, MACRO_F1 = "settings", "place", "policy", "macro_f1"  # attributes
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
TRIAL_COLUMNS = ["trial", "state", "value", "macro_f1", "epochs", "seconds", "policy"]
FOLDER, FALLBACK = "search", "trivialaugment"
STUDY = "study.db"


class _Verdict(BaseModel, extra="allow"):
    policy: str  # its digest
    beats_trivialaugment: bool
    candidates: dict[str, str]  # digests by name
    sentence: str
    folds: list[int] = []
    seconds: float = 0


class Search(checks.Settings):
    """Every setting of a search."""

    search_kind: Literal["density", "halving", "random"] = "density"
    search_network: dict[str, Any] = Field(default_factory=dict)  # settings of a run, of each training
    search_folds: tuple[Annotated[int, Field(ge=0, le=999)], ...] = (0,)  # density: a network for each; else the first
    search_seed: config.Seed = 0
    search_storage: str = ""  # an SQLAlchemy URL of a database server; empty: an SQLite file in the search's folder
    policy_count: config.Count = 50  # beside no augmentation
    merged_count: config.Count = 5  # the best so many become one policy
    policy_operations: tuple[str, ...] = SEED
    sub_policy_count: config.Count = 5
    steps_each: config.Count = 2  # operations of a sub-policy
    smoothing_epochs: config.Count = 5  # the value of a training is its last epochs' mean macro F1
    halving_factor: Annotated[int, Field(ge=2, le=100)] = 3  # one in so many goes on, to so many times the epochs
    halving_first_epochs: config.Count = 1  # before the first decision
    density_epochs: config.CountOrNone = 0  # of the networks trained once; 0: as search_network says
    density_views: config.Count = 2  # of each photo under a policy

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self.require("search_folds", self.search_folds, "the folds to search on, such as [0]")
        for name in self.policy_operations:
            policies.checked_operation(name, "policy_operations")
        own = sorted({"run", "folds", "augmentation"} & set(self.search_network))
        if own:
            raise ValueError(f"search_network: the search sets {', '.join(own)} itself")
        if self.network().checkpoint_choice == "swa":
            advice = "no weights are averaged in a search; write best, last or ema"
            raise ValueError(f"search_network, checkpoint_choice = 'swa': {advice}")
        return self

    def network(self, epochs: int = 0, **changes: Any) -> config.Run:
        """The run that each training is, with `changes`; epochs, where above 0, in place of its own."""
        more = {"epochs": epochs} if epochs else {}
        return config.Run(**{**self.search_network, "augmentation": "none", **more, **changes})

    def space(self) -> Space:
        """What policies are drawn from. Density would prefer steps that are never taken: it has none."""
        shares = (0.25, 0.5, 0.75) if self.search_kind == "density" else (0.0, 0.25, 0.5, 0.75)
        return Space(self.policy_operations, self.sub_policy_count, self.steps_each, shares)

    def recorded(self, data: str) -> dict[str, Any]:
        """What a study must have been made with to go on: settings that change the value of a trial."""
        unused = ("policy_count", "search_network", "merged_count", "search_storage")
        settings = {name: value for name, value in self.settings().items() if name not in unused}
        return {**settings, **self.network().settings(), "run": "", "the photos, their labels or the split": data}


def open_study(search: Search, folder: Path, data: str, when_changed: str = "refuse") -> optuna.Study:
    """The study of a search in `folder`, new or to go on, with every place finished, at work or in the queue.

    data: digest of the photos. Raises ChangedSettingsError that lists changed settings (restart: puts the folder aside
    instead), and ValueError for a file that is no study.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(folder.with_name(f".{folder.name}.lock")):
        study, new = _study(search, folder), search.recorded(data)
        old = study.user_attrs.get(SETTINGS, new)
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        differences = [f"{name}: {old.get(name)} → {new.get(name)}" for name in changed]
        if differences and when_changed == "refuse":
            raise config.ChangedSettingsError(
                f"{files.shown_path(folder)} holds a search with other settings ({'; '.join(differences)}). Give this "
                "one another output_dir, or set when_changed: restart to put the old one aside and begin anew."
            )
        if differences:
            if search.search_storage:
                optuna.delete_study(study_name=study.study_name, storage=search.search_storage)
            print(f"put the search of other settings aside: {files.shown_path(files.put_aside(folder))}")
            study = _study(search, folder)
        study.set_user_attr(SETTINGS, new)
        alive = study.get_trials(deepcopy=False, states=(*COUNTED, TrialState.RUNNING, TrialState.WAITING))
        for place in sorted(set(range(search.policy_count + 1)) - {trial.user_attrs.get(PLACE) for trial in alive}):
            study.enqueue_trial({}, {PLACE: place})
    return study


def _study(search: Search, folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would tell of every trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of heartbeats
    folder.mkdir(exist_ok=True)
    path, server = folder / STUDY, search.search_storage
    address = server or f"sqlite:///{path}"
    is_sqlite = address.startswith("sqlite")
    try:
        storage = optuna.storages.RDBStorage(
            address,
            engine_kwargs={"connect_args": {"timeout": 60, "isolation_level": None}} if is_sqlite else {},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            # Not RetryHeartbeatStaleTrialCallback: parameters that were suggested in part would be kept.
            heartbeat_stale_trial_callback=_enqueue_again,
        )
        if is_sqlite:  # it locks no rows: of two workers that read that a trial waits, both would take it
            event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return optuna.create_study(
            storage=storage,
            study_name=files.shown_path(folder) if server else FOLDER,
            direction="maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(search.halving_first_epochs, search.halving_factor),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        where, why = "search_storage" if server else files.shown_path(path), str(error).splitlines()[0]
        raise ValueError(f"{where} is not the study of a search ({why}): move it away to search anew") from error


def _enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    if PLACE in trial.user_attrs:
        study.enqueue_trial({}, {PLACE: trial.user_attrs[PLACE]})


class NotWantedError(RuntimeError):
    """A trial beyond `policy_count`, or one that Optuna made since another worker took the one that was waiting."""


def start_trial(search: Search, trial: optuna.Trial) -> Policy:
    """The policy of a trial, also noted there: none in place 0, else random or, of density, suggested by TPE.

    All chance follows from the seed and the place; after `RANDOM_FIRST` trials, suggestions (Bergstra et al. 2011) from
    those that are finished too. Raises NotWantedError.
    """
    place = trial.user_attrs.get(PLACE, np.inf)
    if place > search.policy_count:
        raise NotWantedError
    random, name = np.random.SeedSequence([search.search_seed, place]), f"policy {place}"
    if place == 0:
        policy = Policy("none")
    elif search.search_kind == "density":
        seed = int(random.generate_state(1)[0])
        trial.study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_FIRST, multivariate=False, seed=seed)
        policy = _suggested(trial, search.space(), name)
    else:
        policy = policies.random_policy(np.random.default_rng(random), search.space(), name)
    trial.study._storage.record_heartbeat(trial._trial_id)  # Optuna's thread may be late: see `wait_for_trial`
    trial.set_user_attr(POLICY, policy.plain())
    return policy


def _suggested(trial: optuna.Trial, space: Space, name: str) -> Policy:
    def step(place: str) -> Step:
        operation = trial.suggest_categorical(f"operation {place}", space.operations)
        probability = space.probabilities[trial.suggest_int(f"probability {place}", 0, len(space.probabilities) - 1)]
        magnitude = space.magnitudes[trial.suggest_int(f"magnitude {place}", 0, len(space.magnitudes) - 1)]
        return Step(operation, probability, magnitude if OPERATIONS[operation].unit else None)

    return Policy(name, [[step(f"{sub}.{at}") for at in range(space.steps)] for sub in range(space.sub_policies)])


def wait_for_trial(study: optuna.Study) -> bool:
    """Whether a trial is in the queue; False once all are finished. Where others work on the last ones it waits."""
    while True:
        optuna.storages.fail_stale_trials(study)
        unfinished = study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
        if not unfinished or any(trial.state == TrialState.WAITING for trial in unfinished):
            return bool(unfinished)
        for trial in unfinished:
            # Optuna never calls a trial stale that was killed before its first heartbeat, so before it had a policy.
            is_old = datetime.now() - trial.datetime_start > timedelta(seconds=GRACE_SECONDS)
            if is_old and POLICY not in trial.user_attrs:
                study.tell(trial.number, state=TrialState.FAIL)
                _enqueue_again(study, trial)
        time.sleep(POLL_SECONDS)


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """One row a finished trial, `TRIAL_COLUMNS`; trial is its place, policy JSON text. Pruned ones have no value."""
    rows = [
        {
            "trial": trial.user_attrs[PLACE],
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else np.nan,
            "macro_f1": trial.user_attrs.get(MACRO_F1, np.nan),
            "epochs": len(trial.intermediate_values),
            "seconds": trial.duration.total_seconds(),
            "policy": json.dumps(trial.user_attrs[POLICY]),
        }
        for trial in study.get_trials(deepcopy=False, states=COUNTED)
    ]
    found = pd.DataFrame(rows, columns=TRIAL_COLUMNS).drop_duplicates("trial", keep="last")
    return found.sort_values("trial", ignore_index=True)


def _scored(trials: pd.DataFrame) -> pd.DataFrame:
    """The policies that were scored to the end, the best first; of equals the earlier one."""
    scored = trials[(trials["state"] == "complete") & (trials["trial"] > 0)]
    return scored.sort_values(["value", "trial"], ascending=[False, True], ignore_index=True)


def best_policies(trials: pd.DataFrame, count: int) -> list[Policy]:
    """The `count` policies with the highest value, the best first. Raises ValueError if none was scored to the end."""
    scored = _scored(trials)
    if scored.empty:
        raise ValueError("no policy was scored to the end")
    return [Policy.from_plain(json.loads(text)) for text in scored["policy"].head(count)]


def operation_importance(trials: pd.DataFrame) -> pd.DataFrame:
    """Which operations the score of a policy goes with: columns `operation`, `correlation`, `policies`, that use it.

    correlation: Spearman's, over the scored policies, between the value and `operation_use`; 0 where all use it alike.
    With few trials it is a hint, and no effect, since nothing was held fixed.
    """
    scored = _scored(trials)
    uses = pd.DataFrame([operation_use(Policy.from_plain(json.loads(text))) for text in scored["policy"]]).fillna(0.0)
    with warnings.catch_warnings(action="ignore"):  # a use that does not vary
        correlation = uses.corrwith(scored["value"], method="spearman").fillna(0.0)
    found = pd.DataFrame({"correlation": correlation, "policies": (uses > 0).sum()}).rename_axis("operation")
    return found.reset_index().sort_values(["correlation", "operation"], ascending=[False, True], ignore_index=True)


def operation_use(policy: Policy) -> dict[str, float]:
    """How much of each operation a photo takes on average: probability times magnitude, 1 where it has none."""
    found = policies.operation_shares(policy)
    magnitudes = found[["low", "high"]].mean(axis=1).fillna(1)
    return (found["share"] * magnitudes).groupby(found["operation"]).sum().to_dict()


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
    """What `policy_search.reach_verdict` wrote on the best policy; None if nothing. ValueError names a faulty file."""
    path = verdict_path(output_dir)
    if not best_path(output_dir).exists():
        return None
    policy = policies.read_policy(best_path(output_dir))
    try:
        found = files.read_json(path, _Verdict) if path.exists() else None
    except ValueError as error:
        again = f"is no verdict of a search: remove it, run 02_search_augmentation ({error})"
        raise ValueError(f"{files.shown_path(path)} {again}") from error
    return found if found and found["policy"] == policy_digest(policy) else None


def chosen_augmentation(output_dir: Path) -> str:
    """The best policy's path if it provably beat TrivialAugment, else `trivialaugment`. Raises as `read_verdict`."""
    found = read_verdict(output_dir)
    return files.shown_path(best_path(output_dir)) if found and found["beats_trivialaugment"] else FALLBACK


def resolved(augmentation: str, output_dir: str | os.PathLike[str]) -> str:
    """A run's augmentation, `searched` being what the search in `output_dir` came to; any other stays.

    Raises FileNotFoundError if there was no search, and as `chosen_augmentation` does.
    """
    if augmentation != config.SEARCHED:
        return augmentation
    output = files.project_path(output_dir)
    if not best_path(output).exists():
        absent = f"augmentation = {config.SEARCHED!r}, but there is no {files.shown_path(best_path(output))}"
        raise FileNotFoundError(f"{absent}: run 02_search_augmentation first, or write {FALLBACK}")
    return chosen_augmentation(output)


def written(output_dir: Path) -> list[str]:
    """Names of the files of a search that are there; a verdict only if it is on the policy that is."""
    names = ("trials.csv", "best_policy.json", "verdict.json", STUDY)
    there = [name for name in names if (Path(output_dir) / FOLDER / name).exists()]
    return [name for name in there if name != "verdict.json" or read_verdict(output_dir)]
