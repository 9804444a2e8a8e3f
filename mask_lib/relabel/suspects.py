"""Which labels are probably wrong, worst first, from out-of-fold probabilities and what a person's photos share."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from mask_lib.base import labels
from mask_lib.relabel.keys import Swap, swap_of

SUSPECT_COLUMNS = ["path", "field", "current", "suggested", "score", "why"]
LEAST = 1e-4  # probability below which a network's certainty counts for nothing more
SINGLE_DOUBT = 2.5  # log odds taken off a photo without a partner: files are misnamed in pairs, seldom one by one
BORDER_DOUBT = 2.0  # log odds taken off a number right at the edge of two groups
BORDER_WIDTH = 6.0  # years over which that fades
FOLLOWS = 0.7  # what a photo counts whose person has another photo in the queue before it
ISSUE_BONUS = 0.5  # what cleanlab's verdict "this label is an issue" adds, in log odds
DUPLICATE_BONUS = 2.0  # what a copy of the photo with another label adds, in log odds


def rank(photos: pd.DataFrame, probabilities: pd.DataFrame, duplicates: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every train photo that has probabilities, the most suspicious label first.

    photos: columns `path, person, label`, and the numeric attribute's (`age`); probabilities: `path, p00 …`,
    out-of-fold; duplicates: `hash, path`. The result has `SUSPECT_COLUMNS`:

    - `field`: the suspected attribute, or `swap`: the two photos of `keys.swap_of` seem to have changed places
    - `current`, `suggested`: classes, equal where nothing speaks against the current one
    - `score`: 0-1, how likely the evidence makes another value of that field; `why`: the same as a sentence

    Raises ValueError if no photo has probabilities.
    """
    columns = labels.probability_columns()
    table = photos.merge(probabilities[["path", *columns]], on="path").astype({"label": "int64"})
    if table.empty:
        raise ValueError("none of the photos has out-of-fold probabilities: train a run on this photo table first")
    parts = labels.marginals(table[columns].to_numpy(dtype="float64"))
    given = labels.decode_all(table["label"].to_numpy())
    # Of equal evidence the first counts: what a person's photos say together goes before what one says.
    found = [person_evidence(table, name, parts[name], given[name]) for name in labels.names(of_person=True)]
    found += [photo_evidence(table, name, parts[name], given[name]) for name in labels.names(of_person=False)]
    if swap := swap_of(table):
        found.append(swap_evidence(table, swap, parts[swap.attribute], given[swap.attribute]))
    evidence = pd.concat(found, ignore_index=True)
    if duplicates is not None and len(duplicates):
        evidence = with_duplicates(evidence, table, duplicates)
    return in_order(evidence, table)


def clipped(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) probabilities, none below `LEAST`, rows sum to 1."""
    safe = np.maximum(probabilities, LEAST)
    return safe / safe.sum(axis=1, keepdims=True)


def log_odds_against(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) log odds that the given value (N,) is wrong, by (N, K) probabilities."""
    own = clipped(probabilities)[np.arange(len(given)), given]
    return np.log1p(-np.minimum(own, 1 - LEAST)) - np.log(own)


def issue_bonus(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) log odds of cleanlab's issues (Northcutt et al., "Confident Learning", 2021), its score as a tie-break."""
    present, codes = np.unique(given, return_inverse=True)
    if len(present) < 2:
        return np.zeros(len(given))
    safe = clipped(probabilities[:, present])  # cleanlab wants every class it is told of to occur
    is_issue = find_label_issues(codes, safe, n_jobs=1)
    return ISSUE_BONUS * is_issue + 0.1 * (1 - get_label_quality_scores(codes, safe))


