"""Looks: photos of one value grouped by what they look like, so that a network can be asked about looks it never saw.

Every person fold holds the same masks, so no ordinary score tells what happens when a new one comes. Only attributes of
the photo have looks here: those of a person are held out with the person anyway.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import StandardScaler

from mask_lib.base import files, labels
from mask_lib.data.splits import TRAIN

COMPONENTS = 16  # of the features, by which photos are compared
MOST = 6  # looks of a value
STABLE = 0.7  # adjusted Rand index from which groups that are found in two halves of the people are the same ones
HALVINGS = 6  # of which that is the mean
NEARLY = 0.9  # more groups are taken if they are found again so much as the surest ones
LEAST_PHOTOS = 10  # of a value: fewer have one look
MOST_HELD = 0.45  # share of a value's photos: more of them are less a look than what the value is
KINDS = {"path": "str", "attribute": "str", "look": "str", "held_out": "bool"}


def find(stages: Sequence[np.ndarray], photos: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Columns path, attribute, look (`worn 2`; 1 is the most frequent), held_out; one row a photo and attribute.

    stages: (N, D) features of the N photos (path, person, label), such as of a frozen backbone's stages. Looks are the
    groups by k-means of how a photo differs from the mean of the same person's photos of other values: what remains is
    the mask, not the face. There are as many as two halves of the people agree on (`STABLE`; one if on none). Of each
    value every second look is held out, the most frequent one never, nor one of nearly half (`MOST_HELD`) of the
    photos: where masks worn wrongly hang on the chin or leave the nose bare, one kind does not tell of the other.
    """
    features = np.hstack([StandardScaler().fit_transform(stage) for stage in stages])
    values, tables = labels.decode_all(photos["label"].to_numpy("int64")), []
    for name in labels.names(of_person=False):
        for value, word in enumerate(labels.attribute(name).words):
            is_value = values[name] == value
            look = _grouped(features, photos["person"].to_numpy(), is_value, seed)
            named, share = [f"{word} {number + 1}" for number in look], np.bincount(look)[look] / len(look)
            held = (look % 2 == 1) & (share <= MOST_HELD)
            tables.append(photos.loc[is_value, ["path"]].assign(attribute=name, look=named, held_out=held))
    return pd.concat([pd.DataFrame(columns=list(KINDS)).astype(KINDS), *tables], ignore_index=True)


def _grouped(features: np.ndarray, person: np.ndarray, is_value: np.ndarray, seed: int) -> np.ndarray:
    """(M,) group of each photo of a value, 0 the largest; of (N, D) features and (N,) people of all photos."""
    counts = range(2, min(MOST, is_value.sum() // LEAST_PHOTOS) + 1)
    if not counts:
        return np.zeros(is_value.sum(), dtype=np.int64)
    means = pd.DataFrame(features[~is_value]).groupby(person[~is_value]).mean().reindex(person[is_value])
    own = features[is_value] - means.fillna(means.mean()).fillna(0.0).to_numpy()
    few = PCA(min(COMPONENTS, *own.shape), random_state=seed).fit_transform(own)
    stable = {count: _stability(few, person[is_value], count, seed) for count in counts}
    least = max(STABLE, NEARLY * max(stable.values()))
    count = max((count for count, one in stable.items() if one >= least), default=1)
    found = KMeans(count, n_init=3, random_state=seed).fit_predict(few)
    return pd.Series(found).value_counts().index.get_indexer(found)


def _stability(features: np.ndarray, person: np.ndarray, count: int, seed: int) -> float:
    """How alike are the groups that one half of the people has and the other: 1 the same, 0 as by chance.

    After Tibshirani & Walther, "Cluster Validation by Prediction Strength" (2005): a silhouette is low in many
    dimensions, whatever there is.
    """
    alike = []
    for halves in GroupShuffleSplit(HALVINGS, test_size=0.5, random_state=seed).split(features, groups=person):
        groups = [KMeans(count, n_init=3, random_state=seed).fit(features[half]).predict(features) for half in halves]
        alike.append(adjusted_rand_score(*groups))
    return float(np.mean(alike))


def path_of(output_dir: str | os.PathLike[str]) -> Path:
    """Where 00_prepare_data writes them."""
    return Path(output_dir) / "tables" / "looks.csv"


def read_held_out(output_dir: str | os.PathLike[str]) -> dict[str, str]:
    """The look by path of each photo whose look is held out. FileNotFoundError that says how to make the table."""
    path = path_of(output_dir)
    if not path.exists():
        raise FileNotFoundError(f"no {files.shown_path(path)}: run 00_prepare_data with measure_optimism: true first")
    held = files.read_csv(path, KINDS).query("held_out")
    return dict(zip(held["path"], held["look"], strict=True))


def without(split: pd.DataFrame, held_out: dict[str, str]) -> pd.DataFrame:
    """A split without the train rows of looks that are held out. ValueError if there are none, or nothing else."""
    is_train, is_held = split["split"] == TRAIN, split["path"].isin(list(held_out))
    if not (is_train & is_held).any() or not (is_train & ~is_held).any():
        raise ValueError("unseen_looks: the photos of no value have several looks (tables/looks.csv): set it to false")
    return split[~(is_train & is_held)].reset_index(drop=True)


def examples(looks: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows of each look, by attribute and look."""
    dealt = looks.sample(frac=1, random_state=seed)
    return dealt.groupby(["attribute", "look"], sort=True).head(count).sort_values(["attribute", "look"], kind="stable")


def summary(looks: pd.DataFrame) -> str:
    """How many looks each attribute's values have, in a sentence."""
    counts = looks.groupby("attribute")["look"].nunique()
    held = looks[looks["held_out"]].groupby("attribute")["look"].nunique().reindex(counts.index, fill_value=0)
    parts = [f"{counts[name]} looks of {name}, {held[name]} of them held out" for name in counts.index]
    return f"Found: {'; '.join(parts)}." if parts else "No attribute here is one of the photo alone."
