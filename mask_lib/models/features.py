"""A frozen backbone's features, and a logistic regression on them: the baseline that training must beat.

It ranks suspicious labels before there is any run, and shows how much too good scores look if people are split.
"""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

from mask_lib.base import config, files, labels, scores
from mask_lib.data import store
from mask_lib.data.splits import TEST_VAL, TRAIN, VAL, is_external, naive_splits
from mask_lib.models import build, devices, networks, predict
from mask_lib.models.weights import initial_state

REGULARISATION = 0.003  # scikit-learn's C for standardised features of about a thousand columns
ITERATIONS = 50  # the probabilities hardly move after that, though the solver would go on
NEVER = -1e4  # logit of a value that does not occur
ARCHITECTURE = "tf_efficientnet_lite0"  # of the backbone, unless another is asked for
POOLED = "pooled"  # name of the pooled features in the cache
HONEST, NAIVE = "people kept together", "photos dealt freely"


def backbone_features(photos: store.Store, folder: Path, **network: str) -> np.ndarray:
    """(N, D) float32 pooled features of the store's photos; cached in `folder`. network: `architecture`, `weights`."""
    return _features(photos, folder, **network)[POOLED]


def stage_features(photos: store.Store, folder: Path, **network: str) -> list[np.ndarray]:
    """Mean and deviation of each channel of the network's last two stages, each (N, 2 x channels) float32.

    They keep more of a mask's edge or of skin than what the last layer pools. A network without timm's
    `forward_intermediates` gives its pooled features alone. Shares pass, file and options with `backbone_features`.
    """
    found = _features(photos, folder, **network)
    return [found[name] for name in found if name != POOLED] or [found[POOLED]]


def _features(photos: store.Store, folder: Path, **network: str) -> dict[str, np.ndarray]:
    """All features of one pass over the photos by name, `pooled`, then `stage0` …; cached in one file in `folder`."""
    preprocessing, cached = _cached_at(photos, folder, **network)
    if found := _cached(cached, len(photos.images)):
        return found
    found = _computed(photos, frozen_backbone(photos.frame, **network), preprocessing)
    with files.replacing(cached) as temporary:
        np.savez(temporary, **found)
    return found


def _cached_at(
    photos: store.Store, folder: Path, architecture: str = ARCHITECTURE, weights: str = "imagenet"
) -> tuple[build.Preprocessing, Path]:
    """How the photos become the backbone's input, and the file of its features of them."""
    preprocessing = build.preprocessing_of(architecture, photos.frame)
    source = weights if weights in config.WEIGHTS_BY_NAME else files.file_digest(files.project_path(weights))
    key = files.digest([photos.content, sorted(photos.row_of.items()), architecture, source, repr(preprocessing)])
    return preprocessing, Path(folder) / f"{architecture.replace('/', '_')}-{key}.npz"


def _cached(path: Path, count: int) -> dict[str, np.ndarray]:
    """What such a file holds of `count` photos; nothing if it is not there or damaged."""
    # A damaged one can raise nearly anything; the archive's checksums tell of changed bytes.
    with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as opened:
        found = dict(opened)
        if POOLED in found and all(len(one) == count for one in found.values()):
            return found
    return {}


