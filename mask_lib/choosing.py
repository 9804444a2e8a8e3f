"""Which recipe an ensemble takes, and what each member is worth to it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mask_lib import blending, calibration, scores
from mask_lib.blending import METHODS, Recipe
from mask_lib.ensemble import COLUMNS, Members, check_weights
from mask_lib.out_of_fold import OutOfFold, is_finished, read_out_of_fold
from mask_lib.scores import Score

LEVEL = 0.95  # of every interval; that of several challengers is widened so that they share its 5%
DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Choice:
    """The recipe, what it was chosen from, why, and its nested probabilities."""

    recipe: Recipe
    table: pd.DataFrame  # see `choose`; empty for weights that were given
    reason: str
    out_of_fold: pd.DataFrame | None  # path, person, label, p00 … p17: of each person by weights found without them

    @property
    def probabilities(self) -> np.ndarray:
        """(N, 18) of `out_of_fold`."""
        return self.out_of_fold[COLUMNS].to_numpy(dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A way to blend: how it is fitted, what that gives on all people, and what it answers for people left out."""

    how: dict
    recipe: Recipe
    nested: np.ndarray  # (N, 18)
    row: dict  # of the table that `choose` gives

    def is_really_better(self) -> bool:
        return bool(self.row["difference_low"] > 0)

    def moved(self) -> str:
        """Its difference in macro F1 in words."""
        return "{difference:+.4f} ({difference_low:+.4f} to {difference_high:+.4f})".format(**self.row)


def decide(
    output_dir: Path, members: Members, weights: Sequence[float], seed: int = 0
) -> tuple[OutOfFold | None, Choice]:
    """The members' out-of-fold probabilities and the recipe: the given `weights`, or if there are none the chosen ones.

    Members that are no finished runs of this experiment, such as files from elsewhere, cannot be judged:
    then there is no table, and weights that are not given are equal.
    """
    names = members.names
    unknown = [
        name
        for name, own in zip(names, members.own, strict=True)
        if not (own and is_finished(output_dir, name))  # a file from elsewhere may bear the name of a run here
    ]
    if unknown:
        check_weights(weights or [1.0] * len(names), len(names))
        parts = np.array(weights or [1.0] * len(names), dtype=np.float64)
        reason = f"{', '.join(unknown)} cannot be judged, having no out-of-fold tables here"
        kept = "the weights are as given" if weights else "equal weights are taken"
        return None, Choice(Recipe(tuple((parts / parts.sum()).tolist())), pd.DataFrame(), f"{reason}: {kept}.", None)
    found = read_out_of_fold(output_dir, names)
    return found, given(found, weights) if weights else choose(found, seed=seed)


def choose(found: OutOfFold, part_count: int = 5, seed: int = 0) -> Choice:
    """Equal weights, unless other weights, temperatures or offsets prove really better on people they have not seen.

    `table` has one row a candidate: method, macro_f1 with low and high, log_loss, difference (of macro F1)
    with difference_low and difference_high, p, weights (found on all people) and `chosen`. Ways to find
    weights are compared with equal weights; temperatures, then offsets, with what was chosen before
    them. Really better means that the paired interval by person lies above 0, at 95% for a single rival
    and wider for several, which have more luck between them; temperatures, which are fitted to log
    loss, must better that, and not lower macro F1.
    Raises ValueError when there are fewer people than parts.
    """
    parts = blending.person_parts(found.photos, part_count, seed)

    def candidate(name: str, rival: _Candidate | None = None, rivals: int = 1, **how: str | bool) -> _Candidate:
        nested = blending.nested(found.probabilities, found.truth, parts, **how)
        recipe = blending.fit(found.probabilities, found.truth, **how)
        return _Candidate(how, recipe, nested, _row(name, found, nested, recipe, rival, rivals, seed))

    equal = candidate("equal", method="equal")
    others = [name for name in METHODS if name != "equal"] if len(found.names) > 1 else []
    others = [candidate(name, equal, len(others), method=name) for name in others]
    best, why = _best_weights(equal, others)
    kept, reasons = [best], [why]
    tempered = candidate("temperatures", best, **best.how, tempering=True)
    gain = log_loss_gain(best.nested, tempered.nested, found.truth, found.person, seed=seed)
    if gain.low > 0 and tempered.row["difference"] >= 0:
        kept.append(tempered)
    falls = f"log loss falls by {gain.value:.4f} ({gain.low:+.4f} to {gain.high:+.4f}), "
    reasons.append(_verdict("Temperatures", tempered, kept, falls))
    shifted = candidate("offsets", kept[-1], **kept[-1].how, shifting=True)
    if shifted.is_really_better():
        kept.append(shifted)
    reasons.append(_verdict("Offsets by class", shifted, kept))
    table = pd.DataFrame([one.row for one in (equal, *others, tempered, shifted)])
    table["chosen"] = table["method"].isin([one.row["method"] for one in kept])
    columns = dict(zip(COLUMNS, kept[-1].nested.T, strict=True))
    return Choice(kept[-1].recipe, table, " ".join(reasons), found.photos.assign(**columns))


