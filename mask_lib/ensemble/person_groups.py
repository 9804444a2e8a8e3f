"""Which photos show the same person, when nobody says so: learned from training photos, whose people are known.

1. A projection of the photos' features in which one person's photos lie close and people far apart (Fisher's
   discriminant). It is whitened, since the loudest differences are those between a person's own photos: mask, light.
2. Clustering by average linkage of cosines: single linkage would chain strangers together by one similar pair.
3. Limits: no more photos in a group than a person has, nor more of one kind, such as one without a mask.
4. A threshold: the least cosine at which, among people not learned from, enough of the pairs joined are right.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import sklearn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.covariance import ledoit_wolf
from sklearn.neighbors import NearestNeighbors

from mask_lib.base import labels
from mask_lib.ensemble.members import probabilities_of

SURE = 0.9  # probability from which a predicted value counts towards its limit
USUAL_SHARE = 0.9  # of people, who have no more photos of a kind than its limit
DIRECTIONS = 50  # in which people differ most; more hardly matter, and describe chance
NEIGHBOURS = 30  # most similar photos of each that are looked at; a person must have fewer
MEMORY = 128  # MiB, of distances at once
PRECISION = 0.98  # share of the pairs joined that must show one person
LEAST_PEOPLE = 4  # two to learn from and two to be scored on
MOST_PARTS = 10  # into which the training people are split
Join = tuple[float, int, int]  # mean cosine of two clusters that become one, and a row of each


def photos_a_person(person: Sequence[str]) -> int:
    """The usual number of photos of a person: the median, from the person of each photo."""
    return int(pd.Series(person).value_counts().median())


def photo_kinds(probabilities: np.ndarray) -> np.ndarray:
    """(N, L) int64 of (N, C) class probabilities: 1 for each sure value of the photos' own attributes, then a 1."""
    parts = labels.marginals(probabilities)
    sure = [parts[name] >= SURE for name in labels.names(of_person=False)]
    return np.column_stack([*sure, np.ones(len(probabilities), bool)]).astype(np.int64)


def person_limits(photos: pd.DataFrame) -> np.ndarray:
    """(L,) most photos of each kind, see `photo_kinds`, that nine people in ten have. photos: `person, label`."""
    kinds = photo_kinds(np.eye(labels.class_count())[photos["label"]])
    counts = pd.DataFrame(kinds).groupby(photos["person"].to_numpy()).sum()
    return np.maximum(np.quantile(counts, USUAL_SHARE, axis=0, method="lower"), 1).astype(np.int64)


def stack_features(arrays: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(N, D) float64 of (N, …) arrays beside each other. Raises ValueError unless N is `count`, and all is finite."""
    stacked = np.hstack([one.reshape(count, int(np.prod(one.shape[1:]))) for one in arrays]).astype(np.float64)
    if (is_wrong := ~np.isfinite(stacked).all(axis=1)).any():
        raise ValueError(f"the features of {is_wrong.sum()} photos, first row {is_wrong.argmax()}, are not finite")
    return stacked


def unit_vectors(features: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(N, K) float64 of length 1 whose cosine tells whether two photos show one person; from (N, D), (D,), (D, K)."""
    found = (features - mean) @ axes
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def fit_projection(features: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and axes for `unit_vectors`: Fisher's linear discriminant of (N, D) features by (N,) people.

    The covariance within people is shrunk, or whitening would blow up directions in which nobody happened to vary
    (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004).
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    scaled, (codes, _) = (features - mean) * scale, pd.factorize(person)
    means = pd.DataFrame(scaled).groupby(codes).mean().to_numpy()
    within, _ = ledoit_wolf(scaled - means[codes], assume_centered=True)
    values, axes = np.linalg.eigh(within)
    values = np.maximum(values, max(values[-1], 1e-12) * 1e-9)  # features without any spread within a person
    whitening = axes / np.sqrt(values)
    between = means @ whitening
    _, _, directions = np.linalg.svd(between - between.mean(axis=0), full_matrices=False)
    return mean, scale[:, None] * (whitening @ directions[: min(DIRECTIONS, len(means) - 1)].T)


def similar_pairs(vectors: np.ndarray) -> dict[tuple[int, int], float]:
    """The cosine of each row of (N, K) unit vectors to its most similar ones, by pair of rows, the lower first."""
    if len(vectors) < 2:
        return {}
    with sklearn.config_context(working_memory=MEMORY):
        nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(vectors) - 1), metric="cosine").fit(vectors)
        graph = nearest.kneighbors_graph(mode="distance").tocoo()
    found = zip(graph.row.tolist(), graph.col.tolist(), graph.data.tolist(), strict=True)
    return {(min(row, other), max(row, other)): 1 - distance for row, other, distance in found}


