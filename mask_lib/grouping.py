"""Which photos show the same person, by what describes them: the view that tells people apart, and who joins whom.

Groups grow by agglomerative clustering, within what one person's photos can be; how often that goes wrong
is counted in pairs of photos.
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.covariance import ledoit_wolf

from mask_lib import labels
from mask_lib.labels import Mask

COLUMNS = list(labels.PROBABILITY_COLUMNS)
PHOTOS_A_PERSON = 7
LIMITS = {Mask.WORN: 5, Mask.INCORRECT: 1, Mask.NOT_WORN: 1}  # of a person's photos
SURE = 0.9  # probability from which a predicted mask counts towards its limit
DIRECTIONS = 50  # in which people differ most; more hardly matter, and describe chance
NEIGHBOURS = 30  # likest photos of each that are looked at; a person has six others
ROWS_AT_ONCE = 1024  # photos compared at once with all others: bounds memory


@dataclasses.dataclass(frozen=True)
class View:
    """How described photos become (N, K) unit vectors that are near when they show one person."""

    middle: np.ndarray  # (D,)
    directions: np.ndarray  # (D, K)

    def vectors(self, described: np.ndarray) -> np.ndarray:
        """(N, K) float64 of length 1, from (N, D)."""
        found = (described - self.middle) @ self.directions
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def flat(described: np.ndarray | Sequence[np.ndarray], count: int) -> np.ndarray:
    """(N, D) float64 of one array (N, …) or several beside each other.

    Raises ValueError unless each describes `count` photos, with finite numbers.
    """
    arrays = [described] if isinstance(described, np.ndarray) else list(described)
    for one in arrays:
        if len(one) != count:
            raise ValueError(f"{len(one)} described photos but {count} rows of probabilities")
    stacked = np.concatenate(
        [np.reshape(one, (count, int(np.prod(one.shape[1:])))).astype(np.float64) for one in arrays], axis=1
    )
    is_wrong = ~np.isfinite(stacked).all(axis=1)
    if is_wrong.any():
        raise ValueError(f"the features of {is_wrong.sum()} photos, first row {is_wrong.argmax()}, are not finite")
    return stacked


def fitted(described: np.ndarray, person: np.ndarray) -> View:
    """The view in which people differ most, compared with how one person's photos differ.

    Fisher's linear discriminant with the within-person covariance shrunk as Ledoit and Wolf, 2004, do:
    there are far fewer photos of a person than columns.
    """
    middle, spread = described.mean(axis=0), described.std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    codes, _ = pd.factorize(person)
    means = pd.DataFrame((described - middle) * scale).groupby(codes).mean().to_numpy()
    within, _ = ledoit_wolf((described - middle) * scale - means[codes], assume_centered=True)
    values, axes = np.linalg.eigh(within)
    values = np.maximum(values, max(values[-1], 1e-12) * 1e-9)  # features without any spread within a person
    whitening = axes / np.sqrt(values)
    between = means @ whitening
    _, _, directions = np.linalg.svd(between - between.mean(axis=0), full_matrices=False)
    return View(middle, scale[:, None] * (whitening @ directions[: min(DIRECTIONS, len(means) - 1)].T))


def sure_masks(table: pd.DataFrame) -> np.ndarray:
    """(N, 3) int64: 1 where a photo is surely predicted to wear its mask so."""
    probabilities = table[COLUMNS].to_numpy(dtype=np.float64)
    return (labels.marginals(probabilities)["mask"] >= SURE).astype(np.int64)


def neighbours(vectors: np.ndarray, least: float) -> Iterator[tuple[float, int, int]]:
    """Pairs (cosine from `least` on, row, other), row below other, of which one is among the likest of the other."""
    count = min(NEIGHBOURS, len(vectors) - 1)
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(vectors) if count else 0, ROWS_AT_ONCE):
        likeness = vectors[start : start + ROWS_AT_ONCE] @ vectors.T  # (rows, N)
        own = np.arange(len(likeness))
        likeness[own, start + own] = -np.inf
        likest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        for row, others in enumerate(likest.tolist(), start=start):
            for other in others:
                pairs[min(row, other), max(row, other)] = float(likeness[row - start, other])
    yield from ((like, row, other) for (row, other), like in pairs.items() if like >= least)


def merges(vectors: np.ndarray, masks: np.ndarray, least: float = 0.0) -> list[tuple[float, int, int]]:
    """Agglomerative clustering by average linkage: (mean cosine from `least` on, row, other), the likest join first.

    vectors: (N, K) unit vectors; masks: (N, 3), see `sure_masks`. Each join unites the clusters that hold
    the two rows, if together they are within the limits of one person. Average linkage never rises
    from join to join, so every threshold's clusters are those of the joins down to it: one pass
    serves them all.
    """
    limits = np.array([LIMITS[mask] for mask in Mask] + [PHOTOS_A_PERSON])
    sums, counts = vectors.copy(), np.column_stack([masks, np.ones(len(vectors), np.int64)])
    near: list[set[int]] = [set() for _ in vectors]
    age, heap, found = [0] * len(vectors), [], []
    for like, row, other in neighbours(vectors, least):
        near[row].add(other)
        near[other].add(row)
        heap.append((-like, row, other, 0, 0))
    heapq.heapify(heap)
    while heap:
        unlike, row, other, row_age, other_age = heapq.heappop(heap)
        if (age[row], age[other]) != (row_age, other_age):
            continue  # one of them has grown or gone since
        if (counts[row] + counts[other] > limits).any():
            continue  # and never will fit, since clusters only grow
        # Among identical photos the mean of a merger may rise by a rounding error; the order must not.
        found.append((min(-unlike, found[-1][0]) if found else -unlike, row, other))
        sums[row] += sums[other]
        counts[row] += counts[other]
        age[row], age[other] = age[row] + 1, -1
        near[row] = (near[row] | near[other]) - {row, other}
        for third in near[row]:
            near[third].discard(other)
            near[third].add(row)
            mean = float(sums[row] @ sums[third]) / float(counts[row, -1] * counts[third, -1])
            if mean < least:
                continue  # too far apart now; asked again once either has grown
            first, second = min(row, third), max(row, third)
            heapq.heappush(heap, (-mean, first, second, age[first], age[second]))
    return found


def joined(joins: Sequence[tuple[float, int, int]], count: int) -> np.ndarray:
    """(N,) int64 group numbers from 0, in order of first appearance, after these joins."""
    members = {row: [row] for row in range(count)}
    for _, row, other in joins:
        members[row] += members.pop(other)
    group = np.empty(count, np.int64)
    for name, rows in members.items():
        group[rows] = name
    return pd.factorize(group)[0]


def precision_curve(joins: Sequence[tuple[float, int, int]], person: np.ndarray, crowding: float) -> pd.DataFrame:
    """One row a join, the likest first: `likeness`, and `precision` and `recall` of the pairs joined up to it.

    person: (N,) int64; crowding: how many times more people there are to be mistaken for than here.
    """
    who = {row: {int(name): 1} for row, name in enumerate(person)}
    rows = []
    for like, row, other in sorted(joins, key=lambda join: -join[0]):
        ours, theirs = who[row], who.pop(other)
        right = sum(times * theirs.get(name, 0) for name, times in ours.items())
        rows.append((like, right, sum(ours.values()) * sum(theirs.values()) - right))
        who[row] = {name: ours.get(name, 0) + theirs.get(name, 0) for name in ours.keys() | theirs.keys()}
    curve = pd.DataFrame(rows, columns=["likeness", "right", "wrong"]).astype(float)
    right, wrong = curve["right"].cumsum(), curve["wrong"].cumsum() * crowding
    pairs = pairs_of(person)
    return curve.assign(precision=right / (right + wrong), recall=right / max(pairs, 1))


class Searched(NamedTuple):
    """One part of the training photos, searched with what the people of the others teach."""

    rows: np.ndarray  # (n,) int64, in the whole table
    vectors: np.ndarray  # (n, K), as `View` gives them
    joins: list[tuple[float, int, int]]  # as `merges` gives them, by rows of the whole table
    gappy_joins: list[tuple[float, int, int]]  # the same where only some photos of each person are there


def held_out(
    described: np.ndarray, person: np.ndarray, part_of: np.ndarray, masks: np.ndarray, is_kept: np.ndarray
) -> Iterator[Searched]:
    """Each part of the photos; described: (N, D); person, part_of: (N,) int64; masks: (N, 3); is_kept: (N,) bool."""
    for part in np.unique(part_of):
        known, rows = part_of != part, np.flatnonzero(part_of == part)
        vectors = fitted(described[known], person[known]).vectors(described[rows])
        whole, gappy = np.arange(len(rows)), np.flatnonzero(is_kept[rows])
        found = [
            [(like, int(rows[some[a]]), int(rows[some[b]])) for like, a, b in merges(vectors[some], masks[rows[some]])]
            for some in (whole, gappy)
        ]
        yield Searched(rows, vectors, *found)


def thinned(person: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N,) bool: a random number of each person's photos, from one to all seven, chosen at random; person: (N,)."""
    order = pd.Series(generator.permutation(len(person)))
    kept = generator.integers(1, PHOTOS_A_PERSON + 1, size=person.max() + 1)
    return (order.groupby(person).rank() <= kept[person]).to_numpy()


