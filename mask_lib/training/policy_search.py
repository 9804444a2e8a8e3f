"""Search for an augmentation policy in three ways behind one setting, and a verdict on what it found.

`random` trains a network with each policy, `halving` (asynchronous, Li et al. 2020) stops early what falls behind,
`density` (Fast AutoAugment, Lim et al. 2019) asks networks trained without how well they recognise held-out people
under each: a forward pass, blind to whether a policy teaches anything. The best may look so by luck alone: it counts
only if networks trained with it, over several seeds, beat TrivialAugment's on people of other folds.
"""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import torch

from mask_lib.augment import apply, search
from mask_lib.augment.policy import PRESET_POLICIES, Policy, write_policy
from mask_lib.augment.search import FALLBACK, Search
from mask_lib.base import config, files, scores
from mask_lib.data import store
from mask_lib.data.splits import VAL, fingerprint
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import dataset, run_folder, runs

PLAIN = "plain"  # names the run of the density search's networks
NONE = "none"
REFERENCES = (FALLBACK, NONE)
KINDS = dict.fromkeys(("seed", "fold", "label", "predicted"), "int64") | {"seconds": "float64"}
COLUMNS = ["seed", "fold", "path", "person", "label", "predicted", "seconds"]
LEVEL = 0.95  # of the interval; shared out among candidates, the better of which is judged


class SearchData(NamedTuple):
    """What a search works on: the small split's tables by fold, their photos, and its own folder."""

    splits: dict[int, pd.DataFrame]
    photos: store.Store
    folder: Path  # output_dir / search.FOLDER

    def digest(self, network: config.Run) -> str:
        """Of the photos, labels and split of a run's folds, and of its first weights from a file."""
        folds = runs.chosen_folds(network, self.splits)
        return files.digest([fingerprint(self.photos.content, self.splits[fold], network.weights) for fold in folds])


class DensityScorer(NamedTuple):
    """A fold's network, trained without augmentation, and the validation photos of that fold."""

    fold: int
    loaded: predict.Loaded
    source: devices.DevicePhotos
    rows: np.ndarray  # of the store, one a validation photo
    labels: np.ndarray  # (N,) int64

    @torch.inference_mode()
    def score(self, policy: Policy, views: int = 1) -> dict[str, float]:
        """`log_likelihood`, the mean of the true classes', and `macro_f1` of every photo under `views` draws, from the
        same random numbers whatever the policy, so that luck cancels out between policies.
        """
        self.loaded.network.eval()
        found = []
        for view in range(views):
            generator = torch.Generator().manual_seed(dataset.step_seed(0, self.fold, 0, view))
            for start in range(0, len(self.rows), predict.PREDICT_BATCH):
                rows = self.rows[start : start + predict.PREDICT_BATCH]
                photos = apply.augment(self.source.batch(rows), policy, generator)
                with devices.autocast(self.source.device, self.loaded.dtype):
                    logits = self.loaded.network(self.loaded.preprocessing.prepared(photos))
                found.append(logits.float().log_softmax(dim=1).cpu().numpy())
        log_probabilities, truth = np.concatenate(found), np.tile(self.labels, views)
        of_truth = log_probabilities[np.arange(len(truth)), truth]
        macro_f1 = scores.summarise(truth, log_probabilities.argmax(axis=1))["macro_f1"]
        return {"log_likelihood": float(of_truth.mean(dtype=np.float64)), "macro_f1": macro_f1}


def density_scorers(run: config.Run, data: SearchData) -> list[DensityScorer]:
    """One for each of the run's folds, with the weights that training chose; one process trains what is not trained."""
    with files.lock(data.folder / f"{run.run}.lock"):
        result = runs.train_run(run, *data, when_changed="restart")
    source, found = devices.DevicePhotos(data.photos, devices.pick_device()), []
    for fold in runs.chosen_folds(run, data.splits):
        checkpoint = result.folder / f"fold{fold}" / "checkpoint" / f"{run_folder.trained_weights(run)}.safetensors"
        loaded = predict.load_network(*read_checkpoint(checkpoint), source.device)
        val = data.splits[fold][data.splits[fold]["split"] == VAL]
        rows = data.photos.rows(list(val["path"]))
        found.append(DensityScorer(fold, loaded, source, rows, val["label"].to_numpy(np.int64)))
    return found


