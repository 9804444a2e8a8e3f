"""Is the policy that a search found worth using? Candidates against TrivialAugment and against none, over seeds.

A search always finds a policy that looks best, if only by luck. So it counts only if networks trained
with it beat those trained with TrivialAugment, which takes no search, on people of other folds.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from filelock import FileLock

from mask_lib import config, files, folds, policies, runs, scores, search

NONE = "none"
REFERENCES = (search.FALLBACK, NONE)
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
    candidates: Mapping[str, policies.Policy],
    material: search.Material,
    verdict_folds: Sequence[int],
    seed_count: int = 3,
) -> dict[str, Any]:
    """Train what is not trained yet, write `verdict.json` and the better candidate as `best_policy.json`.

    network: what is trained, on each of the folds with each seed, but for its augmentation. Returns what
    the file holds: `policy` (digest), `candidate`, `candidates`, `beats_trivialaugment`, `seeds`, `folds`,
    `differences` (candidate and reference -> difference, low, high, p), `macro_f1`, `sentence`. Raises
    ValueError for a fold without a split, for no folds and for no seeds.
    """
    if not verdict_folds or seed_count < 1:
        raise ValueError(f"verdict_folds = {list(verdict_folds)}, seed_count = {seed_count}: a verdict needs both")
    network = dataclasses.replace(network, folds=tuple(verdict_folds))
    runs.chosen_folds(network, material.splits)
    contenders = {name: policies.PRESETS[name] for name in REFERENCES} | dict(candidates)
    trained = Trained({name: over_seeds(network, policy, material, seed_count) for name, policy in contenders.items()})
    found = judged(trained, candidates) | {"seeds": seed_count, "folds": list(verdict_folds)}
    output_dir = material.folder.parent
    # The policy comes first: until its verdict is there, TrivialAugment is the choice.
    policies.write(candidates[found["candidate"]], search.best_path(output_dir))
    files.write_json(found, search.verdict_path(output_dir))
    return found


def judged(trained: Trained, candidates: Mapping[str, policies.Policy]) -> dict[str, Any]:
    """The verdict on what was trained, as `reach` returns it."""
    by_seed = trained.macro_f1()
    mean = by_seed.groupby("augmentation")["macro_f1"].mean()
    winner = max(candidates, key=lambda name: mean[name])
    level = 1 - (1 - LEVEL) / len(candidates)  # the better of two looks good by luck twice as often
    pairs = [(name, reference) for name in candidates for reference in REFERENCES]
    differences = {f"{name} - {reference}": trained.difference(name, reference, level) for name, reference in pairs}
    found = {
        "policy": search.policy_digest(candidates[winner]),
        "candidate": winner,
        "candidates": {name: search.policy_digest(policy) for name, policy in candidates.items()},
        "beats_trivialaugment": differences[f"{winner} - {search.FALLBACK}"]["low"] > 0,
        "level": level,
        "differences": differences,
        "macro_f1": {name: list(part["macro_f1"]) for name, part in by_seed.groupby("augmentation")},
    }
    return found | {"sentence": in_words(found)}


def in_words(found: Mapping[str, Any]) -> str:
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


def caution(search_folds: Sequence[int], verdict_folds: Sequence[int]) -> str:
    """What a reader must know if the verdict was reached on people that the search chose by; else nothing."""
    shared = sorted(set(search_folds) & set(verdict_folds))
    if not shared:
        return ""
    return f" Beware: fold {shared[0]} served the search as well, which flatters the policy it chose."


def over_seeds(
    network: config.Run, policy: policies.Policy, material: search.Material, seed_count: int
) -> pd.DataFrame:
    """Columns `COLUMNS`: the predictions of networks trained with a policy and the seeds 0 … seed_count-1."""
    return pd.concat(
        [predictions(dataclasses.replace(network, seed=seed), policy, material) for seed in range(seed_count)],
        ignore_index=True,
    )


def predictions(network: config.Run, policy: policies.Policy, material: search.Material) -> pd.DataFrame:
    """The same for one seed, trained if it is not; kept as a table, while the checkpoints go.

    One process trains at a time, and those that waited read what it left.
    """
    name = training_name(network, policy, material)
    path = material.folder / "verdict" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / "lock"):
        if not path.exists():
            files.write_csv(trained(network, policy, material, name), path)
    shutil.rmtree(runs.folder_of(material.folder, name), ignore_errors=True)
    return pd.read_csv(path, dtype={"path": str, "person": str}, keep_default_na=False)


def training_name(network: config.Run, policy: policies.Policy, material: search.Material) -> str:
    """A name that only an equal training has: of the same photos and labels, settings and policy."""
    data = [
        folds.fingerprint(material.photos.content, material.splits[fold], network.weights) for fold in network.folds
    ]
    settings = {**network.settings(), "run": "", "augmentation": search.policy_digest(policy)}
    return f"seed{network.seed}-{files.digest([settings, data])}"


def trained(network: config.Run, policy: policies.Policy, material: search.Material, name: str) -> pd.DataFrame:
    """Columns `COLUMNS`, after training."""
    path = policies.write(policy, material.folder / "policies" / f"{name}.json")
    run = dataclasses.replace(network, run=name, augmentation=files.shown_path(path))
    result = runs.train_run(run, material.splits, material.photos, material.folder)
    truth, predicted = result.truth_and_prediction()
    fold_of = {path: fold for fold in run.folds for path in validated(material.splits[fold])}
    keys = result.out_of_fold[["path", "person"]]
    fold = keys["path"].map(fold_of)
    return keys.assign(seed=run.seed, fold=fold, label=truth, predicted=predicted)[COLUMNS]


def validated(split: pd.DataFrame) -> list[str]:
    """Paths of a fold's validation photos."""
    return list(split.loc[split["split"] == folds.VAL, "path"])