def average_linkage(vectors: np.ndarray, kinds: np.ndarray, limits: np.ndarray, least: float = 0.0) -> list[Join]:
    """Agglomerative clustering: the joins of mean cosine from `least` on, the most similar first.

    (N, K) unit vectors; (N, L) kinds, see `photo_kinds`. Clusters join only within the (L,) limits, which no library's
    clustering can be told. Their mean cosine is the product of their sums over that of their sizes, so no table of
    pairs is kept. It never rises from join to join: one pass serves all thresholds.
    """
    # Photos are rows 0, 1 … of `sums` and `counts`; clusters, which are fewer, rows -1, -2 … from the end.
    sums, counts = (np.concatenate([some, np.zeros_like(some)]) for some in (vectors, kinds))
    near: dict[int, set[int]] = {row: set() for row in range(len(vectors))}  # what each has been compared with
    row_of, heap, joins = {row: row for row in near}, [], []
    for (one, other), cosine in similar_pairs(vectors).items():
        if cosine >= least:
            near[one].add(other)
            near[other].add(one)
            heap.append((-cosine, one, other))
    heapq.heapify(heap)
    while heap:
        cosine, one, other = heapq.heappop(heap)
        if one not in near or other not in near or (counts[one] + counts[other] > limits).any():
            continue  # one is part of a greater cluster by now, or they never will fit, since clusters only grow
        # Among identical photos the mean of a join may rise by a rounding error; the order must not.
        joins.append((min(-cosine, joins[-1][0]) if joins else -cosine, row_of[one], row_of[other]))
        new = -len(joins)
        row_of[new], sums[new], counts[new] = row_of[one], sums[one] + sums[other], counts[one] + counts[other]
        others = np.array([third for third in near.pop(one) | near.pop(other) if third in near], dtype=np.int64)
        others = others[(counts[others] + counts[new] <= limits).all(axis=1)]
        near[new] = set(others.tolist())
        means = sums[others] @ sums[new] / (counts[others, -1] * counts[new, -1])
        for third, mean in zip(others.tolist(), means.tolist(), strict=True):
            near[third].add(new)
            if mean >= least:  # else they are compared again once one of them has grown
                heapq.heappush(heap, (-mean, new, third))
    return joins


def groups_after(joins: Sequence[Join], count: int) -> np.ndarray:
    """(N,) int64 group numbers from 0, in order of first appearance, after these joins."""
    rows = np.array([join[1:] for join in joins], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(rows)), rows.T), shape=(count, count))
    return pd.factorize(connected_components(graph)[1])[0]