def given(found: OutOfFold, weights: Sequence[float]) -> Choice:
    """The choice of weights that a person gave: nothing is fitted, so nothing needs nesting.

    Raises ValueError unless each member has a weight of 0 or above, one of them above 0.
    """
    check_weights(weights, len(found.names))
    recipe = Recipe(tuple(weight / sum(weights) for weight in weights))
    columns = dict(zip(COLUMNS, recipe.blend(found.probabilities).T, strict=True))
    return Choice(recipe, pd.DataFrame(), "The weights are as given.", found.photos.assign(**columns))


def _row(
    name: str, found: OutOfFold, nested: np.ndarray, recipe: Recipe, rival: _Candidate | None, rivals: int, seed: int
) -> dict:
    """A candidate's row; `rivals` candidates share the chance of being taken for better by luck (Bonferroni)."""
    predicted = nested.argmax(axis=1)
    own = scores.bootstrap(found.truth, predicted, found.person, DRAWS, seed, LEVEL).loc["macro_f1"]
    gain = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": np.nan}
    if rival is not None:
        level = 1 - (1 - LEVEL) / rivals
        answers = rival.nested.argmax(axis=1), predicted
        gain = scores.paired_bootstrap(found.truth, *answers, found.person, DRAWS, seed, level).loc["macro_f1"]
    return {
        "method": name,
        "macro_f1": own["value"],
        "low": own["low"],
        "high": own["high"],
        "log_loss": float(calibration.log_losses(nested, found.truth).mean()),
        "difference": gain["difference"],
        "difference_low": gain["low"],
        "difference_high": gain["high"],
        "p": gain["p"],
        "weights": [round(weight, 3) for weight in recipe.weights],
    }


def _best_weights(equal: _Candidate, others: list[_Candidate]) -> tuple[_Candidate, str]:
    """The best of those that are really better than equal weights, or equal weights, and why."""
    if not others:
        return equal, "There is one member, so there are no weights to find."
    better = [one for one in others if one.is_really_better()]
    best = max(better or others, key=lambda one: one.row["difference"])
    name = best.row["method"]
    if better:
        return best, f"Weights by {name} are taken: on people they were not found on, macro F1 moves by {best.moved()}."
    return equal, (
        f"Equal weights are kept: the best other way, {name}, is not really better on people it has not seen, "
        f"macro F1 moves by {best.moved()}."
    )


def _verdict(what: str, candidate: _Candidate, kept: list[_Candidate], more: str = "") -> str:
    """Whether a step was kept and what it brings, in a sentence."""
    word = "kept" if kept[-1] is candidate else "left out"
    return f"{what} are {word}: {more}macro F1 moves by {candidate.moved()}."


def log_loss_gain(
    before: np.ndarray, after: np.ndarray, truth: np.ndarray, person: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Score:
    """By how much (N, 18) `after` has the lower mean log loss, with a 95% interval that draws people."""
    gain = calibration.log_losses(before, truth) - calibration.log_losses(after, truth)
    sums = pd.DataFrame({"gain": gain, "photos": 1.0}).groupby(np.asarray(person)).sum().to_numpy()  # (P, 2)
    times = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    drawn = times @ sums
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(float(gain.mean()), float(low), float(high))


def intervals(found: OutOfFold, choice: Choice, voted: pd.DataFrame | None = None) -> dict[str, pd.DataFrame]:
    """Out-of-fold scores, as `scores.bootstrap` gives them, of each member and of the choice, nested.

    voted: `choice.out_of_fold` after a vote. The choice of a single member is not scored beside it.
    """
    answers = {name: one.argmax(axis=1) for name, one in zip(found.names, found.probabilities, strict=True)}
    if len(found.names) > 1:
        answers["ensemble"] = choice.probabilities.argmax(axis=1)
    if voted is not None:
        answers["after the vote"] = voted[COLUMNS].to_numpy().argmax(axis=1)
    return {name: scores.bootstrap(found.truth, one, found.person) for name, one in answers.items()}


def agreement(found: OutOfFold) -> pd.DataFrame:
    """(M, M) share of photos to which two members give the same answer, named both ways."""
    answers = found.probabilities.argmax(axis=2)  # (M, N)
    shares = [[float((one == other).mean()) for other in answers] for one in answers]
    return pd.DataFrame(shares, index=found.names, columns=found.names)


def contributions(found: OutOfFold, recipe: Recipe, seed: int = 0) -> pd.DataFrame:
    """One row a member: member, weight, and how much macro F1 it adds: difference, low, high, p.

    The difference is that of the recipe to the recipe without the member, the others' weights raised in
    proportion, on the same draws of people. A single member has nothing to be compared with: no rows.
    """
    predicted = recipe.blend(found.probabilities).argmax(axis=1)
    rows = []
    for member, name in enumerate(found.names if len(found.names) > 1 else []):
        rest = recipe.without(member).blend(np.delete(found.probabilities, member, axis=0)).argmax(axis=1)
        gain = scores.paired_bootstrap(found.truth, rest, predicted, found.person, DRAWS, seed, LEVEL).loc["macro_f1"]
        rows.append({"member": name, "weight": recipe.weights[member], **gain.to_dict()})
    return pd.DataFrame(rows, columns=["member", "weight", "difference", "low", "high", "p"])