def person_evidence(table: pd.DataFrame, name: str, probabilities: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """Evidence against an attribute of the person, from all photos of each person taken together."""
    person = table["person"].to_numpy()
    together = pd.DataFrame(probabilities).groupby(person).transform("mean").to_numpy()
    bonus = pd.Series(issue_bonus(probabilities, given)).groupby(person).transform("mean").to_numpy()
    best = together.argmax(axis=1)
    agreeing = pd.Series(probabilities.argmax(axis=1) == best).groupby(person).transform("sum")
    counts = pd.Series(person).groupby(person).transform("size")
    words = labels.attribute(name).words
    why = [
        f"{few} of {many} photos of this person look {words[new]}, not {words[old]}"
        for few, many, new, old in zip(agreeing, counts, best, given, strict=True)
    ]
    odds = log_odds_against(together, given) + bonus - border_doubt(table, name, given, best)
    return evidence_of(table, name, best, odds, why)


def photo_evidence(table: pd.DataFrame, name: str, probabilities: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """Evidence against an attribute of single photos, such as how the mask is worn."""
    best = probabilities.argmax(axis=1)
    odds = log_odds_against(probabilities, given) + issue_bonus(probabilities, given)
    odds -= SINGLE_DOUBT * lacks_partner(table["person"].to_numpy(), given, best)
    words = labels.attribute(name).words
    why = [
        f'the {name} looks "{words[new]}" ({share:.0%}); the label says "{words[old]}"'
        for new, old, share in zip(best, given, probabilities.max(axis=1), strict=True)
    ]
    return evidence_of(table, name, best, odds - border_doubt(table, name, given, best), why)


def border_doubt(table: pd.DataFrame, name: str, given: np.ndarray, suggested: np.ndarray) -> np.ndarray:
    """(N,) log odds to take off evidence against a number, most at the edge crossed: nobody sees 59 from 60 years."""
    edges = np.array(labels.attribute(name).edges)
    if name not in table or not len(edges):
        return np.zeros(len(table))
    written = pd.to_numeric(table[name]).fillna(-1000).to_numpy(dtype="float64")  # far from any edge: no doubt
    # Value k lies between edges k-1 and k: the edge of the suggested value on the side of the given one.
    edge = edges[np.clip(np.where(suggested < given, suggested, suggested - 1), 0, len(edges) - 1)]
    return np.where(suggested == given, 0, BORDER_DOUBT * np.exp(-np.abs(written - edge) / BORDER_WIDTH))


def lacks_partner(person: np.ndarray, given: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(N,) bool: no other photo of the person looks like this one's label while this one looks like the other's."""
    moves = set(zip(person, given, best, strict=True))
    lacks = [new == old or (who, new, old) not in moves for who, old, new in zip(person, given, best, strict=True)]
    # The only photo of a person tells nothing of pairs.
    return np.array(lacks, dtype=bool) & (pd.Series(person).groupby(person).transform("size").to_numpy() > 1)


def swap_evidence(table: pd.DataFrame, swap: Swap, probabilities: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """Evidence that two photos of a person have each other's label."""
    (first, second), logs = swap.values, np.log(clipped(probabilities))
    rows = np.flatnonzero(np.isin(given, swap.values))
    to = np.where(given[rows] == first, second, first)
    both = pd.DataFrame({"row": rows, "to": to, "odds": logs[rows, to] - logs[rows, given[rows]]})
    groups = both.groupby(table["person"].to_numpy()[rows])
    is_pair = (groups["row"].transform("size") == 2) & (groups["to"].transform("nunique") == 2)
    both = both.assign(odds=groups["odds"].transform("sum"))
    # Where the two would rather stay, or only one of them would go, the photo's own evidence says all there is.
    pairs = both[is_pair & (both["odds"] > 0)]
    why = "this person's {} and {} photo look as if they had changed places".format(*swap.words)
    rows, best, odds = (pairs[name].to_numpy() for name in ("row", "to", "odds"))
    return evidence_of(table.iloc[rows], swap.attribute, best, odds, why).assign(field="swap")


def evidence_of(rows: pd.DataFrame, name: str, best: np.ndarray, odds: np.ndarray, why: Sequence[str]) -> pd.DataFrame:
    """Columns path, person, field, current, suggested (classes), odds (log), why: `best` are values of `name`."""
    parts = labels.decode_all(rows["label"].to_numpy())
    return rows[["path", "person"]].assign(
        field=name,
        current=rows["label"],
        suggested=labels.encode_all(parts | {name: best}),
        odds=odds,
        why=np.where(best == parts[name], "nothing speaks against this label", why),
    )


def with_duplicates(evidence: pd.DataFrame, table: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Evidence with more weight for photos whose copies carry another label, the copy named in `why`."""
    copies = duplicates[["hash", "path"]].merge(table[["path", "label"]], on="path")
    pairs = copies.merge(copies, on="hash", suffixes=("", "_other"))
    conflicts = pairs[pairs["label"] != pairs["label_other"]].drop_duplicates("path").set_index("path")
    others = evidence["path"].map(conflicts["path_other"]), evidence["path"].map(conflicts["label_other"])
    # The copy speaks against the first attribute in which the labels differ, the person's before the photo's.
    both = (map(labels.values_of, conflicts[one]) for one in ("label", "label_other"))
    names = [*labels.names(of_person=True), *labels.names(of_person=False)]
    differing = [next(name for name in names if one[name] != two[name]) for one, two in zip(*both, strict=True)]
    is_hit = evidence["field"] == evidence["path"].map(dict(zip(conflicts.index, differing, strict=True)))
    unchanged = evidence["suggested"] == evidence["current"]
    return evidence.assign(
        odds=evidence["odds"] + DUPLICATE_BONUS * is_hit,
        suggested=evidence["suggested"].where(~(is_hit & unchanged), others[1]).astype("int64"),
        why=[
            f"a copy of it, {other}, is labeled {labels.describe(label)}; {why}" if hit else why
            for hit, other, label, why in zip(is_hit, *others, evidence["why"], strict=True)
        ],
    )


def in_order(evidence: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Per photo its strongest evidence, worst first, and of each person's suspicion one photo before the others.

    That photo, which shows the face if one does, leads: deciding it for the person decides the others, which count a
    little less; much less, and the top of the list would miss photos that are as surely wrong.
    """
    strongest = evidence.sort_values("odds", ascending=False, kind="stable").drop_duplicates("path")
    place = strongest["path"].map(dict(zip(table["path"], range(len(table)), strict=True)))
    # By convention the last value of a photo's own attribute covers least of the face: no mask.
    own, values = labels.names(of_person=False), labels.decode_all(strongest["current"].to_numpy())
    shows_face = values[own[0]] == labels.attribute(own[0]).size - 1 if own else False
    strongest = strongest.assign(place=place, shows_face=shows_face).sort_values(
        ["shows_face", "place"], ascending=[False, True], kind="stable"
    )
    follows = strongest.duplicated(["person", "field"]) & strongest["field"].isin(labels.names(of_person=True))
    score = (1 / (1 + np.exp(-strongest["odds"]))).where(~follows, lambda whole: FOLLOWS * whole)
    is_open = strongest["suggested"] != strongest["current"]
    # A label that nothing speaks against stands behind all others, however unsure its probability.
    ordered = strongest.assign(score=score.where(is_open, score / 10).round(6)).sort_values(
        ["score", "person", "place"], ascending=[False, True, True], kind="stable", ignore_index=True
    )
    return ordered[SUSPECT_COLUMNS]
