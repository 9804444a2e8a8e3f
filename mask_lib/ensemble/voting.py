"""Which photos show the same person, by what describes them: the view that tells people apart, and who joins whom.

Groups grow by agglomerative clustering, within what one person's photos can be; how often that goes wrong
is counted in pairs of photos.

Which evaluation photos show the same person, and what their gender and age are if those photos vote.

Nobody says who is on an evaluation photo. But whom a network's features, or a small grey picture, make
look alike can be learned from the training photos, whose people are known, and so can how often that
goes wrong: everything here is fitted on some people and judged on others.

The vote of each person's evaluation photos on their gender and age, from the photos on disk.
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.covariance import ledoit_wolf
from sklearn.isotonic import IsotonicRegression

from mask_lib.base import labels, scores
from mask_lib.base.labels import Mask
from mask_lib.data import hashes, photos, splits, store
from mask_lib.models import features
from mask_lib.training import dataset

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


VOTED_COLUMNS = list(labels.PROBABILITY_COLUMNS)
LEAST_PEOPLE = 4  # two to learn from and two to judge by
MOST_PARTS = 10  # into which the training people are split
LEAST = 1e-7  # probability below which a logarithm would let one photo outvote all others


@dataclasses.dataclass(frozen=True)
class Learned:
    """What the training photos teach about finding people, and how well it went on people not learned from."""

    view: View
    threshold: float  # cosine, -1 to 1; groups less alike stay apart; inf: none may be joined
    groups: pd.DataFrame  # path, group, certainty: the training photos, found as evaluation photos are
    precision: float  # of the pairs joined, the share that shows one person; NaN where none is joined
    recall: float  # of the pairs that show one person, the share joined
    wanted: float  # the precision that was asked for
    right_by_likeness: IsotonicRegression | None  # share of a photo's mates that are right, by mean cosine


@dataclasses.dataclass(frozen=True)
class Report:
    """How sure voting is, on training photos: `gain` is `scores.paired_bootstrap`'s table of after over before."""

    precision: float
    recall: float
    wanted: float
    grouped: float  # share of the photos that are not alone
    before: float  # macro F1
    after: float  # macro F1
    gain: pd.DataFrame

    @property
    def is_advised(self) -> bool:
        """Whether macro F1 rises for sure: the interval of its gain lies above 0."""
        return bool(self.gain.loc["macro_f1", "low"] > 0)