def pairs_of(group: np.ndarray) -> int:
    """How many pairs of photos share a group, of (N,) group names."""
    sizes = np.unique(group, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def pair_scores(group: np.ndarray, person: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the pairs that (N,) groups join, by who (N,) is really shown; NaN without any pair."""
    both = pd.Series(list(zip(group, person, strict=True)))
    right = pairs_of(pd.factorize(both)[0])
    found, there = pairs_of(group), pairs_of(person)
    return right / found if found else float("nan"), right / there if there else float("nan")


def mates_likeness(vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) mean cosine of each photo to the others of its group; NaN for those alone."""
    codes, sizes = np.unique(group, return_inverse=True, return_counts=True)[1:]
    sums = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(sums, codes, vectors)
    mates = sizes[codes] - 1
    whole = (vectors * sums[codes]).sum(axis=1) - (vectors**2).sum(axis=1)
    return np.divide(whole, mates, out=np.full(len(vectors), np.nan), where=mates > 0)


def right_mates(group: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(N,) share of each photo's mates that show the same person; NaN for those alone."""
    table = pd.DataFrame({"group": group, "person": person})
    mates = table.groupby("group")["person"].transform("size") - 1
    return ((table.groupby(["group", "person"])["person"].transform("size") - 1) / mates.where(mates > 0)).to_numpy()
