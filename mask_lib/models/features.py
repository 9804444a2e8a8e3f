"""A frozen backbone's features and a logistic regression on them: the bar that training must clear.

It needs no training of a network, so it also ranks suspicious labels before there is any run.

How much too good a score looks when photos are dealt into folds without asking whose they are.
"""

import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mask_lib.base import config, files, labels, scores
from mask_lib.data import store
from mask_lib.data.splits import TEST_VAL, TRAIN, VAL, is_external, naive_splits
from mask_lib.models import build, devices, predict
from mask_lib.models.weights import initial_state

REGULARISATION = 0.003  # scikit-learn's C for standardised features of about a thousand columns
POOLED, STAGES = "pooled", 2  # how the cache names what the last layer pools; how many stages stand beside it
ITERATIONS = 100  # the probabilities hardly move after that, though the solver would go on


def backbone_features(
    photos: store.Store, folder: Path, architecture: str = "tf_efficientnet_lite0", weights: str = "imagenet"
) -> np.ndarray:
    """(N, D) float32 pooled features of every photo of the store, in its order; cached in `folder`."""
    return descriptions(photos, folder, architecture, weights)[POOLED]


def stage_features(
    photos: store.Store, folder: Path, architecture: str = "tf_efficientnet_lite0", weights: str = "imagenet"
) -> list[np.ndarray]:
    """The network's last two stages, each (N, 2 x channels) float32, in the store's order; cached in `folder`.

    A stage is described by the mean and the standard deviation of each channel over the photo: they
    keep more of a mask's edge or of skin than what the last layer pools for telling objects apart.
    A network that does not show its stages (timm's `forward_intermediates`) gives its pooled features
    as the only array. Shares its pass over the photos, and its file, with `backbone_features`.
    """
    found = descriptions(photos, folder, architecture, weights)
    return [found[name] for name in found if name != POOLED] or [found[POOLED]]


def descriptions(photos: store.Store, folder: Path, architecture: str, weights: str) -> dict[str, np.ndarray]:
    """All that one pass over the photos yields, by name: `pooled`, then `stage0` … where the network shows them.

    Kept in one file in `folder`, which is computed anew if it is damaged.
    """
    frame = photos.frame
    preprocessing = build.preprocessing_of(architecture, frame.width, frame.height, frame.resize, frame.channels)
    source = weights if weights in config.WEIGHTS_BY_NAME else files.file_digest(files.project_path(weights))
    name = files.digest([photos.content, sorted(photos.row_of.items()), architecture, source, repr(preprocessing)])
    cached = Path(folder) / f"{architecture}-{name}.npz"
    found = read_arrays(cached, len(photos.images))
    if found is None:
        found = computed(photos, architecture, weights, preprocessing)
        with files.replacing(cached) as temporary:
            np.savez(temporary, **found)
    return found


def read_arrays(path: Path, rows: int) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file in their order; None if there is none, or one cut short or of other than `rows`."""
    try:
        with np.load(path, allow_pickle=False) as opened:  # the archive's checksums tell of changed bytes
            found = {name: opened[name] for name in opened.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return None
    return found if POOLED in found and all(len(one) == rows for one in found.values()) else None


@torch.inference_mode()
def computed(
    photos: store.Store, architecture: str, weights: str, preprocessing: build.Preprocessing
) -> dict[str, np.ndarray]:
    """`descriptions` without the cache."""
    device, frame = devices.pick_device(), photos.frame
    of_photos = {"class_count": 0, "channels": frame.channels, "size": (frame.height, frame.width)}
    network = build.build_network(architecture, **of_photos)
    network.load_state_dict(initial_state(architecture, weights, seed=0, **of_photos))
    network.to(device, memory_format=torch.channels_last).eval()
    source, found = devices.DevicePhotos(photos, device), []
    blocks = list(store.blocks(len(photos.images), predict.PREDICT_BATCH))
    for block in files.progress(blocks, what="features", unit="batch"):
        described = describe(network, preprocessing.prepared(source.batch(block).float() / 255))
        found.append({name: values.float().cpu().numpy() for name, values in described.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def describe(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """One batch's (B, D) descriptions, as `descriptions` names them."""
    if not hasattr(network, "forward_intermediates"):
        return {POOLED: network(batch)}
    last, stages = network.forward_intermediates(batch, indices=STAGES)  # the stages are (B, C, H, W)
    described = [torch.cat([one.mean((2, 3)), one.std((2, 3), correction=0)], dim=1) for one in stages]
    return {POOLED: network.forward_head(last)} | {f"stage{number}": one for number, one in enumerate(described)}


def logistic_probabilities(known: np.ndarray, known_labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(N, 18) probabilities of `asked` features from a logistic regression on `known` ones.

    A class without known photos gets probability 0.
    """
    regression = LogisticRegression(C=REGULARISATION, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline = make_pipeline(StandardScaler(), regression).fit(known, known_labels)
    probabilities = np.zeros((len(asked), labels.CLASS_COUNT))
    probabilities[:, regression.classes_] = pipeline.predict_proba(asked)
    return probabilities


def logistic_out_of_fold(features: np.ndarray, photos: store.Store, splits: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Out-of-fold table, columns `path, label, p00 … p17`: each fold's val from its own train photos."""
    tables = []
    for split in splits.values():
        train, val = (split[split["split"] == part] for part in (TRAIN, VAL))
        rows, asked = photos.rows(list(train["path"])), photos.rows(list(val["path"]))
        found = logistic_probabilities(features[rows], train["label"].to_numpy(), features[asked])
        tables.append(predict.probability_table(val[["path", "label"]], found))
    return pd.concat(tables, ignore_index=True)


HONEST, NAIVE = "people kept together", "photos dealt freely"


def measure(
    described: np.ndarray, photos: store.Store, splits: dict[int, pd.DataFrame], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Scores (see `scores.bootstrap`) of the same logistic regression by honest folds and by naive ones.

    described: (N, D) features of every photo of the store. Naive folds deal the photos of `splits`, but
    for test_val, freely; they serve this comparison alone. Keys: `HONEST` and `NAIVE`.
    """
    first = splits[min(splits)]
    dealt = first[(first["split"] != TEST_VAL) & ~is_external(first["path"])]
    naive = naive_splits(dealt, len(splits), seed)
    person_of = dealt.set_index("path")["person"]
    found = {}
    for name, some in ((HONEST, splits), (NAIVE, naive)):
        table = logistic_out_of_fold(described, photos, some)
        truth, predicted = scores.from_probabilities(table)
        found[name] = scores.bootstrap(truth, predicted, person_of[table["path"]].to_numpy())
    return found


def optimism_summary(found: dict[str, pd.DataFrame]) -> str:
    """One sentence on both macro F1s."""
    honest, naive = (scores.Score(*found[name].loc["macro_f1"]) for name in (HONEST, NAIVE))
    return (
        f"Photos dealt freely would have promised a macro F1 of {naive.value:.3f} where people kept together give "
        f"{honest.value:.3f}: {naive.value - honest.value:+.3f} of memory for faces, not of skill."
    )