def run_search(settings: Search, data: SearchData, when_changed: str = "refuse") -> pd.DataFrame:
    """Search until `policy_count` policies and no augmentation are scored, from where it was left; the trials.

    Columns `search.TRIAL_COLUMNS`, also in `trials.csv`; the best, merged, become `best_policy.json`. Several processes
    may call it at once and return when all is done. ChangedSettingsError for other settings, if `when_changed: refuse`.
    """
    digest = data.digest(settings.network(folds=list(settings.search_folds)))
    study, scorer = search.open_study(settings, data.folder, digest, when_changed), TrialScorer(settings, data)
    what = f"search by {settings.search_kind}"
    with files.progress(total=settings.policy_count + 1, what=what, unit="policy") as bar:
        while search.wait_for_trial(study):
            study.optimize(scorer, n_trials=1, catch=search.NotWantedError)
            bar.update(len(search.trials_table(study)) - bar.n)  # by whomever
    trials = search.trials_table(study)
    files.write_csv(trials, data.folder / "trials.csv")
    merged, verdict = candidates(trials, settings.merged_count)["merged"], search.read_verdict(data.folder.parent)
    # A best policy that a verdict has chosen among these very candidates stays.
    if verdict is None or search.policy_digest(merged) not in verdict["candidates"].values():
        write_policy(merged, search.best_path(data.folder.parent))
    return trials