def comparer(photos: store.Store, folder: Path, **network: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from another photo, (H, W, C) uint8 of the store's frame, to its (N,) likeness to those of the store.

    The cosine of standardised pooled features: 1 for a copy, 0 for photos that have nothing in common. Raises
    FileNotFoundError for features that are not cached in `folder`: those of the store are not computed here.
    """
    preprocessing, cached = _cached_at(photos, folder, **network)
    known = _cached(cached, len(photos.images)).get(POOLED)
    if known is None:
        raise FileNotFoundError(f"no {cached.name} in {files.shown_path(folder)}: run 00_prepare_data first")
    backbone, scaler = frozen_backbone(photos.frame, **network), StandardScaler().fit(known)
    known, device = normalize(scaler.transform(known)), devices.pick_device()

    @torch.inference_mode()
    def likeness(photo: np.ndarray) -> np.ndarray:
        asked = torch.from_numpy(photo[None].copy()).to(device).permute(0, 3, 1, 2)
        return known @ normalize(scaler.transform(_batch_features(backbone, preprocessing, asked)[POOLED]))[0]

    return likeness


def frozen_backbone(frame: store.Frame, architecture: str = ARCHITECTURE, weights: str = "imagenet") -> nn.Module:
    """A network without last layer that gives features of photos of a frame, on the device."""
    shape = {"class_count": 0, "channels": frame.channels, "size": (frame.height, frame.width)}
    network = build.build_network(architecture, **shape)
    network.load_state_dict(initial_state(architecture, weights, seed=0, **shape))
    return network.to(devices.pick_device(), memory_format=torch.channels_last).eval()


@torch.inference_mode()
def _computed(photos: store.Store, network: nn.Module, how: build.Preprocessing) -> dict[str, np.ndarray]:
    source, rows, found = devices.DevicePhotos(photos, devices.pick_device()), np.arange(len(photos.images)), []
    with files.progress(total=len(rows), what="features") as bar:
        for one in devices.in_batches(
            rows, predict.PREDICT_BATCH, lambda some: _batch_features(network, how, source.batch(some))
        ):
            found.append(one)
            bar.update(len(one[POOLED]))
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _batch_features(network: nn.Module, how: build.Preprocessing, photos: torch.Tensor) -> dict[str, np.ndarray]:
    """photos: (B, C, H, W) uint8."""
    batch = how.prepared(photos.float() / 255)
    if hasattr(network, "forward_intermediates"):
        last, stages = network.forward_intermediates(batch, indices=networks.STAGES_KEPT)  # the stages are (B, C, H, W)
        found = {f"stage{number}": one for number, one in enumerate(networks.moments_of(stages))}
        found = {POOLED: network.forward_head(last)} | found
    else:
        found = {POOLED: network(batch)}
    return {name: one.float().cpu().numpy() for name, one in found.items()}


def fit_logistic(
    known: np.ndarray,
    values: np.ndarray,
    count: int,
    regularisation: float = REGULARISATION,
    weights: np.ndarray | None = None,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """A logistic regression of (N,) values 0 … count-1 on (N, D) features, as (count, D) weights and (count,) biases
    whose softmax are its probabilities; 0 for values that do not occur.

    The features are standardised within it. regularisation: scikit-learn's C. weights: (N,), how much each row counts;
    balanced: besides that all values count alike.
    """
    weight, bias = np.zeros((count, known.shape[1])), np.full(count, NEVER)
    present = np.unique(values)
    bias[present] = 0.0
    if len(present) == 1:  # which scikit-learn refuses
        return weight, bias
    scaler = StandardScaler().fit(known)
    options = {"C": regularisation, "max_iter": ITERATIONS, "class_weight": "balanced" if balanced else None}
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        found = LogisticRegression(**options).fit(scaler.transform(known), values, weights)
    rows = present[1:] if len(present) == 2 else present  # of two values the first has logit 0
    weight[rows] = found.coef_ / scaler.scale_
    bias[rows] = found.intercept_ - weight[rows] @ scaler.mean_
    return weight, bias


def logistic_probabilities(known: np.ndarray, values: np.ndarray, count: int, asked: np.ndarray, **how) -> np.ndarray:
    """(M, count) probabilities of (M, D) features by `fit_logistic`, whose other arguments `how` holds."""
    weight, bias = fit_logistic(known, values, count, **how)
    return softmax(asked @ weight.T + bias, axis=1)


def logistic_out_of_fold(features: np.ndarray, photos: store.Store, splits: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Out-of-fold table, columns `path, label, p00` …: each fold's val from its own train photos."""
    tables = []
    for split in splits.values():
        train, val = (split[split["split"] == part] for part in (TRAIN, VAL))
        rows, asked = photos.rows(list(train["path"])), photos.rows(list(val["path"]))
        known, count = train["label"].to_numpy(np.int64), labels.class_count()
        found = logistic_probabilities(features[rows], known, count, features[asked])
        tables.append(predict.probability_table(val[["path", "label"]], found))
    return pd.concat(tables, ignore_index=True)


def naive_fold_scores(
    features: np.ndarray, photos: store.Store, splits: dict[int, pd.DataFrame], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Scores (see `scores.bootstrap`) of the same logistic regression by honest folds and by naive ones.

    features: (N, D) of the store. Naive folds deal the photos of `splits`, but test_val, freely. Keys: HONEST, NAIVE.
    """
    first = splits[min(splits)]
    dealt = first[(first["split"] != TEST_VAL) & ~is_external(first["path"])]
    person_of = dealt.set_index("path")["person"]
    found = {}
    for name, some in ((HONEST, splits), (NAIVE, naive_splits(dealt, len(splits), seed))):
        table = logistic_out_of_fold(features, photos, some)
        found[name] = scores.bootstrap(*scores.from_probabilities(table), person_of[table["path"]].to_numpy())
    return found


def accuracy_by_look(
    stages: Sequence[np.ndarray], photos: store.Store, split: pd.DataFrame, alike: pd.DataFrame
) -> pd.DataFrame:
    """How often logistic regressions on `stage_features` are right on each look: having learned from it, and not.

    alike: of `looks.find`. Columns look, photos (of the split's val people), `in training` and `never seen`: the shares
    of those photos whose attribute is right. A look that is the only one of its value cannot be left out.
    """
    train, val = (split[split["split"] == part] for part in (TRAIN, VAL))
    known, asked, found = photos.rows(list(train["path"])), photos.rows(list(val["path"])), []
    for name, own in alike.groupby("attribute"):
        given, true = (labels.decode_all(part["label"].to_numpy())[name] for part in (train, val))
        learned, shown = (part["path"].map(own.set_index("path")["look"]).to_numpy() for part in (train, val))

        def right(kept: np.ndarray, name: str = name, given: np.ndarray = given, true: np.ndarray = true) -> np.ndarray:
            size = labels.attribute(name).size
            parts = [logistic_probabilities(one[known[kept]], given[kept], size, one[asked]) for one in stages]
            return np.mean(parts, axis=0).argmax(axis=1) == true

        every = right(np.full(len(train), True))
        several = own.groupby(own["look"].str.rsplit(n=1).str[0])["look"].unique()
        for look in sorted(look for looks in several if len(looks) > 1 for look in looks):
            if len(of_look := np.flatnonzero(shown == look)):
                found.append((look, len(of_look), every[of_look].mean(), right(learned != look)[of_look].mean()))
    return pd.DataFrame(found, columns=["look", "photos", "in training", "never seen"])


def optimism_summary(found: dict[str, pd.DataFrame]) -> str:
    """One sentence on both macro F1s of `naive_fold_scores`."""
    honest, naive = (found[name].loc["macro_f1", "value"] for name in (HONEST, NAIVE))
    return (
        f"Photos dealt freely would have promised a macro F1 of {naive:.3f} where people kept together give "
        f"{honest:.3f}: {naive - honest:+.3f} of memory for faces, not of skill."
    )
