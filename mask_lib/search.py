"""Search for an augmentation policy, in three ways behind one setting, resumable and shared by any number of processes.

`random` trains a network for each random policy (the seed's search). `halving` does too, but stops what falls behind
(successive halving, see `halving`). `density` trains a few networks once, without augmentation, and asks of each
policy how well they still recognise photos of people they have not seen under it (Fast AutoAugment, Lim et al. 2019);
where to look next is a tree of Parzen estimators' to say (Bergstra et al. 2011).

Place 0 of every search is no augmentation at all, the bar to clear. Only the folds `search_folds` are used, so that
the verdict can be reached on people that the search has not seen.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mask_lib import (
    config,
    density,
    files,
    folds,
    halving,
    journal,
    models,
    policies,
    runs,
    searched,
    store,
    trials,
)
from mask_lib.search_settings import Search

PLAIN = "plain"  # names the run of the density search's networks
RANDOM_FIRST = 10  # policies that the density search draws blindly before it learns from them


@dataclasses.dataclass(frozen=True)
class Material:
    """What a search works on: the small split's tables by fold, their photos, and its own folder."""

    splits: dict[int, pd.DataFrame]
    photos: store.Store
    folder: Path  # output_dir / searched.FOLDER

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

    Columns `trials.COLUMNS`, also written to `trials.csv`; the best become `best_policy.json`. Several
    processes may call it at once: each returns when all is done. A finished search is only read.
    Raises ChangedSearchError if the folder holds one of other settings and `when_changed` is refuse.
    """
    chosen = runs.chosen_folds(search.network(folds=list(search.search_folds)), material.splits)
    weights = search.network().weights
    data = [folds.fingerprint(material.photos.content, material.splits[fold], weights) for fold in chosen]
    study = journal.open_study(material.journal, search.recorded(files.digest(data)), when_changed)
    total, scorer = search.policy_count + 1, Scorer(search, material)
    with (
        journal.worker(material.journal) as worker,
        files.progress(total=total, what=f"search by {search.search_kind}", unit="policy") as bar,
    ):
        bar.update(len(journal.finished(study)))  # by whomever
        while trial := journal.claim(study, material.journal, worker, total, functools.partial(ask, search)):
            on_trial(scorer.finish(study, trial))
            bar.update(len(journal.finished(study)) - bar.n)
    return write_results(search, study, material.folder)


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
    trial.set_user_attr(trials.POLICY, policy.plain())
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
        policy, started = policies.Policy.from_plain(trial.user_attrs[trials.POLICY]), time.perf_counter()
        number = trial.user_attrs[journal.SLOT]
        try:
            score = self.by_density if self.search.search_kind == "density" else self.by_training
            value, state = score(trial, number, policy), TrialState.COMPLETE
        except optuna.TrialPruned:
            value, state = None, TrialState.PRUNED
        trial.set_user_attr(trials.SECONDS, time.perf_counter() - started)
        told = study.tell(trial, value, state)
        shutil.rmtree(runs.folder_of(self.material.folder, run_name(number)), ignore_errors=True)
        return told

    def by_density(self, trial: optuna.Trial, number: int, policy: policies.Policy) -> float:
        """Mean log-likelihood of held-out photos' true classes under the policy, over the folds' networks."""
        self.judges = self.judges or judges(self.search, self.material)
        found = pd.DataFrame([judge.score(policy, self.search.density_views) for judge in self.judges])
        trial.set_user_attr(trials.MACRO_F1, float(found["macro_f1"].mean()))
        return float(found["log_likelihood"].mean())

    def by_training(self, trial: optuna.Trial, number: int, policy: policies.Policy) -> float:
        """Smoothed validation macro F1 of a network trained with the policy, from where a killed one was left.

        Raises TrialPruned at a rung that it falls behind at.
        """
        told: list[float] = []
        reported = dict(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)  # before a kill

        def tell(row: Mapping[str, float]) -> None:
            told.append(row["val_macro_f1"])
            if len(told) not in reported:
                trial.report(smoothed(told, self.search.smoothing_epochs), len(told))
            if self.falls_behind(trial.study, number, len(told)):
                raise optuna.TrialPruned

        fold, path = self.search.search_folds[0], self.material.folder / "policies" / f"{number}.json"
        policies.write(policy, path)
        run = self.search.network(run=run_name(number), folds=[fold], augmentation=files.shown_path(path))
        for row in epochs_done(runs.folder_of(self.material.folder, run.run) / f"fold{fold}"):
            tell(row)
        runs.train_run(run, self.material.splits, self.material.photos, self.material.folder, on_epoch=tell)
        trial.set_user_attr(trials.MACRO_F1, max(told))
        return smoothed(told, self.search.smoothing_epochs)

    def falls_behind(self, study: optuna.Study, place: int, epochs: int) -> bool:
        """Whether a training stops after so many epochs; that of no augmentation never does."""
        search = self.search
        if search.search_kind != "halving" or place == 0 or epochs >= search.network().epochs:
            return False
        if not halving.is_rung(epochs, search.halving_first_epochs, search.halving_factor):
            return False
        values = halving.reached(study.get_trials(deepcopy=False), epochs)
        return not halving.goes_on(place, values, search.halving_factor, search.merged_count)


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


def judges(search: Search, material: Material) -> list[density.Judge]:
    """The networks of the density search, one for each of its folds, trained if they are not."""
    run = search.network_for(search.density_epochs, run=PLAIN, folds=list(search.search_folds))
    return density.judges(run, material.splits, material.photos, material.folder)


def write_results(search: Search, study: optuna.Study, folder: Path) -> pd.DataFrame:
    """Write `trials.csv` and `best_policy.json`, the best policies merged; returns the trials.

    A best policy that a verdict has chosen among these very candidates stays.
    """
    found = trials.table(journal.finished(study))
    files.write_csv(found, folder / "trials.csv")
    merged = candidates(found, search.merged_count)["merged"]
    path = searched.best_path(folder.parent)
    judged = searched.read_verdict(folder.parent) if path.exists() else None
    if judged is None or searched.policy_digest(merged) not in judged["candidates"].values():
        policies.write(merged, path)
    return found


def candidates(found: pd.DataFrame, merged_count: int, alone: int = 1) -> dict[str, policies.Policy]:
    """What a search hands to the verdict, by name: its best policies `merged` into one, and some of them alone.

    alone: how many: `best`, `best 2` … Policies that do the same stand there once, under the first name.
    """
    first = trials.best(found, max(merged_count, alone))
    by_name = {"merged": policies.merged(first[:merged_count], "merged")}
    by_name |= {f"best {place}" if place > 1 else "best": policy for place, policy in enumerate(first[:alone], 1)}
    names = {searched.policy_digest(policy): name for name, policy in reversed(by_name.items())}
    return {name: policy for name, policy in by_name.items() if name in names.values()}


def some_rows(material: Material, count: int) -> np.ndarray:
    """(count,) rows of the store, spread evenly: photos to look at policies on."""
    return np.linspace(0, len(material.photos.images) - 1, count).astype(np.int64)
