"""Which labels are probably wrong, worst first, from out-of-fold probabilities and what a person's photos share."""

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from mask_lib.base import labels
from mask_lib.base.labels import Mask

SUSPECT_COLUMNS = ["path", "field", "current", "suggested", "score", "why"]
LEAST = 1e-4  # probability below which a network's certainty counts for nothing more
PERSON_FIELDS = ("gender", "age")  # the same on all photos of a person
WORDS = {"gender": labels.GENDER_WORDS, "age": labels.AGE_WORDS}
MASK_DOUBT = 2.5  # log odds taken off a photo without a partner: files are misnamed in pairs, seldom one by one
BORDER_DOUBT = 2.0  # log odds taken off an age right at the border of two groups
BORDER_WIDTH = 6.0  # years over which that fades
FOLLOWS = 0.7  # what a photo counts whose person has another photo in the queue before it
ISSUE_BONUS = 0.5  # what cleanlab's verdict "this label is an issue" adds, in log odds
DUPLICATE_BONUS = 2.0  # what a copy of the photo with another label adds, in log odds


def rank(
    photo_table: pd.DataFrame, probabilities: pd.DataFrame, duplicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Every train photo that has probabilities, the most suspicious label first.

    photo_table: columns `path, person, mask, label` (the photo table's train rows); probabilities:
    `path, p00 … p17`, out-of-fold; duplicates: `hash, path, label, set`, groups of copies by
    `hash`. The result has `SUSPECT_COLUMNS`, one row a photo:

    - `field`: what is suspected, `mask`, `gender`, `age`, or `swap` where the person's normal and
      incorrect photo seem to have changed places
    - `current`, `suggested`: labels 0-17, equal where nothing speaks against the current one
    - `score`: 0-1, how likely the evidence makes another value of that field; see `in_order`
    - `why`: the same in words

    Gender and age are judged once for all photos of a person.
    Raises ValueError if no photo has probabilities.
    """
    table = photo_table.merge(probabilities[["path", *labels.PROBABILITY_COLUMNS]], on="path", how="inner")
    if table.empty:
        raise ValueError("none of the photos has out-of-fold probabilities: train a run on this photo table first")
    table = table.astype({"label": "int64"})
    parts = labels.marginals(table[list(labels.PROBABILITY_COLUMNS)].to_numpy(dtype="float64"))
    given = labels.decode_all(table["label"].to_numpy())
    evidence = [person_evidence(table, parts[field], given[field], field) for field in PERSON_FIELDS]
    evidence[-1]["odds"] -= border_doubt(table, evidence[-1]["suggested"].to_numpy())
    evidence += [mask_evidence(table, parts["mask"], given["mask"]), swap_evidence(table, parts["mask"])]
    found = pd.concat([one for one in evidence if len(one)], ignore_index=True)
    if duplicates is not None and len(duplicates):
        found = with_duplicates(found, table, duplicates)
    return in_order(found, table)


def clipped(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) probabilities, none below `LEAST`, rows sum to 1."""
    safe = np.maximum(probabilities, LEAST)
    return safe / safe.sum(axis=1, keepdims=True)


def log_odds_against(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) log odds that the given value (N,) is wrong, by (N, K) probabilities."""
    own = clipped(probabilities)[np.arange(len(given)), given]
    return np.log1p(-np.minimum(own, 1 - LEAST)) - np.log(own)


def issue_bonus(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) log odds that confident learning adds: cleanlab's issues, and its quality score as a tie-break.

    Northcutt, Jiang and Chuang, "Confident Learning", 2021: a label is an issue if another class is
    more probable than is usual for photos of that class.
    """
    present, codes = np.unique(given, return_inverse=True)
    if len(present) < 2:
        return np.zeros(len(given))
    safe = clipped(probabilities[:, present])  # cleanlab wants every class it is told of to occur
    is_issue = find_label_issues(codes, safe, n_jobs=1)
    return ISSUE_BONUS * is_issue + 0.1 * (1 - get_label_quality_scores(codes, safe))


def person_evidence(table: pd.DataFrame, probabilities: np.ndarray, given: np.ndarray, field: str) -> pd.DataFrame:
    """Evidence against gender or age, from all photos of each person taken together."""
    person = table["person"].to_numpy()
    together = pd.DataFrame(probabilities).groupby(person).transform("mean").to_numpy()
    bonus = pd.Series(issue_bonus(probabilities, given)).groupby(person).transform("mean").to_numpy()
    best, looks = together.argmax(axis=1), probabilities.argmax(axis=1)
    agreeing = pd.Series(looks == best).groupby(person).transform("sum")
    counts = pd.Series(person).groupby(person).transform("size")
    words = list(WORDS[field].values())
    why = [
        f"{few} of {many} photos of this person look {words[new]}, not {words[old]}"
        for few, many, new, old in zip(agreeing, counts, best, given, strict=True)
    ]
    return evidence_table(table, field, given, best, log_odds_against(together, given) + bonus, why)


def border_doubt(table: pd.DataFrame, suggested: np.ndarray) -> np.ndarray:
    """(N,) log odds to take off an age's evidence: most where the recorded age lies at the border that is crossed.

    Nobody sees the difference between 59 and 60 years: there, looking like the other group is normal
    and no sign of a wrong row. 0 without a column `age`.
    """
    if "age" not in table:
        return np.zeros(len(table))
    years = pd.to_numeric(table["age"]).fillna(-1000).to_numpy(dtype="float64")
    given, groups = (labels.decode_all(found)["age"] for found in (table["label"].to_numpy(), suggested))
    # The border next to the suggested group, on the side of the given one.
    edge = np.array(labels.AGE_EDGES)[np.clip(np.where(groups < given, groups, groups - 1), 0, 1)]
    return np.where(groups == given, 0, BORDER_DOUBT * np.exp(-np.abs(years - edge) / BORDER_WIDTH))


def mask_evidence(table: pd.DataFrame, probabilities: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """Evidence against how the mask is worn on single photos."""
    best = probabilities.argmax(axis=1)
    odds = log_odds_against(probabilities, given) + issue_bonus(probabilities, given)
    odds -= MASK_DOUBT * ~has_partner(table["person"].to_numpy(), given, best)
    words = list(labels.MASK_WORDS.values())
    why = [
        f'the mask looks "{words[new]}" ({share:.0%}); the label says "{words[old]}"'
        for new, old, share in zip(best, given, probabilities.max(axis=1), strict=True)
    ]
    return evidence_table(table, "mask", given, best, odds, why)


def has_partner(person: np.ndarray, given: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(N,) bool: another photo of the person looks like this one's label, and this one like the other's."""
    moves = set(zip(person, given, best, strict=True))
    return np.array(
        [new != old and (who, new, old) in moves for who, old, new in zip(person, given, best, strict=True)], dtype=bool
    )


def swap_evidence(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Evidence that a person's normal and incorrect photo have each other's label."""
    logs, given = np.log(clipped(probabilities)), labels.decode_all(table["label"].to_numpy())["mask"]
    found = []
    for mask, other in ((Mask.INCORRECT, Mask.NOT_WORN), (Mask.NOT_WORN, Mask.INCORRECT)):
        rows = np.flatnonzero(given == mask)
        found.append(pd.DataFrame({"row": rows, "to": int(other), "odds": logs[rows, other] - logs[rows, mask]}))
    both = pd.concat(found).assign(person=lambda all_rows: table["person"].to_numpy()[all_rows["row"]])
    groups = both.groupby("person")
    is_pair = (groups["row"].transform("size") == 2) & (groups["to"].transform("nunique") == 2)
    pairs = both[is_pair].assign(odds=groups["odds"].transform("sum")[is_pair])
    # Where the two would rather stay, or only one of them would go, the photo's own evidence says all there is.
    pairs = pairs[pairs["odds"] > 0]
    rows = pairs["row"].to_numpy()
    why = ["this person's normal and incorrect photo look as if they had changed places"] * len(rows)
    return evidence_table(
        table.iloc[rows], "swap", given[rows], pairs["to"].to_numpy(), pairs["odds"].to_numpy(), why, "mask"
    )


def evidence_table(
    rows: pd.DataFrame,
    field: str,
    given: np.ndarray,
    best: np.ndarray,
    odds: np.ndarray,
    why: list[str],
    attribute: str | None = None,
) -> pd.DataFrame:
    """Evidence as a table: path, person, field, current, suggested (labels 0-17), odds (log), why."""
    current = rows["label"].to_numpy()
    parts = labels.decode_all(current) | {attribute or field: best}
    suggested = np.ravel_multi_index((parts["mask"], parts["gender"], parts["age"]), labels.SHAPE)
    return pd.DataFrame(
        {
            "path": rows["path"].to_numpy(),
            "person": rows["person"].to_numpy(),
            "field": field,
            "current": current,
            "suggested": suggested,
            "odds": odds,
            "why": np.where(best == given, "nothing speaks against this label", why),
        }
    )


def with_duplicates(found: pd.DataFrame, table: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Evidence with more weight for photos whose copies carry another label, the copy named in `why`."""
    label_of = table.set_index("path")["label"]
    copies = duplicates[duplicates["path"].isin(label_of.index)]
    copies = copies[["hash", "path"]].assign(label=label_of[copies["path"]].to_numpy())
    pairs = copies.merge(copies, on="hash", suffixes=("", "_other"))
    conflicts = pairs[pairs["label"] != pairs["label_other"]].drop_duplicates("path").set_index("path")
    is_hit = found["path"].isin(conflicts.index)
    others = found["path"].map(conflicts["path_other"]), found["path"].map(conflicts["label_other"])
    copied = np.where(found["suggested"] == found["current"], others[1].fillna(-1), found["suggested"]).astype(int)
    fields = [
        differing_field(label, other) if hit else ""
        for hit, label, other in zip(is_hit, found["current"], others[1], strict=True)
    ]
    # The copy speaks against the one attribute in which the labels differ, not against the others.
    is_hit &= found["field"] == fields
    return found.assign(
        odds=found["odds"] + DUPLICATE_BONUS * is_hit,
        suggested=np.where(is_hit, copied, found["suggested"]),
        why=[
            f"a copy of it, {other}, is labeled {labels.describe(label)}; {why}" if hit else why
            for hit, other, label, why in zip(is_hit, *others, found["why"], strict=True)
        ],
    )


def differing_field(label: int, other: int) -> str:
    """The first attribute in which two labels differ, gender before age before mask."""
    pairs = dict(zip(labels.ATTRIBUTES, zip(labels.decode(label), labels.decode(int(other)), strict=True), strict=True))
    return next((field for field in ("gender", "age", "mask") if pairs[field][0] != pairs[field][1]), "")


def in_order(found: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Per photo its strongest evidence, worst first, and of each person's suspicion one photo before the others.

    That photo leads: it shows the face if there is one that does. Who decides it for the person has
    decided the others, which then wait no more. They count a little less, so that suspicions of
    about the same weight show all their faces first; much less, and the top of the list would miss
    photos that are as surely wrong as their leaders.
    """
    strongest = found.sort_values("odds", ascending=False, kind="stable").drop_duplicates("path")
    shows_face = labels.decode_all(strongest["current"].to_numpy())["mask"] == Mask.NOT_WORN
    place = strongest["path"].map(dict(zip(table["path"], range(len(table)), strict=True)))
    strongest = strongest.assign(place=place, shows_face=shows_face).sort_values(
        ["shows_face", "place"], ascending=[False, True], kind="stable"
    )
    follows = strongest.duplicated(["person", "field"]) & strongest["field"].isin(PERSON_FIELDS)
    score = (1 / (1 + np.exp(-strongest["odds"]))).where(~follows, lambda whole: FOLLOWS * whole)
    is_open = strongest["suggested"] != strongest["current"]
    # A label that nothing speaks against stands behind all others, however unsure its probability.
    ordered = strongest.assign(score=score.where(is_open, score / 10).round(6)).sort_values(
        ["score", "person", "place"], ascending=[False, True, True], kind="stable", ignore_index=True
    )
    return ordered[SUSPECT_COLUMNS]
