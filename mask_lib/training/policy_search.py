"""How well networks that never saw a policy still recognise held-out people under it (Fast AutoAugment's density).

Lim et al. 2019: a policy is good if augmented photos still look like photos to a network trained without it.
That costs a forward pass a policy, where training with it costs tens of epochs. What it cannot see is
whether a policy teaches anything: doing next to nothing keeps every photo recognisable.

Search for an augmentation policy, in three ways behind one setting, resumable and shared by any number of processes.

`random` trains a network for each random policy (the seed's search). `halving` does too, but stops what falls behind
(successive halving, see `halving`). `density` trains a few networks once, without augmentation, and asks of each
policy how well they still recognise photos of people they have not seen under it (Fast AutoAugment, Lim et al. 2019);
where to look next is a tree of Parzen estimators' to say (Bergstra et al. 2011).

Place 0 of every search is no augmentation at all, the bar to clear. Only the folds `search_folds` are used, so that
the verdict can be reached on people that the search has not seen.

Is the policy that a search found worth using? Candidates against TrivialAugment and against none, over seeds.

A search always finds a policy that looks best, if only by luck. So it counts only if networks trained
with it beat those trained with TrivialAugment, which takes no search, on people of other folds.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from mask_lib.augment import apply
from mask_lib.augment.policy import PRESET_POLICIES, Policy, write_policy
from mask_lib.augment.search import (
    FALLBACK,
    MACRO_F1,
    POLICY,
    SECONDS,
    SLOT,
    Search,
    ask,
    best_path,
    claim,
    finished_trials,
    goes_on,
    is_rung,
    open_study,
    policy_digest,
    reached,
    standing_verdict,
    verdict_path,
    worker_name,
    write_results,
)
from mask_lib.base import config, files, scores
from mask_lib.data import store
from mask_lib.data.splits import VAL, fingerprint
from mask_lib.models import build, devices, predict
from mask_lib.models.checkpoint import read_checkpoint, read_manifest
from mask_lib.training import dataset, loop, run_folder, runs


@dataclasses.dataclass(frozen=True)
class DensityScorer:
    """A fold's network, trained without augmentation, and the validation photos of that fold."""

    fold: int
    network: nn.Module
    source: devices.DevicePhotos
    rows: np.ndarray  # of the store, one a validation photo
    labels: np.ndarray  # (N,) int64
    preprocessing: build.Preprocessing
    dtype: torch.dtype

    @torch.inference_mode()
    def score(self, policy: Policy, views: int = 1, seed: int = 0) -> dict[str, float]:
        """`log_likelihood`, the mean of the true classes', and `macro_f1` of every photo under `views` draws.

        Each photo draws from the same random numbers whatever the policy, so that luck cancels out
        between policies.
        """
        self.network.eval()
        found = [self._log_probabilities(policy, dataset.step_seed(seed, self.fold, 0, view)) for view in range(views)]
        log_probabilities, truth = np.concatenate(found), np.tile(self.labels, views)  # (views x N, 18), (views x N,)
        of_truth = log_probabilities[np.arange(len(truth)), truth]
        macro_f1 = scores.summarise(truth, log_probabilities.argmax(axis=1))["macro_f1"]
        return {"log_likelihood": float(of_truth.mean(dtype=np.float64)), "macro_f1": macro_f1}

    def _log_probabilities(self, policy: Policy, seed: int) -> np.ndarray:
        """(N, 18) float32 of the validation photos, augmented once."""
        generator, found = torch.Generator().manual_seed(seed), []
        for block in store.blocks(len(self.rows), predict.PREDICT_BATCH):
            photos = apply.augment(self.source.batch(self.rows[block]), policy, generator)
            with devices.autocast(self.source.device, self.dtype):
                logits = self.network(self.preprocessing.prepared(photos))
            found.append(logits.float().log_softmax(dim=1).cpu().numpy())
        return np.concatenate(found)