def learn(
    described: np.ndarray | Sequence[np.ndarray],
    out_of_fold: pd.DataFrame,
    evaluation_photos: int,
    precision: float = 0.98,
    seed: int = 0,
) -> Learned:
    """What tells people apart, and from which likeness on photos are joined with the pair precision asked for.

    described: one or more (N, …) arrays, such as `features.stage_features` and `hashes.Hashes.small`,
    rows as in out_of_fold (`path, person, label, p00 … p17`). `person` should be one for copies of a
    person under two names (`splits.read_groups`), or true pairs look wrong. The people are split into
    parts of about as many as the evaluation photos show, at least two: each part is searched with what
    the others teach. More people to find are more chances to mistake one for another; where a part
    holds fewer than the evaluation set, its mistakes are counted up in proportion. The precision must be
    had from whole people and again from people of whom photos are missing at random: a full group takes
    in no stranger, which flatters wherever all seven photos are there. Of an evaluation set that holds
    one or two photos a person it promises nothing.
    Raises ValueError for another number of rows, features that are not finite, fewer than four people,
    or a precision outside 0-1.
    """
    table, stacked = out_of_fold.reset_index(drop=True), flat(described, len(out_of_fold))
    person, names = pd.factorize(table["person"])
    _require_learnable(len(names), precision)
    asked_people = max(1, evaluation_photos / PHOTOS_A_PERSON)
    parts = int(np.clip(round(len(names) / asked_people), 2, min(MOST_PARTS, len(names) // 2)))
    searched = searched_parts(stacked, person, sure_masks(table), parts, seed)
    crowding = max(1.0, asked_people * parts / len(names))
    chosen = chosen_likeness(searched, person, crowding, precision)
    group, likeness = joined_from(chosen["likeness"], searched, len(table))
    right = right_by_likeness(likeness, right_mates(group, person))
    return Learned(
        view=fitted(stacked, person),
        threshold=chosen["likeness"],
        groups=table[["path"]].join(group_table(group, likeness, right)),
        precision=chosen["precision"],
        recall=chosen["recall"],
        wanted=precision,
        right_by_likeness=right,
    )


def _require_learnable(people: int, precision: float) -> None:
    if not 0 < precision <= 1:
        raise ValueError(f"precision = {precision}: it is a share above 0, up to 1")
    if people < LEAST_PEOPLE:
        raise ValueError(f"{people} people are too few to learn who looks like whom: {LEAST_PEOPLE} are needed")


def searched_parts(
    described: np.ndarray, person: np.ndarray, masks: np.ndarray, parts: int, seed: int
) -> list[Searched]:
    """The photos in so many parts, drawn person by person, each searched with what the others teach.

    described: (N, D); person: (N,) int64 from 0; masks: (N, 3), as `voting.sure_masks` gives them.
    """
    generator = np.random.default_rng(seed)
    part_of = (generator.permutation(person.max() + 1) % parts)[person]
    return list(held_out(described, person, part_of, masks, thinned(person, generator)))


def chosen_likeness(
    searched: Sequence[Searched], person: np.ndarray, crowding: float, precision: float
) -> dict[str, float]:
    """`last_from` the least likeness that is precise enough with all photos there, and with some missing."""
    whole, gappy = (
        precision_curve([join for joins in several for join in joins], person, crowding)
        for several in ([one.joins for one in searched], [one.gappy_joins for one in searched])
    )
    return last_from(whole, max(lowest_good(curve, precision) for curve in (whole, gappy)))


def joined_from(least: float, searched: Sequence[Searched], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) groups of all parts' photos, joined down to the likeness `least`, and (N,) mean cosines to their mates."""
    joins = [join for one in searched for join in one.joins if join[0] >= least]
    group, likeness = joined(joins, count), np.empty(count)
    for one in searched:
        likeness[one.rows] = mates_likeness(one.vectors, group[one.rows])
    return group, likeness


def lowest_good(curve: pd.DataFrame, precision: float) -> float:
    """The least likeness of a `voting.precision_curve` at which it is precise enough; inf where there is none."""
    good = curve["likeness"][curve["precision"] >= precision]
    return float(good.min()) if len(good) else float("inf")


def last_from(curve: pd.DataFrame, least: float) -> dict[str, float]:
    """`likeness` (`least`), `precision` and `recall` of joining down to it; NaN and 0 where that joins nobody."""
    taken = curve[curve["likeness"] >= least]
    precision, recall = taken[["precision", "recall"]].iloc[-1] if len(taken) else (float("nan"), 0.0)
    return {"likeness": least, "precision": float(precision), "recall": float(recall)}


def find_people(described: np.ndarray | Sequence[np.ndarray], test: pd.DataFrame, learned: Learned) -> pd.DataFrame:
    """Columns `ImageID, group, certainty`, rows as in `test`: who of its photos belong together.

    described: as for `learn`, rows as in `test` (`ImageID, p00 … p17`). `group` numbers from 0 in order of
    first appearance; nobody has more than seven photos, or more of a surely predicted mask than
    `voting.LIMITS` allows. `certainty`, 0-1, is the share of a photo's mates that should show the same person;
    photos that cannot be placed are alone in their group and have none (NaN).
    Raises ValueError for another number of rows, and for features that are not finite.
    """
    vectors = learned.view.vectors(flat(described, len(test)))
    group = joined(merges(vectors, sure_masks(test), learned.threshold), len(test))
    found = group_table(group, mates_likeness(vectors, group), learned.right_by_likeness)
    return test[["ImageID"]].reset_index(drop=True).join(found)


def vote(test: pd.DataFrame, groups: pd.DataFrame, key: str = "ImageID") -> pd.DataFrame:
    """`test` with the gender and age of each group voted upon; a photo's own mask, and who is alone, stay.

    test: `ImageID, p00 … p17`, or other columns beside `key` and the probabilities; groups: `key, group`,
    the same photos in any order. The votes are averaged as logarithms, so that a photo that is sure
    counts for more than one that is not. In groups of two or more, mask, gender and age become
    independent, as three heads make them; rows sum to 1. Raises ValueError for photos without a group,
    groups without a photo, and for unsound probabilities.
    """
    scores.check_probabilities(test[[name for name in (key, "label") if name in test] + VOTED_COLUMNS], key)
    group_of = groups.set_index(key)["group"]
    different = set(test[key]) ^ set(group_of.index)
    if different or len(groups) != len(test):
        raise ValueError(
            f"the groups are of other photos: {len(groups)} and {len(test)} rows, {len(different)} photos in one only"
            f", such as {sorted(different)[:3]}; find the people of these very photos"
        )
    codes, _ = pd.factorize(group_of[test[key]])
    found = test[VOTED_COLUMNS].to_numpy(dtype=np.float64)
    parts = labels.marginals(found / found.sum(axis=1, keepdims=True))
    for name in ("gender", "age"):
        parts[name] = geometric_means(parts[name], codes)[codes]
    is_alone = np.bincount(codes)[codes] == 1
    voted = np.where(is_alone[:, None], found, labels.joint(parts))
    return test.assign(**dict(zip(VOTED_COLUMNS, voted.T, strict=True)))


def vote_report(out_of_fold: pd.DataFrame, learned: Learned, draws: int = 1000, seed: int = 0) -> Report:
    """How sure the groups are, and macro F1 before and after the vote, on the photos that were learned from.

    out_of_fold: `path, person, label, p00 … p17`, as given to `learn`. Each photo was grouped by what
    other people taught; only the threshold, one number, has seen them all.
    """
    table = out_of_fold[["path", "label", *VOTED_COLUMNS]]
    truth, before = scores.from_probabilities(table)
    _, after = scores.from_probabilities(vote(table, learned.groups, key="path"))
    gain = scores.paired_bootstrap(truth, before, after, out_of_fold["person"].to_numpy(), draws=draws, seed=seed)
    return Report(
        precision=learned.precision,
        recall=learned.recall,
        wanted=learned.wanted,
        grouped=float(learned.groups["certainty"].notna().mean()),
        before=scores.summarise(truth, before)["macro_f1"],
        after=scores.summarise(truth, after)["macro_f1"],
        gain=gain,
    )


def voting_summary(found: Report) -> str:
    """What `report` found, in a few sentences, with the advice to vote or not."""
    if not found.grouped:
        return f"No likeness joins photos with a pair precision of {found.wanted:.0%}: nobody votes, leave it off."
    gain = found.gain.loc["macro_f1"]
    advice = "Voting is worth switching on" if found.is_advised else "That may be chance: leave voting off"
    return (
        f"On training people not learned from, {found.precision:.1%} of the pairs of photos that were joined show "
        f"one person, and {found.recall:.0%} of the pairs that do were joined; {found.grouped:.0%} of the photos have "
        f"company. Voting takes macro F1 from {found.before:.3f} to {found.after:.3f}, a difference of "
        f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}). {advice}."
    )


def right_by_likeness(likeness: np.ndarray, right: np.ndarray) -> IsotonicRegression | None:
    """The share of right mates as a function of likeness that never falls; None where nobody has mates."""
    known = np.isfinite(likeness) & np.isfinite(right)
    if not known.any():
        return None
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(likeness[known], right[known])


def group_table(group: np.ndarray, likeness: np.ndarray, right: IsotonicRegression | None) -> pd.DataFrame:
    """Columns `group, certainty`; NaN for photos that are alone."""
    certainty, has_mates = np.full(len(group), np.nan), np.isfinite(likeness)
    if right is not None and has_mates.any():
        certainty[has_mates] = right.predict(likeness[has_mates])
    return pd.DataFrame({"group": group, "certainty": certainty})


def geometric_means(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(G, K) by group the mean of the logarithms of (N, K) probabilities, as probabilities that sum to 1."""
    sizes = np.bincount(codes)
    sums = np.zeros((len(sizes), probabilities.shape[1]))
    np.add.at(sums, codes, np.log(np.maximum(probabilities, LEAST)))
    means = np.exp(sums / sizes[:, None])
    return means / means.sum(axis=1, keepdims=True)


ALWAYS = "always"


@dataclasses.dataclass(frozen=True)
class Poll:
    """An ensemble's tables after the vote, or as they were where nobody voted."""

    test: pd.DataFrame  # ImageID, p00 … p17
    test_val: pd.DataFrame  # path, label, p00 … p17, person
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 … p17; what a score is expected from
    has_voted: bool
    reason: str  # whether photos voted and why, in a few sentences


def wanted(person_voting: bool | str | None) -> bool | str:
    """False: nobody votes; True: where the vote proves its worth; `ALWAYS`. Raises ValueError for anything else."""
    if not (person_voting is None or isinstance(person_voting, bool) or person_voting == ALWAYS):
        raise ValueError(
            f"person_voting = {person_voting!r}: write false, true (if it proves its worth) or {ALWAYS!r} (in any case)"
        )
    return person_voting or False


def poll(
    person_voting: bool | str | None,
    data_dir: Path,
    output_dir: Path,
    test: pd.DataFrame,
    test_val: pd.DataFrame,
    out_of_fold: pd.DataFrame | None,
    frame: store.Frame,
    seed: int = 0,
) -> Poll:
    """Let photos that seem to show one person vote, if `person_voting` asks for it; tables as `Poll` has them.

    out_of_fold: of the same networks on training photos; from these is learned who looks like whom and
    what the vote gains, so without them (None) nobody votes. With True the vote is held only where its gain
    in macro F1 there is above 0 for sure. test_val's people are looked for among themselves: as they are
    fewer than the evaluation set's, that goes a little better than it will there. Evaluation photos that
    could not be read have no vote and stay as they are.
    """
    asked = wanted(person_voting)
    if not asked or out_of_fold is None:
        why = ": that takes out-of-fold tables of every member" if asked else ""
        return Poll(test, test_val, out_of_fold, False, f"Nobody voted{why}.")
    groups = splits.read_groups(output_dir)
    known = out_of_fold if groups is None else out_of_fold.assign(person=out_of_fold["person"].map(groups))
    evaluated = photos.read_evaluated(output_dir)
    train = _in_order(photos.read_labeled(output_dir), [*known["path"], *test_val["path"]])
    arrays = described(data_dir, output_dir, train, frame)
    learned = learn([one[: len(known)] for one in arrays], known, len(evaluated), seed=seed)
    report = vote_report(known, learned, seed=seed)
    reason = voting_summary(report)
    if not (report.is_advised or asked == ALWAYS):
        return Poll(test, test_val, out_of_fold, False, f"{reason} Nobody voted.")
    seen = test[test["ImageID"].isin(evaluated["path"])]
    looks = described(data_dir, output_dir, _in_order(evaluated, list(seen["ImageID"])), frame)
    whole = test.set_index("ImageID")
    whole.loc[seen["ImageID"], VOTED_COLUMNS] = _voted(looks, seen, "ImageID", learned)[VOTED_COLUMNS].to_numpy()
    held_out = _voted([one[len(known) :] for one in arrays], test_val, "path", learned) if len(test_val) else test_val
    after = vote(out_of_fold, learned.groups, key="path")
    said = f"{reason} Photos of a person voted{'' if report.is_advised else f': person_voting is {ALWAYS!r}'}."
    return Poll(whole.reset_index()[list(test.columns)], held_out, after, True, said)


def described(data_dir: Path, output_dir: Path, table: pd.DataFrame, frame: store.Frame) -> list:
    """What the photos of a table look like, rows as in `table`: (N, D) arrays of a backbone, and small photos."""
    opened = dataset.open_photos(data_dir, output_dir, table, frame)
    small = hashes.open_hashes(Path(output_dir) / "hashes", data_dir, table).small
    rows = opened.rows(list(table["path"]))
    return [*(one[rows] for one in features.stage_features(opened, Path(output_dir) / "features")), small]


def _in_order(table: pd.DataFrame, paths: list[str]) -> pd.DataFrame:
    """The rows of a photo table that `paths` name, in their order."""
    return table.set_index("path").loc[paths].rename_axis("path").reset_index()


def _voted(looks: list, table: pd.DataFrame, key: str, learned: Learned) -> pd.DataFrame:
    """`table` after the vote of the people found among its photos; looks: arrays with rows as in `table`."""
    people = find_people(looks, table.rename(columns={key: "ImageID"}), learned)
    return vote(table, people.rename(columns={"ImageID": key}), key)
