"""A frozen backbone's features and a logistic regression on them: the bar that training must clear.

It needs no training of a network, so it also ranks suspicious labels before there is any run.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mask_lib import config, devices, files, folds, inference, labels, models, store

REGULARISATION = 0.003  # scikit-learn's C for standardised features of about a thousand columns
ITERATIONS = 100  # the probabilities hardly move after that, though the solver would go on


@torch.inference_mode()
def backbone_features(
    photos: store.Store, folder: Path, architecture: str = "tf_efficientnet_lite0", weights: str = "imagenet"
) -> np.ndarray:
    """(N, D) float32 pooled features of every photo of the store, in its order; cached in `folder`."""
    frame = photos.frame
    preprocessing = models.preprocessing(architecture, frame.width, frame.height, frame.resize, frame.channels)
    source = weights if weights in config.WEIGHTS_BY_NAME else files.file_digest(files.project_path(weights))
    name = files.digest([photos.content, sorted(photos.row_of.items()), architecture, source, repr(preprocessing)])
    cached = Path(folder) / f"{architecture}-{name}.npy"
    if cached.exists():
        return np.load(cached, allow_pickle=False)
    device = devices.pick_device()
    network = models.build(architecture, class_count=0, channels=frame.channels)
    network.load_state_dict(models.initial_state(architecture, weights, seed=0, class_count=0, channels=frame.channels))
    network.to(device, memory_format=torch.channels_last).eval()
    source, found = devices.DevicePhotos(photos, device), []
    blocks = list(store.blocks(len(photos.images), inference.PREDICT_BATCH))
    for block in files.progress(blocks, what="features", unit="batch"):
        found.append(network(preprocessing.prepared(source.batch(block).float() / 255)).float().cpu().numpy())
    features = np.concatenate(found)
    with files.replacing(cached) as temporary:
        np.save(temporary, features, allow_pickle=False)
    return features


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
        train, val = (split[split["split"] == part] for part in (folds.TRAIN, folds.VAL))
        rows, asked = photos.rows(list(train["path"])), photos.rows(list(val["path"]))
        found = logistic_probabilities(features[rows], train["label"].to_numpy(), features[asked])
        tables.append(inference.probability_table(val[["path", "label"]], found))
    return pd.concat(tables, ignore_index=True)
