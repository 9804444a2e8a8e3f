"""Is the policy that a search found worth using? Candidates against TrivialAugment and against none, over seeds.

A search always finds a policy that looks best, if only by luck. So it counts only if networks trained
with it beat those trained with TrivialAugment, which takes no search, on people of other folds.
"""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from mask_lib import config, files, folds, policies, runs, scores, search, searched

NONE = "none"
REFERENCES = (searched.FALLBACK, NONE)
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
    `differences` (candidate and reference -> difference, low, high, p), `macro_f1`, `sentence`, `epochs` and
    `seconds` (of all its trainings). Raises ValueError for a fold without a split, for no folds and for no seeds.
    """
    if not verdict_folds or seed_count < 1:
        raise ValueError(f"verdict_folds = {list(verdict_folds)}, seed_count = {seed_count}: a verdict needs both")
    network = dataclasses.replace(network, folds=tuple(verdict_folds))
    runs.chosen_folds(network, material.splits)
    contenders = {name: policies.PRESETS[name] for name in REFERENCES} | dict(candidates)
    trained = Trained({name: over_seeds(network, policy, material, seed_count) for name, policy in contenders.items()})
    found = judged(trained, candidates) | {"seeds": seed_count, "folds": list(verdict_folds)}
    found |= spent(network, contenders.values(), material, seed_count)
    output_dir = material.folder.parent
    # The policy comes first: until its verdict is there, TrivialAugment is the choice.
    policies.write(candidates[found["candidate"]], searched.best_path(output_dir))
    files.write_json(found, searched.verdict_path(output_dir))
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
        "policy": searched.policy_digest(candidates[winner]),
        "candidate": winner,
        "candidates": {name: searched.policy_digest(policy) for name, policy in candidates.items()},
        "beats_trivialaugment": differences[f"{winner} - {searched.FALLBACK}"]["low"] > 0,
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


def spent(
    network: config.Run, contenders: Iterable[policies.Policy], material: search.Material, seed_count: int
) -> dict[str, float]:
    """What the trainings of a verdict took in all: `epochs`, and `seconds` of them."""
    histories = [
        pd.read_csv(kept(dataclasses.replace(network, seed=seed), policy, material)[1])
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
    found = searched.standing_verdict(output_dir)
    if found is None:
        return "There is no verdict on this policy: train with TrivialAugment."
    return found["sentence"] + caution(search_folds, found.get("folds", []))


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
    """The same for one seed, trained if it is not; kept as a table beside its history, while the checkpoints go.

    One process trains at a time, and those that waited read what it left.
    """
    paths, name = kept(network, policy, material), training_name(network, policy, material)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths[0].parent / "lock"):
        if not all(path.exists() for path in paths):
            for table, path in zip(trained(network, policy, material, name), paths, strict=True):
                files.write_csv(table, path)
    shutil.rmtree(runs.folder_of(material.folder, name), ignore_errors=True)
    return pd.read_csv(paths[0], dtype={"path": str, "person": str}, keep_default_na=False)


def kept(network: config.Run, policy: policies.Policy, material: search.Material) -> tuple[Path, Path]:
    """Where a training's predictions lie, and its history."""
    start = material.folder / "verdict" / training_name(network, policy, material)
    return start.with_name(f"{start.name}.csv"), start.with_name(f"{start.name}.history.csv")


def training_name(network: config.Run, policy: policies.Policy, material: search.Material) -> str:
    """A name that only an equal training has: of the same photos and labels, settings and policy."""
    data = [
        folds.fingerprint(material.photos.content, material.splits[fold], network.weights) for fold in network.folds
    ]
    settings = {**network.settings(), "run": "", "augmentation": searched.policy_digest(policy)}
    return f"seed{network.seed}-{files.digest([settings, data])}"


def trained(
    network: config.Run, policy: policies.Policy, material: search.Material, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns `COLUMNS`, after training, and its history."""
    path = policies.write(policy, material.folder / "policies" / f"{name}.json")
    run = dataclasses.replace(network, run=name, augmentation=files.shown_path(path))
    result = runs.train_run(run, material.splits, material.photos, material.folder)
    truth, predicted = result.truth_and_prediction()
    fold_of = {path: fold for fold in run.folds for path in validated(material.splits[fold])}
    keys = result.out_of_fold[["path", "person"]]
    fold = keys["path"].map(fold_of)
    return keys.assign(seed=run.seed, fold=fold, label=truth, predicted=predicted)[COLUMNS], result.history


def validated(split: pd.DataFrame) -> list[str]:
    """Paths of a fold's validation photos."""
    return list(split.loc[split["split"] == folds.VAL, "path"])
