"""Search for an augmentation policy, in three ways behind one setting, resumable and shared by any number of processes.

`random` trains a network for each random policy (the seed's search). `halving` does too, but stops what falls behind
(successive halving, Li et al. 2020). `density` trains a few networks once, without augmentation, and asks of each
policy how well they still recognise photos of people they have not seen under it (Fast AutoAugment, Lim et al. 2019);
where to look next is a tree of Parzen estimators' to say (Bergstra et al. 2011).

Place 0 of every search is no augmentation at all, the bar to clear. Only the folds `search_folds` are used, so that
the verdict can be reached on people that the search has not seen.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.trial import FrozenTrial

from mask_lib import config, density, devices, files, folds, journal, models, policies, runs, store

Kind = Literal["density", "halving", "random"]
FOLDER = "search"
PLAIN = "plain"  # names the run of the density search's networks
POLICY, SECONDS, MACRO_F1 = "policy", "seconds", "macro_f1"  # attributes of a trial
NOT_OF_THE_NETWORK = ("run", "folds", "augmentation")  # settings of a run that the search sets itself
RANDOM_FIRST = 10  # policies that the density search draws blindly before it learns from them
TRIAL_COLUMNS = ["trial", "state", "value", "macro_f1", "epochs", "seconds", "policy"]
FALLBACK = "trivialaugment"


@dataclasses.dataclass(frozen=True)
class Search:
    """Every setting of a search. However it is built, types and ranges are checked; ValueError names the field."""

    search_kind: Kind = "density"
    search_network: dict[str, Any] = dataclasses.field(default_factory=dict)  # settings of a run, of each training
    search_folds: tuple[int, ...] = (0,)  # density: a network for each; else only the first is trained
    search_seed: int = 0
    policy_count: int = 50  # beside no augmentation
    merged_count: int = 5  # the best so many become one policy
    policy_operations: tuple[str, ...] = policies.SEED
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
        for operation in self.policy_operations:
            policies.require_operation(operation)
        self.network()

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

    def space(self) -> policies.Space:
        """What policies are drawn from. What is never taken is what recognisability alone would like best."""
        drawn = policies.Space(self.policy_operations, self.sub_policy_count, self.steps_each)
        if self.search_kind != "density":
            return drawn
        return dataclasses.replace(drawn, probabilities=tuple(share for share in drawn.probabilities if share > 0))

    def recorded(self, data: str) -> dict[str, Any]:
        """What a journal must have been made with to go on: settings that change what a trial is worth."""
        unused = ("policy_count", "merged_count", "search_network")
        settings = {name: value for name, value in vars(self).items() if name not in unused}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        return {**plain, **self.network().settings(), "run": FOLDER, "data": data}


@dataclasses.dataclass(frozen=True)
class Material:
    """What a search works on: the small split's tables by fold, their photos, and its own folder."""

    splits: dict[int, pd.DataFrame]
    photos: store.Store
    folder: Path  # output_dir / search

    @property
    def journal(self) -> Path:
        """Where the trials are written as they happen."""
        return self.folder / "journal.log"


