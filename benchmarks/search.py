"""What a search by density costs beside one that trains a network for each policy, and whether the two agree.

Run it with `python benchmarks/search.py [architecture] [side] [batch]`: it measures steps of both kinds in this one
run and extrapolates them to the seed's search (50 policies and none, 60 epochs of 5,700 photos each), of which density
is to cost at most a twentieth. What the verdict costs, which the seed's search has none of, stands beside it.

`python benchmarks/search.py --correlation DATA OUTPUT [FOLDER]` trains a dozen random policies to the end, with two
seeds each, on the folds that 00_prepare_data and 01_label_cleaning left in OUTPUT, and prints the rank correlation of
their smoothed scores with their density score. It takes a while; given a FOLDER to keep its trainings in, it goes on
from there.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import timing
import torch
from scipy.stats import spearmanr

from mask_lib.augment import apply
from mask_lib.augment.policy import PRESET_POLICIES, Space, random_policy, write_policy
from mask_lib.base import config, files, labels
from mask_lib.data import clean_labels, photos, store
from mask_lib.models import build, devices, predict
from mask_lib.training import dataset, loop, policy_search, runs

REPEATS, WARM_UP = 6, 2
POLICIES, EPOCHS, TRAIN, FOLDS, VIEWS = 50, 60, 5700, 2, 2  # the seed's; folds and views are ours
VAL = TRAIN // 4  # of five folds one is held out
DENSITY_EPOCHS = 30  # without augmentation a network has learned its photos by heart long before; as in search.yml
CONTENDERS, VERDICT_SEEDS, VERDICT_FOLDS, VERDICT_EPOCHS = 4, 3, 1, 30  # merged, best and both references; search.yml
NETWORK = {
    "weights": "imagenet", "image_width": 48, "image_height": 64, "epochs": 8, "batch_size": 32, "optimizer": "adamw",
    "learning_rate": 1.5e-3, "head_learning_rate_scale": 5.0, "schedule": "cosine",
}  # fmt: skip
SEEDS, LAST_EPOCHS, RANDOM = 2, 3, 12


def seconds(functions: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median seconds of each, measured in turns: what else the machine does then slows all alike."""
    rounds = [
        {name: timing.once(function, device) for name, function in functions.items()} for _ in range(WARM_UP + REPEATS)
    ]
    return {name: statistics.median(one[name] for one in rounds[WARM_UP:]) for name in functions}


def toy_fold(
    architecture: str, side: int, batch: int, augmentation: str = "seed"
) -> tuple[loop.FoldTraining, policy_search.DensityScorer]:
    """A training on noise, and a density scorer of as many photos as a batch has."""
    device = devices.pick_device()
    images = np.random.default_rng(0).integers(0, 255, (2 * batch, side, side, 3), dtype=np.uint8)
    names = [f"{row:04d}/mask1.jpg" for row in range(2 * batch)]
    opened = store.Store(images, {name: row for row, name in enumerate(names)}, "", store.Frame(side, side))
    split = pd.DataFrame({"path": names, "person": names, "label": np.arange(2 * batch) % labels.class_count()})
    run = config.Run(
        architecture=architecture, weights="none", image_width=side, image_height=side, batch_size=batch,
        augmentation=augmentation,
    )  # fmt: skip
    source = devices.DevicePhotos(opened, device)
    parts = split.assign(split=["train"] * batch + ["val"] * batch)
    fold = loop.FoldTraining(run, 0, parts, source)
    network = build.build_network(architecture).to(device, memory_format=torch.channels_last)
    fold.start(network, network)
    loaded = predict.Loaded(network, fold.preprocessing, fold.dtype)
    return fold, policy_search.DensityScorer(0, loaded, source, fold.data.rows["val"], fold.data.labels["val"])