def judges(
    run: config.Run, splits: Mapping[int, pd.DataFrame], photos: store.Store, folder: Path
) -> list[DensityScorer]:
    """A judge for each of the run's folds; trained below `folder` if they are not, by one process at a time."""
    with FileLock(folder / f"{run.run}.lock"):
        result = runs.train_run(run, dict(splits), photos, folder, when_changed="restart")
    source = devices.DevicePhotos(photos, devices.pick_device())
    chosen = runs.chosen_folds(run, splits)
    return [read_judge(run, fold, splits[fold], source, result.folder) for fold in chosen]


def read_judge(
    run: config.Run, fold: int, split: pd.DataFrame, source: devices.DevicePhotos, folder: Path
) -> DensityScorer:
    """The judge of one fold of a run that is trained, with the weights that training chose."""
    checkpoint = folder / f"fold{fold}" / "checkpoint" / f"{loop.trained_choice(run)}.safetensors"
    found = predict.load_network(*read_checkpoint(checkpoint), source.device)
    val = split[split["split"] == VAL]
    return DensityScorer(
        fold,
        found.network,
        source,
        source.store.rows(list(val["path"])),
        val["label"].to_numpy(np.int64),
        found.preprocessing,
        found.dtype,
    )


PLAIN = "plain"  # names the run of the density search's networks


@dataclasses.dataclass(frozen=True)
class SearchData:
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
    material: SearchData,
    when_changed: config.WhenChanged = "refuse",
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> pd.DataFrame:
    """Search until `policy_count` policies and no augmentation are scored, from where it was left; the trials.

    Columns `search.TRIAL_COLUMNS`, also written to `trials.csv`; the best become `best_policy.json`. Several
    processes may call it at once: each returns when all is done. A finished search is only read.
    Raises ChangedSearchError if the folder holds one of other settings and `when_changed` is refuse.
    """
    chosen = runs.chosen_folds(search.network(folds=list(search.search_folds)), material.splits)
    weights = search.network().weights
    data = [fingerprint(material.photos.content, material.splits[fold], weights) for fold in chosen]
    study = open_study(material.journal, search.recorded(files.digest(data)), when_changed)
    total, scorer = search.policy_count + 1, Scorer(search, material)
    with (
        worker_name(material.journal) as worker,
        files.progress(total=total, what=f"search by {search.search_kind}", unit="policy") as bar,
    ):
        bar.update(len(finished_trials(study)))  # by whomever
        while trial := claim(study, material.journal, worker, total, functools.partial(ask, search)):
            on_trial(scorer.finish(study, trial))
            bar.update(len(finished_trials(study)) - bar.n)
    return write_results(search, study, material.folder)