@dataclasses.dataclass
class TrialScorer:
    """The study's objective; networks that it needs are trained when the first trial comes."""

    settings: Search
    data: SearchData

    @functools.cached_property
    def densities(self) -> list[DensityScorer]:
        """A scorer for each fold of the density search."""
        run = self.settings.network(self.settings.density_epochs, run=PLAIN, folds=list(self.settings.search_folds))
        return density_scorers(run, self.data)

    def __call__(self, trial: optuna.Trial) -> float:
        """The value of a trial. Raises TrialPruned where halving stops it."""
        policy = search.start_trial(self.settings, trial)
        score = self.by_density if self.settings.search_kind == "density" else self.by_training
        value, macro_f1 = score(trial, policy)
        trial.set_user_attr(search.MACRO_F1, macro_f1)
        return value

    def by_density(self, trial: optuna.Trial, policy: Policy) -> tuple[float, float]:
        """Means over the folds' networks: log-likelihood of held-out photos' true classes, and macro F1."""
        found = pd.DataFrame([scorer.score(policy, self.settings.density_views) for scorer in self.densities]).mean()
        return float(found["log_likelihood"]), float(found["macro_f1"])

    def by_training(self, trial: optuna.Trial, policy: Policy) -> tuple[float, float]:
        """Of a network trained with the policy: mean validation macro F1 of its last epochs, and its best."""
        history, smoothed = [], []

        def report(row: Mapping[str, float]) -> None:
            history.append(row["val_macro_f1"])
            smoothed.append(float(np.mean(history[-self.settings.smoothing_epochs :])))
            trial.report(smoothed[-1], len(history))
            halves = self.settings.search_kind == "halving" and trial.user_attrs[search.PLACE] > 0
            if halves and len(history) < run.epochs and trial.should_prune():
                raise optuna.TrialPruned

        # The trial's number, not its place: whoever was thought dead may still write into its own folder.
        name, fold = f"policy{trial.number}", self.settings.search_folds[0]
        path = write_policy(policy, self.data.folder / "policies" / f"{trial.user_attrs[search.PLACE]}.json")
        run = self.settings.network(run=name, folds=[fold], augmentation=files.shown_path(path))
        folder = run_folder.folder_of(self.data.folder, name)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            runs.train_run(run, *self.data, on_epoch=report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return smoothed[-1], max(history)


def candidates(trials: pd.DataFrame, merged_count: int, alone: int = 1) -> dict[str, Policy]:
    """What a search hands to the verdict, by name: its best policies `merged` into one, and `alone` of them: `best`,
    `best 2` … Policies that do the same stand there once, under the first name.
    """
    first = search.best_policies(trials, max(merged_count, alone))
    merged = [sub_policy for policy in first[:merged_count] for sub_policy in policy.sub_policies]
    by_name = {"merged": Policy("merged", tuple(merged))}
    by_name |= {f"best {place}" if place > 1 else "best": policy for place, policy in enumerate(first[:alone], 1)}
    names = {search.policy_digest(policy): name for name, policy in reversed(by_name.items())}
    return {name: policy for name, policy in by_name.items() if name in names.values()}


def reach_verdict(
    network: config.Run, contenders: Mapping[str, Policy], data: SearchData, folds: Sequence[int], seed_count: int
) -> dict[str, Any]:
    """Train what is not trained yet, write `verdict.json` and the best of the contenders as `best_policy.json`.

    network: what is trained, on each fold with each seed, but for its augmentation. Returns what the file holds: that
    of `judged`, `seeds`, `folds`, `seconds`. Raises ValueError for a fold without a split, no folds and no seeds.
    """
    if not folds or seed_count < 1:
        raise ValueError(f"verdict_folds = {list(folds)}, seed_count = {seed_count}: a verdict needs both")
    network = network.replace(folds=tuple(folds))
    runs.chosen_folds(network, data.splits)
    policies = {name: PRESET_POLICIES[name] for name in REFERENCES} | dict(contenders)
    predictions = {
        name: pd.concat([predicted(network.replace(seed=seed), policy, data) for seed in range(seed_count)])
        for name, policy in policies.items()
    }
    seconds = sum(table.groupby("seed")["seconds"].first().sum() for table in predictions.values())
    found = judged(predictions, contenders) | {"seeds": seed_count, "folds": list(folds), "seconds": seconds}
    # The policy comes first: until its verdict is there, TrivialAugment is the choice.
    write_policy(contenders[found["candidate"]], search.best_path(data.folder.parent))
    files.write_json(found, search.verdict_path(data.folder.parent))
    return found


def judged(predictions: Mapping[str, pd.DataFrame], contenders: Mapping[str, Policy]) -> dict[str, Any]:
    """The verdict on predictions, columns `COLUMNS`, by name of the contender or reference that was trained with; its
    `differences`: candidate - reference -> difference, low, high, p; `macro_f1`: of each seed.
    """
    macro_f1 = {
        name: [scores.summarise(part["label"], part["predicted"])["macro_f1"] for _, part in table.groupby("seed")]
        for name, table in predictions.items()
    }
    winner = max(contenders, key=lambda name: np.mean(macro_f1[name]))
    level = 1 - (1 - LEVEL) / len(contenders)  # the better of two looks good by luck twice as often
    differences = {}
    for name, reference in itertools.product(contenders, REFERENCES):
        compared = scores.paired_over_seeds(predictions[reference], predictions[name], level=level)
        differences[f"{name} - {reference}"] = compared.loc["macro_f1"].to_dict()
    found = {
        "policy": search.policy_digest(contenders[winner]),
        "candidate": winner,
        "candidates": {name: search.policy_digest(policy) for name, policy in contenders.items()},
        "beats_trivialaugment": differences[f"{winner} - {FALLBACK}"]["low"] > 0,
        "level": level,
        "differences": differences,
        "macro_f1": macro_f1,
    }
    return found | {"sentence": verdict_summary(found)}


def verdict_summary(found: Mapping[str, Any]) -> str:
    """Whether searching paid, in one or two sentences."""
    trivial, none = (found["differences"][f"{found['candidate']} - {reference}"] for reference in REFERENCES)
    said = [f"{one['difference']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for one in (trivial, none)]
    start = f"The policy “{found['candidate']}” scores {said[0]} macro F1 against TrivialAugment"
    start += f" and {said[1]} against none"
    if max(found["macro_f1"], key=lambda name: np.mean(found["macro_f1"][name])) == NONE:
        start += ", which scores highest here, as it may where training is short"
    if found["beats_trivialaugment"]:
        return f"{start}. It beats TrivialAugment: train with it."
    lost = "it is worse than TrivialAugment" if trivial["high"] < 0 else "that may be chance"
    return f"{start}; {lost}. Searching did not pay here: train with TrivialAugment."


def answer_summary(output_dir: Path, trials: pd.DataFrame, search_folds: Sequence[int]) -> str:
    """Whether searching paid, from the verdict on the policy that lies there now, if there is one, and its price."""
    found, seconds = search.read_verdict(output_dir), trials["seconds"].sum()
    if found is None:
        return f"There is no verdict on this policy: train with TrivialAugment. The search took {seconds:,.0f} seconds."
    beware = ""
    if shared := set(search_folds) & set(found.get("folds", [])):
        beware = f" Beware: fold {min(shared)} served the search as well, which flatters the policy it chose."
    seconds += found.get("seconds", 0)
    return f"{found['sentence']}{beware} Search and verdict took {seconds:,.0f} seconds."


def predicted(network: config.Run, policy: Policy, data: SearchData) -> pd.DataFrame:
    """Columns `COLUMNS`: what a network trained with a policy predicts, and the seconds that its training took. Trained
    if it is not, by one process at a time; what is kept is the table, not the checkpoints.
    """
    name = training_name(network, policy, data)
    path = data.folder / "verdict" / f"{name}.csv"
    with files.lock(path.parent / "lock"):
        if not path.exists():
            policy_path = write_policy(policy, data.folder / "policies" / f"{name}.json")
            run = network.replace(run=name, augmentation=files.shown_path(policy_path))
            result = runs.train_run(run, *data)
            truth, prediction = result.truth_and_prediction()
            told = {"seed": run.seed, "label": truth, "predicted": prediction}
            table = result.out_of_fold.assign(**told, seconds=result.history["seconds"].sum())
            files.write_csv(table[COLUMNS], path)
    shutil.rmtree(run_folder.folder_of(data.folder, name), ignore_errors=True)
    return files.read_csv(path, KINDS)[COLUMNS]


def training_name(network: config.Run, policy: Policy, data: SearchData) -> str:
    """A name that only an equal training has: of the same photos and labels, settings and policy."""
    settings = {**network.settings(), "run": "", "augmentation": search.policy_digest(policy)}
    return f"seed{network.seed}-{files.digest([settings, data.digest(network)])}"