def cost(architecture: str, side: int, batch: int) -> None:
    """Print what the two searches cost, as ratios."""
    fold, scorer = toy_fold(architecture, side, batch)
    plain, _ = toy_fold(architecture, side, batch, augmentation="none")
    policy, rows = random_policy(np.random.default_rng(0), Space()), np.arange(batch)

    def train(one: loop.FoldTraining) -> None:
        one.forward.train()
        one.train_step(one.data.drawn(rows, 0), 0, 0, 1)

    found = seconds(
        {
            "train": lambda: train(fold),
            "train plainly": lambda: train(plain),
            "score": lambda: scorer.score(policy),
            "augment": lambda: apply.augment(fold.data.photos.batch(rows), policy, torch.Generator()),
        },
        fold.device,
    )
    a_policy = {
        "random": found["train"] * EPOCHS * TRAIN / batch,
        "density": found["score"] * FOLDS * VIEWS * VAL / batch,
    }
    once = found["train plainly"] * FOLDS * TRAIN / batch  # an epoch of the networks that are trained once
    whole = {name: (POLICIES + 1) * each for name, each in a_policy.items()}
    trainings = CONTENDERS * VERDICT_SEEDS * VERDICT_FOLDS
    verdict = a_policy["random"] * trainings * VERDICT_EPOCHS / EPOCHS
    print(f"{architecture} at {side} px, batch {batch}, {devices.device_name(fold.device)}")
    print(
        f"seconds a batch: train {found['train']:.3f}, score {found['score']:.3f}, of it augment {found['augment']:.3f}"
    )
    print(f"a policy: density / random = 1/{a_policy['random'] / a_policy['density']:.0f}")
    print(f"{POLICIES} policies, networks trained once included, as shares of a training with each:")
    for epochs in (DENSITY_EPOCHS, EPOCHS):
        found = {"search": whole["density"] + epochs * once, "verdict": verdict}
        found["both"] = sum(found.values())
        shares = ", ".join(f"{name} 1/{whole['random'] / each:.1f}" for name, each in found.items())
        print(f"networks for {epochs} epochs, {trainings} trainings of {VERDICT_EPOCHS} for the verdict: {shares}")


def correlation(data: Path, output: Path, folder: Path) -> None:
    """Print density score and trained scores of each policy, and how their ranks go together."""
    network = config.Run(augmentation="none", **NETWORK)
    splits = clean_labels.read_clean_splits(output, small=True)
    opened = dataset.open_photos(data, output, photos.read_labeled(output), store.Frame.of_run(network))
    searched = policy_search.SearchData(splits, opened, folder)
    scorers = policy_search.density_scorers(network.replace(run="plain"), searched)
    space = Space(probabilities=(0.25, 0.5, 0.75))
    contenders = [random_policy(np.random.default_rng(seed), space, f"random {seed}") for seed in range(RANDOM)]
    rows = []
    for number, policy in enumerate([*contenders, *PRESET_POLICIES.values()]):
        path = files.shown_path(write_policy(policy, folder / "policies" / f"{number}.json"))
        density_scores = pd.DataFrame([scorer.score(policy, VIEWS) for scorer in scorers]).mean()
        rows.append({"policy": policy.name, **density_scores})
        for seed in range(SEEDS):
            macro_f1, loss = trained(network, f"{number}-{seed}", path, seed, splits, opened, folder)
            rows[-1] |= {f"trained macro_f1 {seed}": macro_f1, f"trained loss {seed}": -loss}
        print(", ".join(f"{name} {one if isinstance(one, str) else f'{one:.4f}'}" for name, one in rows[-1].items()))
        sys.stdout.flush()
    table = pd.DataFrame(rows)
    for words, part in ((f"{RANDOM} random policies", table[:RANDOM]), ("these and the presets", table)):
        print(words)
        compared(part)


def compared(table: pd.DataFrame) -> None:
    """Print rank correlations of density with training, and beside them of training with itself, from another seed."""
    for score, reward in (("macro_f1", "macro_f1"), ("log_likelihood", "macro_f1"), ("log_likelihood", "loss")):
        by_seed = table[[f"trained {reward} {seed}" for seed in range(SEEDS)]]
        found, again = spearmanr(table[score], by_seed.mean(axis=1)), by_seed.corr("spearman").iloc[0, -1]
        print(
            f"  density's {score} with trained {reward}: {found.statistic:+.2f} (p = {found.pvalue:.2f}); "
            f"trained {reward} of one seed with the other: {again:+.2f}"
        )


def trained(
    network: config.Run, name: str, path: str, seed: int, splits: dict, opened: store.Store, folder: Path
) -> tuple[float, float]:
    """The smoothed macro F1 and loss of one training, the means over its folds."""
    run = network.replace(run=f"policy{name}", augmentation=path, seed=seed)
    last = runs.train_run(run, splits, opened, folder).history.groupby("fold").tail(LAST_EPOCHS)
    return float(last["val_macro_f1"].mean()), float(last["val_loss"].mean())


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["--correlation"]:
        with tempfile.TemporaryDirectory() as temporary:
            kept = Path(given[3] if len(given) > 3 else temporary).resolve()
            kept.mkdir(parents=True, exist_ok=True)
            correlation(files.project_path(given[1]), files.project_path(given[2]), kept)
    else:
        given += ["resnet18", "128", "16"][len(given) :]
        cost(given[0], int(given[1]), int(given[2]))
