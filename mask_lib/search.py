"""Search for an augmentation policy, in three ways behind one setting, resumable and shared by any number of processes.

`random` trains a network for each random policy (the seed's search). `halving` does too, but stops what falls behind
(successive halving, Li et al. 2020). `density` trains a few networks once, without augmentation, and asks of each
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
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mask_lib import config, density, files, folds, journal, models, policies, runs, store, trials
from mask_lib.search_settings import Search

FOLDER = "search"
PLAIN = "plain"  # names the run of the density search's networks
RANDOM_FIRST = 10  # policies that the density search draws blindly before it learns from them
FALLBACK = "trivialaugment"


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

    Columns `trials.COLUMNS`, also written to `trials.csv`; the best become `best_policy.json`. Several
    processes may call it at once: each returns when all is done. A finished search is only read.
    Raises ChangedSearchError if the folder holds one of other settings and `when_changed` is refuse.
    """
    chosen = runs.chosen_folds(search.network(folds=list(search.search_folds)), material.splits)
    weights = search.network().weights
    data = [folds.fingerprint(material.photos.content, material.splits[fold], weights) for fold in chosen]
    study = journal.open_study(material.journal, search.recorded(files.digest(data)), _pruner(search), when_changed)
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

        Raises TrialPruned once the pruner wants it to stop.
        """
        told: list[float] = []
        reported = dict(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)  # before a kill

        def tell(row: Mapping[str, float]) -> None:
            told.append(row["val_macro_f1"])
            if len(told) not in reported:
                trial.report(smoothed(told, self.search.smoothing_epochs), len(told))
            if trial.should_prune():
                raise optuna.TrialPruned

        fold, path = self.search.search_folds[0], self.material.folder / "policies" / f"{number}.json"
        policies.write(policy, path)
        run = self.search.network(run=run_name(number), folds=[fold], augmentation=files.shown_path(path))
        for row in epochs_done(runs.folder_of(self.material.folder, run.run) / f"fold{fold}"):
            tell(row)
        runs.train_run(run, self.material.splits, self.material.photos, self.material.folder, on_epoch=tell)
        trial.set_user_attr(trials.MACRO_F1, max(told))
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


def judges(search: Search, material: Material) -> list[density.Judge]:
    """The networks of the density search, one for each of its folds, trained if they are not."""
    epochs = search.density_epochs or search.network().epochs
    run = search.network(run=PLAIN, folds=list(search.search_folds), epochs=epochs)
    return density.judges(run, material.splits, material.photos, material.folder)


def write_results(search: Search, study: optuna.Study, folder: Path) -> pd.DataFrame:
    """Write `trials.csv` and `best_policy.json`, the best policies merged; returns the trials.

    A best policy that a verdict has chosen among these very candidates stays.
    """
    found = trials.table(journal.finished(study))
    files.write_csv(found, folder / "trials.csv")
    merged = candidates(found, search.merged_count)["merged"]
    path = best_path(folder.parent)
    judged = read_verdict(folder.parent) if path.exists() else None
    if judged is None or policy_digest(merged) not in judged["candidates"].values():
        policies.write(merged, path)
    return found


def candidates(found: pd.DataFrame, merged_count: int) -> dict[str, policies.Policy]:
    """What a search hands to the verdict, by name: its best policies `merged` into one, and the `best` alone."""
    first = trials.best(found, merged_count)
    return {"merged": policies.merged(first, "merged"), "best": first[0]}


def some_rows(material: Material, count: int) -> np.ndarray:
    """(count,) rows of the store, spread evenly: photos to look at policies on."""
    return np.linspace(0, len(material.photos.images) - 1, count).astype(np.int64)


def policy_digest(policy: policies.Policy) -> str:
    """The same for policies that do the same, whatever their names."""
    return files.digest(policy.plain()["sub_policies"])


def best_path(output_dir: Path) -> Path:
    """Where the policy lies that a search found."""
    return Path(output_dir) / FOLDER / "best_policy.json"


def verdict_path(output_dir: Path) -> Path:
    """Where it lies whether that policy is worth using."""
    return Path(output_dir) / FOLDER / "verdict.json"


def read_verdict(output_dir: Path) -> dict[str, Any] | None:
    """What `verdict.reach` wrote, None if nothing. Raises ValueError that names a file that is no verdict."""
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


def chosen_augmentation(output_dir: Path) -> str:
    """What a run should be trained with: the best policy's path if it beat TrivialAugment, else `trivialaugment`.

    Also `trivialaugment` where there was no search, no verdict, or one on another policy. Raises
    ValueError that names a file that is no policy or no verdict.
    """
    path = best_path(output_dir)
    if not path.exists():
        return FALLBACK
    policy, found = policies.read(path), read_verdict(output_dir)
    won = found is not None and found["beats_trivialaugment"] and found["policy"] == policy_digest(policy)
    return files.shown_path(path) if won else FALLBACK