def precision_curve(joins: Sequence[Join], person: np.ndarray, crowding: float) -> pd.DataFrame:
    """One row a join, the most similar first: `cosine`, and `precision` and `recall` of the pairs joined up to it.

    person: (N,) int64, who is really shown. crowding: how many times more people, so strangers, there are to find.
    """
    who = {row: Counter([name]) for row, name in enumerate(person)}  # by cluster, how many photos of each person
    rows = []
    for cosine, row, other in sorted(joins, key=lambda join: -join[0]):
        ours, theirs = who[row], who.pop(other)
        right = sum(times * theirs[name] for name, times in ours.items())
        rows.append((cosine, right, ours.total() * theirs.total() - right))
        who[row] = ours + theirs
    curve = pd.DataFrame(rows, columns=["cosine", "right", "wrong"], dtype=float)
    right, wrong = curve["right"].cumsum(), curve["wrong"].cumsum() * crowding
    sizes = np.bincount(person)
    pairs = (sizes * (sizes - 1) // 2).sum()
    return curve.assign(precision=right / (right + wrong), recall=right / max(pairs, 1))


class PersonFinder(NamedTuple):
    """What the training photos teach about finding people, and how well it went on people not learned from."""

    mean: np.ndarray  # (D,), of `fit_projection`
    axes: np.ndarray  # (D, K), likewise
    limits: np.ndarray  # see `person_limits`
    threshold: float  # cosine, -1 to 1; groups less similar stay apart; inf: none may be joined
    # What follows is not kept for others:
    group: np.ndarray | None = None  # (N,) of the training photos, found as evaluation photos are
    precision: float = np.nan  # of the pairs joined, the share that shows one person; NaN where none is joined
    recall: float = np.nan  # of the pairs that show one person, the share joined

    def find_people(self, arrays: Sequence[np.ndarray], table: pd.DataFrame) -> np.ndarray:
        """(N,) group of each photo, in order of first appearance; arrays: as for `learn_people`; table: p00 …."""
        vectors = unit_vectors(stack_features(arrays, len(table)), self.mean, self.axes)
        joins = average_linkage(vectors, photo_kinds(probabilities_of(table)), self.limits, self.threshold)
        return groups_after(joins, len(table))


def learn_people(
    arrays: Sequence[np.ndarray], out_of_fold: pd.DataFrame, evaluation_photos: int, held_out=(), seed: int = 0
) -> PersonFinder:
    """What tells people apart, and from which cosine on photos are joined with the `PRECISION` asked for.

    arrays: features, (N, …) each, rows as in out_of_fold (`person, label, p00 …`). The people are split into parts of
    about as many as the evaluation photos show, at least two: each is searched with what the others teach; where it
    holds fewer, wrong pairs are counted up (crowding). The precision must be had from whole people, and again with
    photos missing at random: a full group takes in no stranger, which flatters. held_out: paths of photos of looks that
    teach the other parts nothing, as new ones would. ValueError as `stack_features`, and for fewer than four people.
    """
    features, (person, names) = stack_features(arrays, len(out_of_fold)), pd.factorize(out_of_fold["person"])
    if len(names) < LEAST_PEOPLE:
        raise ValueError(f"{len(names)} people are too few to learn who resembles whom: {LEAST_PEOPLE} are needed")
    evaluated_people = max(1, evaluation_photos / photos_a_person(person))
    parts = int(np.clip(round(len(names) / evaluated_people), 2, min(MOST_PARTS, len(names) // 2)))
    crowding = max(1.0, evaluated_people * parts / len(names))
    generator, limits = np.random.default_rng(seed), person_limits(out_of_fold)
    part_of = (generator.permutation(len(names)) % parts)[person]
    is_kept = some_photos(person, int(limits[-1]), generator)
    is_known = ~out_of_fold["path"].isin(list(held_out)).to_numpy()
    whole, gappy = held_out_joins(features, out_of_fold, part_of, is_kept, is_known)
    curves = [precision_curve(joins, person, crowding) for joins in (whole, gappy)]
    threshold = max(min(curve["cosine"][curve["precision"] >= PRECISION], default=np.inf) for curve in curves)
    taken = curves[0][curves[0]["cosine"] >= threshold]
    precision, recall = taken.iloc[-1][["precision", "recall"]].tolist() if len(taken) else (np.nan, 0.0)
    group = groups_after([join for join in whole if join[0] >= threshold], len(person))
    return PersonFinder(*fit_projection(features, person), limits, threshold, group, precision, recall)


def some_photos(person: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """(N,) bool: a random number of each person's photos, from one to `most`, chosen at random; person: (N,) int64."""
    order = pd.Series(generator.permutation(len(person)))
    kept = generator.integers(1, most + 1, size=person.max() + 1)
    return (order.groupby(person).rank() <= kept[person]).to_numpy()


def held_out_joins(
    features: np.ndarray, table: pd.DataFrame, part_of: np.ndarray, is_kept: np.ndarray, is_known: np.ndarray
) -> tuple[list[Join], list[Join]]:
    """The joins within each part by what the people of the others teach: of all photos, and of the kept ones alone.

    (N, D) features; table: `person, label, p00 …`; part_of: (N,) int64; is_kept, is_known (who teach): (N,) bool.
    """
    person, kinds, limits = table["person"].to_numpy(), photo_kinds(probabilities_of(table)), person_limits(table)
    whole, gappy = [], []
    for part in np.unique(part_of):
        is_asked = part_of == part
        projection = fit_projection(features[~is_asked & is_known], person[~is_asked & is_known])
        for joins, asked in ((whole, is_asked), (gappy, is_asked & is_kept)):
            rows = np.flatnonzero(asked)
            found = average_linkage(unit_vectors(features[rows], *projection), kinds[rows], limits)
            joins += [(cosine, int(rows[one]), int(rows[other])) for cosine, one, other in found]
    return whole, gappy
