"""Which evaluation photos show the same person, and what their gender and age are if those photos vote.

Nobody says who is on an evaluation photo. But whom a network's features, or a small grey picture, make
look alike can be learned from the training photos, whose people are known, and so can how often that
goes wrong: everything here is fitted on some people and judged on others.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression

from mask_lib import grouping, labels, scores

COLUMNS = list(labels.PROBABILITY_COLUMNS)
LEAST_PEOPLE = 4  # two to learn from and two to judge by
MOST_PARTS = 10  # into which the training people are split
LEAST = 1e-7  # probability below which a logarithm would let one photo outvote all others


@dataclasses.dataclass(frozen=True)
class Learned:
    """What the training photos teach about finding people, and how well it went on people not learned from."""

    view: grouping.View
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
    person under two names (`folds.read_groups`), or true pairs look wrong. The people are split into
    parts of about as many as the evaluation photos show, at least two: each part is searched with what
    the others teach. More people to find are more chances to mistake one for another; where a part
    holds fewer than the evaluation set, its mistakes are counted up in proportion. The precision must be
    had from whole people and again from people of whom photos are missing at random: a full group takes
    in no stranger, which flatters wherever all seven photos are there. Of an evaluation set that holds
    one or two photos a person it promises nothing.
    Raises ValueError for another number of rows, features that are not finite, fewer than four people,
    or a precision outside 0-1.
    """
    table, stacked = out_of_fold.reset_index(drop=True), grouping.flat(described, len(out_of_fold))
    person, names = pd.factorize(table["person"])
    _require_learnable(len(names), precision)
    asked_people = max(1, evaluation_photos / grouping.PHOTOS_A_PERSON)
    parts = int(np.clip(round(len(names) / asked_people), 2, min(MOST_PARTS, len(names) // 2)))
    searched = searched_parts(stacked, person, grouping.sure_masks(table), parts, seed)
    crowding = max(1.0, asked_people * parts / len(names))
    chosen = chosen_likeness(searched, person, crowding, precision)
    group, likeness = joined_from(chosen["likeness"], searched, len(table))
    right = right_by_likeness(likeness, grouping.right_mates(group, person))
    return Learned(
        view=grouping.fitted(stacked, person),
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
) -> list[grouping.Searched]:
    """The photos in so many parts, drawn person by person, each searched with what the others teach.

    described: (N, D); person: (N,) int64 from 0; masks: (N, 3), as `grouping.sure_masks` gives them.
    """
    generator = np.random.default_rng(seed)
    part_of = (generator.permutation(person.max() + 1) % parts)[person]
    return list(grouping.held_out(described, person, part_of, masks, grouping.thinned(person, generator)))


def chosen_likeness(
    searched: Sequence[grouping.Searched], person: np.ndarray, crowding: float, precision: float
) -> dict[str, float]:
    """`last_from` the least likeness that is precise enough with all photos there, and with some missing."""
    whole, gappy = (
        grouping.precision_curve([join for joins in several for join in joins], person, crowding)
        for several in ([one.joins for one in searched], [one.gappy_joins for one in searched])
    )
    return last_from(whole, max(lowest_good(curve, precision) for curve in (whole, gappy)))


def joined_from(least: float, searched: Sequence[grouping.Searched], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) groups of all parts' photos, joined down to the likeness `least`, and (N,) mean cosines to their mates."""
    joins = [join for one in searched for join in one.joins if join[0] >= least]
    group, likeness = grouping.joined(joins, count), np.empty(count)
    for one in searched:
        likeness[one.rows] = grouping.mates_likeness(one.vectors, group[one.rows])
    return group, likeness


def lowest_good(curve: pd.DataFrame, precision: float) -> float:
    """The least likeness of a `grouping.precision_curve` at which it is precise enough; inf where there is none."""
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
    `grouping.LIMITS` allows. `certainty`, 0-1, is the share of a photo's mates that should show the same person;
    photos that cannot be placed are alone in their group and have none (NaN).
    Raises ValueError for another number of rows, and for features that are not finite.
    """
    vectors = learned.view.vectors(grouping.flat(described, len(test)))
    group = grouping.joined(grouping.merges(vectors, grouping.sure_masks(test), learned.threshold), len(test))
    found = group_table(group, grouping.mates_likeness(vectors, group), learned.right_by_likeness)
    return test[["ImageID"]].reset_index(drop=True).join(found)


def vote(test: pd.DataFrame, groups: pd.DataFrame, key: str = "ImageID") -> pd.DataFrame:
    """`test` with the gender and age of each group voted upon; a photo's own mask, and who is alone, stay.

    test: `ImageID, p00 … p17`, or other columns beside `key` and the probabilities; groups: `key, group`,
    the same photos in any order. The votes are averaged as logarithms, so that a photo that is sure
    counts for more than one that is not. In groups of two or more, mask, gender and age become
    independent, as three heads make them; rows sum to 1. Raises ValueError for photos without a group,
    groups without a photo, and for unsound probabilities.
    """
    scores.check_probabilities(test[[name for name in (key, "label") if name in test] + COLUMNS], key)
    group_of = groups.set_index(key)["group"]
    different = set(test[key]) ^ set(group_of.index)
    if different or len(groups) != len(test):
        raise ValueError(
            f"the groups are of other photos: {len(groups)} and {len(test)} rows, {len(different)} photos in one only"
            f", such as {sorted(different)[:3]}; find the people of these very photos"
        )
    codes, _ = pd.factorize(group_of[test[key]])
    found = test[COLUMNS].to_numpy(dtype=np.float64)
    parts = labels.marginals(found / found.sum(axis=1, keepdims=True))
    for name in ("gender", "age"):
        parts[name] = geometric_means(parts[name], codes)[codes]
    is_alone = np.bincount(codes)[codes] == 1
    voted = np.where(is_alone[:, None], found, labels.joint(**parts))
    return test.assign(**dict(zip(COLUMNS, voted.T, strict=True)))


def report(out_of_fold: pd.DataFrame, learned: Learned, draws: int = 1000, seed: int = 0) -> Report:
    """How sure the groups are, and macro F1 before and after the vote, on the photos that were learned from.

    out_of_fold: `path, person, label, p00 … p17`, as given to `learn`. Each photo was grouped by what
    other people taught; only the threshold, one number, has seen them all.
    """
    table = out_of_fold[["path", "label", *COLUMNS]]
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


def in_words(found: Report) -> str:
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