class Scorer:
    """What gives a trial its value; networks that it needs are trained when the first trial comes."""

    def __init__(self, search: Search, material: SearchData):
        self.search, self.material = search, material
        self.judges: list[DensityScorer] = []

    def finish(self, study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
        """Score a trial's policy, tell the study, and return the trial as it stands there."""
        policy, started = Policy.from_plain(trial.user_attrs[POLICY]), time.perf_counter()
        number = trial.user_attrs[SLOT]
        try:
            score = self.by_density if self.search.search_kind == "density" else self.by_training
            value, state = score(trial, number, policy), TrialState.COMPLETE
        except optuna.TrialPruned:
            value, state = None, TrialState.PRUNED
        trial.set_user_attr(SECONDS, time.perf_counter() - started)
        told = study.tell(trial, value, state)
        shutil.rmtree(run_folder.folder_of(self.material.folder, run_name(number)), ignore_errors=True)
        return told

    def by_density(self, trial: optuna.Trial, number: int, policy: Policy) -> float:
        """Mean log-likelihood of held-out photos' true classes under the policy, over the folds' networks."""
        self.judges = self.judges or search_judges(self.search, self.material)
        found = pd.DataFrame([judge.score(policy, self.search.density_views) for judge in self.judges])
        trial.set_user_attr(MACRO_F1, float(found["macro_f1"].mean()))
        return float(found["log_likelihood"].mean())

    def by_training(self, trial: optuna.Trial, number: int, policy: Policy) -> float:
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
        write_policy(policy, path)
        run = self.search.network(run=run_name(number), folds=[fold], augmentation=files.shown_path(path))
        for row in epochs_done(run_folder.folder_of(self.material.folder, run.run) / f"fold{fold}"):
            tell(row)
        runs.train_run(run, self.material.splits, self.material.photos, self.material.folder, on_epoch=tell)
        trial.set_user_attr(MACRO_F1, max(told))
        return smoothed(told, self.search.smoothing_epochs)

    def falls_behind(self, study: optuna.Study, place: int, epochs: int) -> bool:
        """Whether a training stops after so many epochs; that of no augmentation never does."""
        search = self.search
        if search.search_kind != "halving" or place == 0 or epochs >= search.network().epochs:
            return False
        if not is_rung(epochs, search.halving_first_epochs, search.halving_factor):
            return False
        values = reached(study.get_trials(deepcopy=False), epochs)
        return not goes_on(place, values, search.halving_factor, search.merged_count)


def run_name(number: int) -> str:
    """The run that trains the policy of a place."""
    return f"policy{number}"


def smoothed(told: list[float], epochs: int) -> float:
    """The mean of the last so many epochs."""
    return float(np.mean(told[-epochs:]))


def epochs_done(folder: Path) -> list[dict[str, float]]:
    """The history of a fold's training up to its last checkpoint, which is where it would go on."""
    last = folder / "checkpoint" / "last.safetensors"
    return read_manifest(last)["place"]["history"] if last.exists() else []


def search_judges(search: Search, material: SearchData) -> list[DensityScorer]:
    """The networks of the density search, one for each of its folds, trained if they are not."""
    run = search.network_for(search.density_epochs, run=PLAIN, folds=list(search.search_folds))
    return judges(run, material.splits, material.photos, material.folder)


def some_rows(material: SearchData, count: int) -> np.ndarray:
    """(count,) rows of the store, spread evenly: photos to look at policies on."""
    return np.linspace(0, len(material.photos.images) - 1, count).astype(np.int64)


NONE = "none"
REFERENCES = (FALLBACK, NONE)
COLUMNS = ["seed", "fold", "path", "person", "label", "predicted"]
LEVEL = 0.95  # of the interval; shared out among candidates, the better of which is judged


@dataclasses.dataclass(frozen=True)
class Trained:
    """Predictions, columns `COLUMNS`, of networks trained with each augmentation, by its name."""

    predictions: dict[str, pd.DataFrame]

    def macro_f1(self) -> pd.DataFrame:
        """One row for each augmentation and seed: columns `augmentation`, `seed`, `macro_f1` over all folds."""
        rows = [
            {
                "augmentation": name,
                "seed": seed,
                "macro_f1": scores.summarise(part["label"], part["predicted"])["macro_f1"],
            }
            for name, table in self.predictions.items()
            for seed, part in table.groupby("seed")
        ]
        return pd.DataFrame(rows)

    def difference(self, candidate: str, reference: str, level: float = LEVEL) -> dict[str, float]:
        """How much better the candidate's macro F1 is: `difference`, `low`, `high`, `p`."""
        before, after = self.predictions[reference], self.predictions[candidate]
        return scores.paired_over_seeds(before, after, level=level).loc["macro_f1"].to_dict()


def reach(
    network: config.Run,
    candidates: Mapping[str, Policy],
    material: SearchData,
    verdict_folds: Sequence[int],
    seed_count: int = 3,
) -> dict[str, Any]:
    """Train what is not trained yet, write `verdict.json` and the better candidate as `best_policy.json`.

    network: what is trained, on each of the folds with each seed, but for its augmentation. Returns what
    the file holds: `policy` (digest), `candidate`, `candidates`, `beats_trivialaugment`, `seeds`, `folds`,
    `differences` (candidate and reference -> difference, low, high, p), `macro_f1`, `sentence`, `epochs` and
    `seconds` (of all its trainings). Raises ValueError for a fold without a split, for no folds and for no seeds.
    """
    if not verdict_folds or seed_count < 1:
        raise ValueError(f"verdict_folds = {list(verdict_folds)}, seed_count = {seed_count}: a verdict needs both")
    network = network.replace(folds=tuple(verdict_folds))
    runs.chosen_folds(network, material.splits)
    contenders = {name: PRESET_POLICIES[name] for name in REFERENCES} | dict(candidates)
    trained = Trained({name: over_seeds(network, policy, material, seed_count) for name, policy in contenders.items()})
    found = judged(trained, candidates) | {"seeds": seed_count, "folds": list(verdict_folds)}
    found |= spent(network, contenders.values(), material, seed_count)
    output_dir = material.folder.parent
    # The policy comes first: until its verdict is there, TrivialAugment is the choice.
    write_policy(candidates[found["candidate"]], best_path(output_dir))
    files.write_json(found, verdict_path(output_dir))
    return found


def judged(trained: Trained, candidates: Mapping[str, Policy]) -> dict[str, Any]:
    """The verdict on what was trained, as `reach` returns it."""
    by_seed = trained.macro_f1()
    mean = by_seed.groupby("augmentation")["macro_f1"].mean()
    winner = max(candidates, key=lambda name: mean[name])
    level = 1 - (1 - LEVEL) / len(candidates)  # the better of two looks good by luck twice as often
    pairs = [(name, reference) for name in candidates for reference in REFERENCES]
    differences = {f"{name} - {reference}": trained.difference(name, reference, level) for name, reference in pairs}
    found = {
        "policy": policy_digest(candidates[winner]),
        "candidate": winner,
        "candidates": {name: policy_digest(policy) for name, policy in candidates.items()},
        "beats_trivialaugment": differences[f"{winner} - {FALLBACK}"]["low"] > 0,
        "level": level,
        "differences": differences,
        "macro_f1": {name: list(part["macro_f1"]) for name, part in by_seed.groupby("augmentation")},
    }
    return found | {"sentence": verdict_summary(found)}


def verdict_summary(found: Mapping[str, Any]) -> str:
    """Whether searching paid, in one or two sentences."""
    trivial, none = (found["differences"][f"{found['candidate']} - {reference}"] for reference in REFERENCES)
    said = [f"{one['difference']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for one in (trivial, none)]
    start = (
        f"The policy “{found['candidate']}” scores {said[0]} macro F1 against TrivialAugment and {said[1]} against none"
    )
    mean = {name: sum(by_seed) / len(by_seed) for name, by_seed in found["macro_f1"].items()}
    if max(mean, key=mean.get) == NONE:
        start += ", which scores highest here, as it may where training is short"
    if found["beats_trivialaugment"]:
        return f"{start}. It beats TrivialAugment: train with it."
    lost = "it is worse than TrivialAugment" if trivial["high"] < 0 else "that may be chance"
    return f"{start}; {lost}. Searching did not pay here: train with TrivialAugment."


def spent(network: config.Run, contenders: Iterable[Policy], material: SearchData, seed_count: int) -> dict[str, float]:
    """What the trainings of a verdict took in all: `epochs`, and `seconds` of them."""
    histories = [
        pd.read_csv(kept(network.replace(seed=seed), policy, material)[1])
        for policy in contenders
        for seed in range(seed_count)
    ]
    return {"epochs": sum(map(len, histories)), "seconds": float(sum(one["seconds"].sum() for one in histories))}


def cost(found: pd.DataFrame, judged: Mapping[str, Any], epochs: int) -> pd.DataFrame:
    """What a search took, its verdict, and both: index search, verdict, both; columns seconds, share.

    found: the trials. epochs: of a training in a search that trains with every policy, as the seed's does;
    share: of what that would take here, by the seconds that an epoch took in the verdict.
    """
    a_training = epochs * judged["seconds"] / judged["epochs"]
    seconds = {"search": found["seconds"].sum(), "verdict": judged["seconds"]}
    seconds["both"] = sum(seconds.values())
    table = pd.DataFrame({"seconds": seconds})
    return table.assign(share=table["seconds"] / (len(found) * a_training))


def cost_in_words(found: pd.DataFrame, judged: Mapping[str, Any] | None, epochs: int) -> str:
    """The same as a sentence; without a verdict, or with one that did not note its cost, the search's seconds alone."""
    if judged is None or "seconds" not in judged:
        return f"The search took {found['seconds'].sum():,.0f} seconds."
    said = {name: f"{row.seconds:,.0f} s ({row.share:.3f})" for name, row in cost(found, judged, epochs).iterrows()}
    return (
        f"The search took {said['search']}, the verdict {said['verdict']}, both {said['both']}; in brackets the share "
        f"of a search that trains with each of the {len(found)} policies."
    )


def answer(output_dir: Path, search_folds: Sequence[int]) -> str:
    """Whether searching paid, from the verdict on the policy that lies there now, if there is one."""
    found = standing_verdict(output_dir)
    if found is None:
        return "There is no verdict on this policy: train with TrivialAugment."
    return found["sentence"] + caution(search_folds, found.get("folds", []))


def caution(search_folds: Sequence[int], verdict_folds: Sequence[int]) -> str:
    """What a reader must know if the verdict was reached on people that the search chose by; else nothing."""
    shared = sorted(set(search_folds) & set(verdict_folds))
    if not shared:
        return ""
    return f" Beware: fold {shared[0]} served the search as well, which flatters the policy it chose."


def over_seeds(network: config.Run, policy: Policy, material: SearchData, seed_count: int) -> pd.DataFrame:
    """Columns `COLUMNS`: the predictions of networks trained with a policy and the seeds 0 … seed_count-1."""
    return pd.concat(
        [predictions(network.replace(seed=seed), policy, material) for seed in range(seed_count)],
        ignore_index=True,
    )


def predictions(network: config.Run, policy: Policy, material: SearchData) -> pd.DataFrame:
    """The same for one seed, trained if it is not; kept as a table beside its history, while the checkpoints go.

    One process trains at a time, and those that waited read what it left.
    """
    paths, name = kept(network, policy, material), training_name(network, policy, material)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths[0].parent / "lock"):
        if not all(path.exists() for path in paths):
            for table, path in zip(trained(network, policy, material, name), paths, strict=True):
                files.write_csv(table, path)
    shutil.rmtree(run_folder.folder_of(material.folder, name), ignore_errors=True)
    return pd.read_csv(paths[0], dtype={"path": str, "person": str}, keep_default_na=False)


def kept(network: config.Run, policy: Policy, material: SearchData) -> tuple[Path, Path]:
    """Where a training's predictions lie, and its history."""
    start = material.folder / "verdict" / training_name(network, policy, material)
    return start.with_name(f"{start.name}.csv"), start.with_name(f"{start.name}.history.csv")


def training_name(network: config.Run, policy: Policy, material: SearchData) -> str:
    """A name that only an equal training has: of the same photos and labels, settings and policy."""
    data = [fingerprint(material.photos.content, material.splits[fold], network.weights) for fold in network.folds]
    settings = {**network.settings(), "run": "", "augmentation": policy_digest(policy)}
    return f"seed{network.seed}-{files.digest([settings, data])}"


def trained(network: config.Run, policy: Policy, material: SearchData, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns `COLUMNS`, after training, and its history."""
    path = write_policy(policy, material.folder / "policies" / f"{name}.json")
    run = network.replace(run=name, augmentation=files.shown_path(path))
    result = runs.train_run(run, material.splits, material.photos, material.folder)
    truth, predicted = result.truth_and_prediction()
    fold_of = {path: fold for fold in run.folds for path in validated(material.splits[fold])}
    keys = result.out_of_fold[["path", "person"]]
    fold = keys["path"].map(fold_of)
    return keys.assign(seed=run.seed, fold=fold, label=truth, predicted=predicted)[COLUMNS], result.history


def validated(split: pd.DataFrame) -> list[str]:
    """Paths of a fold's validation photos."""
    return list(split.loc[split["split"] == VAL, "path"])