def run_search(
    search: Search,
    material: Material,
    when_changed: config.WhenChanged = "refuse",
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> pd.DataFrame:
    """Search until `policy_count` policies and no augmentation are scored, from where it was left; the trials.

    Columns `TRIAL_COLUMNS`, also written to `trials.csv`; the best become `best_policy.json`. Several
    processes may call it at once: each returns when all is done. A finished search is only read.
    Raises ChangedSearchError if the folder holds one of other settings and `when_changed` is refuse.
    """
    chosen = runs.chosen_folds(search.network(folds=list(search.search_folds)), material.splits)
    data = [folds.fingerprint(material.photos.content, material.splits[fold], search.network().weights) for fold in chosen]
    study = journal.open_study(material.journal, search.recorded(files.digest(data)), _pruner(search), when_changed)
    begun, total = len(journal.finished(study)), search.policy_count + 1
    with journal.worker(material.journal) as worker, files.progress(total=total, what=search.search_kind, unit="policy") as bar:
        bar.update(min(begun, total))
        scorer = Scorer(search, material)
        while trial := journal.claim(study, material.journal, worker, total, lambda study, slot: ask(search, study, slot)):
            on_trial(scorer.finish(study, trial))
            bar.update(len(journal.finished(study)) - bar.n)
    return write_results(search, study, material.folder, anew=begun < total)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.search_kind != "halving":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(search.halving_first_epochs, search.halving_factor)


def ask(search: Search, study: optuna.Study, slot: int) -> optuna.Trial:
    """The trial of a place, with its policy as an attribute; all chance follows from the seed and the place."""
    seed = int(np.random.SeedSequence([search.search_seed, slot]).generate_state(1)[0])
    # Without the joint model of all parameters: place 0 has none, and nothing is shared by all trials.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_FIRST, multivariate=False, seed=seed)
    trial = study.ask()
    if slot == 0:
        policy = policies.Policy("none")
    elif search.search_kind == "density":
        policy = suggested(trial, search.space(), f"policy {slot}")
    else:
        policy = policies.random_policy(np.random.default_rng(seed), search.space(), f"policy {slot}")
    trial.set_user_attr(POLICY, policy.plain())
    return trial


def suggested(trial: optuna.Trial, space: policies.Space, name: str) -> policies.Policy:
    """The policy of `space` that the trial's sampler suggests."""

    def step(place: str) -> policies.Step:
        operation = trial.suggest_categorical(f"operation {place}", space.operations)
        probability, magnitude = (
            choices[trial.suggest_int(f"{what} {place}", 0, len(choices) - 1)]
            for what, choices in (("probability", space.probabilities), ("magnitude", space.magnitudes))
        )
        return policies.Step(operation, probability, magnitude if policies.OPERATIONS[operation].unit else None)

    places = range(space.sub_policies), range(space.steps)
    return policies.Policy(name, tuple(tuple(step(f"{sub}.{at}") for at in places[1]) for sub in places[0]))


class Scorer:
    """What gives a trial its value; networks that it needs are trained when the first trial comes."""

    def __init__(self, search: Search, material: Material):
        self.search, self.material = search, material
        self.judges: list[density.Judge] = []

    def finish(self, study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
        """Score a trial's policy, tell the study, and return the trial as it stands there."""
        policy, started = policies.Policy.from_plain(trial.user_attrs[POLICY]), time.perf_counter()
        number = trial.user_attrs[journal.SLOT]
        try:
            score = self.by_density if self.search.search_kind == "density" else self.by_training
            value, state = score(trial, number, policy), optuna.trial.TrialState.COMPLETE
        except optuna.TrialPruned:
            value, state = None, optuna.trial.TrialState.PRUNED
        trial.set_user_attr(SECONDS, time.perf_counter() - started)
        told = study.tell(trial, value, state)
        shutil.rmtree(runs.folder_of(self.material.folder, run_name(number)), ignore_errors=True)
        return told

    def by_density(self, trial: optuna.Trial, number: int, policy: policies.Policy) -> float:
        """Mean log-likelihood of held-out photos' true classes under the policy, over the folds' networks."""
        self.judges = self.judges or plain_networks(self.search, self.material)
        found = pd.DataFrame([judge.score(policy, self.search.density_views) for judge in self.judges])
        trial.set_user_attr(MACRO_F1, float(found["macro_f1"].mean()))
        return float(found["log_likelihood"].mean())

    def by_training(self, trial: optuna.Trial, number: int, policy: policies.Policy) -> float:
        """Smoothed validation macro F1 of a network trained with the policy, from where a killed one was left.

        Raises TrialPruned once the pruner wants it to stop.
        """
        told: list[float] = []

        def tell(row: Mapping[str, float]) -> None:
            told.append(row["val_macro_f1"])
            if len(told) not in trial.storage.get_trial(trial._trial_id).intermediate_values:
                trial.report(smoothed(told, self.search.smoothing_epochs), len(told))
            if trial.should_prune():
                raise optuna.TrialPruned

        fold, path = self.search.search_folds[0], self.material.folder / "policies" / f"{number}.json"
        policies.write(policy, path)
        run = self.search.network(run=run_name(number), folds=[fold], augmentation=str(path))
        for row in epochs_done(runs.folder_of(self.material.folder, run.run) / f"fold{fold}"):
            tell(row)
        runs.train_run(run, self.material.splits, self.material.photos, self.material.folder, on_epoch=tell)
        trial.set_user_attr(MACRO_F1, max(told))
        return smoothed(told, self.search.smoothing_epochs)


def run_name(number: int) -> str:
    """The run that trains the policy of a place."""
    return f"policy{number}"


def smoothed(told: list[float], epochs: int) -> float:
    """The mean of the last so many epochs."""
    return float(np.mean(told[-epochs:]))


def epochs_done(folder: Path) -> list[dict[str, float]]:
    """The history of a fold's training up to its last checkpoint, which is where it would go on."""
    last = folder / "checkpoint" / "last.safetensors"
    return models.read_manifest(last)["place"]["history"] if last.exists() else []
