"""Weights of an ensemble found on out-of-fold probabilities, kept only where new people confirm them.

Members are (M, N, 18) float64 probabilities of the same N photos. Whatever is found on photos flatters
itself on them, so methods are compared nested: found on some people, scored on the others.

Which recipe an ensemble takes, and what each member is worth to it.

The members' tables blended, each temperature applied where it was found: to one network's probabilities.

A temperature is fitted to out-of-fold probabilities, which come from one network a photo. A member's
table is the mean of its folds' networks, which is less sure already; tempered as a whole, it would be
corrected for what the mean has taken away.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from mask_lib.base import scores
from mask_lib.base.labels import CLASS_COUNT
from mask_lib.base.scores import Score
from mask_lib.data import splits
from mask_lib.ensemble import calibration
from mask_lib.ensemble.members import (
    COLUMNS,
    KEYS,
    Members,
    OutOfFold,
    check_weights,
    is_finished,
    read_out_of_fold,
    weighted_mean,
)
from mask_lib.training.run_folder import trained_folds

ROUNDS = 25  # of greedy selection; with replacement, so that weights come in steps of 1/25 at finest
SHARPNESS = 4.0  # power that turns a mean of probabilities into nearly its likeliest class
Find = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (M, N, 18), (N,) labels -> (M,) weights


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How members become one: each tempered, averaged by weights that sum to 1, classes shifted."""

    weights: tuple[float, ...]
    temperatures: tuple[float, ...] = ()  # one a member; empty: 1 for all
    offsets: tuple[float, ...] = (0.0,) * CLASS_COUNT  # in log probability

    def blend(self, members: np.ndarray) -> np.ndarray:
        """(N, 18) probabilities of (M, N, 18). Raises ValueError for another number of members."""
        self._check(len(members))
        mean = np.tensordot(self.weights, _tempered(members, self.temperatures), axes=1)
        return calibration.shifted(mean, self.offsets)

    def blend_tables(
        self, tables: Sequence[pd.DataFrame], key: str, networks: Sequence[np.ndarray | None] = ()
    ) -> pd.DataFrame:
        """The same of the members' tables of probabilities, aligned by `key`; rows as in the first table.

        networks: for each member (K, N, 18), its networks' own, of which its table is the mean: these are
        tempered then, and the mean taken after; None tempers the table. Raises ValueError as
        `members.weighted_mean` does.
        """
        self._check(len(tables))
        temperatures = self.temperatures or (1.0,) * len(tables)
        scaled = []
        for table, value, own in zip(tables, temperatures, networks or (None,) * len(tables), strict=True):
            each = table[COLUMNS].to_numpy()[None] if own is None else own  # (K, N, 18)
            scaled.append(_with(table, calibration.tempered(each, value).mean(axis=0)))
        mean = weighted_mean(scaled, self.weights, key)
        return _with(mean, calibration.shifted(mean[COLUMNS].to_numpy(), self.offsets))

    def without(self, member: int) -> "Recipe":
        """The recipe for the members but one, the others' weights raised to fill its place."""
        rest = np.delete(self.weights, member)
        weights = rest / rest.sum() if rest.sum() > 0 else np.full(len(rest), 1 / len(rest))
        temperatures = np.delete(self.temperatures, member) if self.temperatures else ()
        return dataclasses.replace(self, weights=tuple(weights.tolist()), temperatures=tuple(map(float, temperatures)))

    def in_words(self, names: Sequence[str]) -> str:
        """`deep (60%), wide (40%, T 1.20)`, and whether classes are shifted."""
        temperatures = self.temperatures or (1.0,) * len(self.weights)
        parts = [
            f"{name} ({weight:.0%}{f', T {temperature:.2f}' if temperature != 1 else ''})"
            for name, weight, temperature in zip(names, self.weights, temperatures, strict=True)
            if weight
        ]
        return ", ".join(parts) + (", classes shifted" if any(self.offsets) else "")

    def _check(self, count: int) -> None:
        if len(self.weights) != count or (self.temperatures and len(self.temperatures) != count):
            raise ValueError(f"a recipe for {len(self.weights)} members was given {count}")


def _tempered(members: np.ndarray, temperatures: Sequence[float]) -> np.ndarray:
    if all(value == 1 for value in temperatures):
        return members
    return np.stack([calibration.tempered(one, value) for one, value in zip(members, temperatures, strict=True)])


def _with(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    return table.assign(**dict(zip(COLUMNS, probabilities.T, strict=True)))


def equal_weights(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(M,) weights, all the same."""
    return np.full(len(members), 1 / len(members))


def greedy_weights(members: np.ndarray, truth: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """(M,) weights by Caruana's greedy selection with replacement, for macro F1; log loss breaks ties.

    Each round adds the member that makes the mean best; the best of all rounds is returned, the
    earliest of equals. Caruana et al., "Ensemble Selection from Libraries of Models", 2004.
    """
    rows = np.arange(len(truth))
    own, own_sum = members[:, rows, truth], np.zeros(len(truth))
    total, counts = np.zeros(members.shape[1:]), np.zeros(len(members))
    best, weights = -1.0, counts
    for number in range(1, rounds + 1):
        scored = []
        for member, probabilities in enumerate(members):
            mean_of_truth = np.maximum((own_sum + own[member]) / number, calibration.LEAST)
            found = calibration.macro_f1(truth, (total + probabilities).argmax(axis=1))
            scored.append((round(found, 9), float(np.log(mean_of_truth).mean())))
        member = max(range(len(members)), key=scored.__getitem__)
        total, own_sum = total + members[member], own_sum + own[member]
        counts[member] += 1
        if scored[member][0] > best:
            best, weights = scored[member][0], counts / number
    return weights


def log_loss_weights(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(M,) weights on the simplex that give the mean the least log loss; a convex problem."""
    own = members[:, np.arange(len(truth)), truth]  # (M, N)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mean = np.maximum(weights @ own, calibration.LEAST)
        return -float(np.log(mean).mean()), -(own / mean).mean(axis=1)

    return _on_simplex(loss, len(members))


def soft_f1_weights(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(M,) weights on the simplex that raise a smooth stand-in for macro F1, from equal weights upwards.

    The mean's probabilities, sharpened by the power `SHARPNESS`, are counted as if each photo were
    predicted in parts; so the score has a slope where macro F1 has steps.
    """
    is_true = np.eye(CLASS_COUNT)[truth]  # (N, 18)
    photos = is_true.sum(axis=0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mean = np.maximum(np.tensordot(weights, members, axes=1), calibration.LEAST)
        sharp = mean**SHARPNESS
        sharp /= sharp.sum(axis=1, keepdims=True)
        hits, either = (is_true * sharp).sum(axis=0), photos + sharp.sum(axis=0)
        slope = -2 * (is_true / either - hits / either**2) / CLASS_COUNT  # of the loss by `sharp`
        slope = SHARPNESS * sharp * (slope - (slope * sharp).sum(axis=1, keepdims=True)) / mean
        return 1 - float((2 * hits / either).mean()), np.tensordot(members, slope, axes=2)

    return _on_simplex(loss, len(members))


def _on_simplex(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], count: int) -> np.ndarray:
    """(count,) weights, none below 0, that sum to 1 and make `loss` (value, slope) least, from equal ones."""
    start = np.full(count, 1 / count)
    summing = {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like}
    options = {"maxiter": 100, "ftol": 1e-8}
    found = minimize(
        loss, start, jac=True, method="SLSQP", bounds=[(0, 1)] * count, constraints=summing, options=options
    )
    weights = np.where(found.x < 1e-6, 0, found.x)
    return weights / weights.sum() if np.isfinite(weights).all() and weights.sum() > 0 else start


METHODS: dict[str, Find] = {
    "equal": equal_weights,
    "greedy": greedy_weights,
    "simplex, log loss": log_loss_weights,
    "simplex, macro F1": soft_f1_weights,
}


def fit(
    members: np.ndarray, truth: np.ndarray, method: str = "equal", tempering: bool = False, shifting: bool = False
) -> Recipe:
    """A recipe found on (M, N, 18) members and (N,) labels. `method` is a key of `METHODS`.

    tempering: each member's temperature first, by log loss; shifting: then offsets of the mean, for macro F1.
    """
    temperatures = tuple(calibration.fit_temperature(one, truth) for one in members) if tempering else ()
    members = _tempered(members, temperatures)
    weights = tuple(METHODS[method](members, truth).tolist())
    recipe = Recipe(weights, temperatures)
    if not shifting:
        return recipe
    mean = np.tensordot(weights, members, axes=1)
    return dataclasses.replace(recipe, offsets=tuple(calibration.fit_offsets(mean, truth).tolist()))


def person_parts(photos: pd.DataFrame, count: int = 5, seed: int = 0) -> np.ndarray:
    """(N,) part 0 … count-1 of each row of `photos` (columns person, label); a person's rows share one.

    Raises ValueError when there are fewer people than parts.
    """
    return photos["person"].map(splits.spread_people(photos, count, seed)).to_numpy()


def nested_probabilities(members: np.ndarray, truth: np.ndarray, parts: np.ndarray, **how: str | bool) -> np.ndarray:
    """(N, 18) probabilities of each part by the recipe that `fit` finds on the other parts."""
    found = np.empty(members.shape[1:])
    for part in np.unique(parts):
        asked = parts == part
        found[asked] = fit(members[:, ~asked], truth[~asked], **how).blend(members[:, asked])
    return found


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
    parts = person_parts(found.photos, part_count, seed)

    def candidate(name: str, rival: _Candidate | None = None, rivals: int = 1, **how: str | bool) -> _Candidate:
        nested = nested_probabilities(found.probabilities, found.truth, parts, **how)
        recipe = fit(found.probabilities, found.truth, **how)
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


TOLERANCE = 1e-6  # by which a member's table may differ from the mean of its folds' own


def blended(recipe: Recipe, output_dir: Path, members: Members, which: str) -> pd.DataFrame:
    """The recipe's table of a set, test or test_val; rows as in the first member's.

    Members whose folds' own probabilities are not there, or no longer fit, are tempered as a whole. What a
    network says is its mean over test-time views, which no file keeps apart.
    """
    tables, found = members.tables[which], []
    temperatures = recipe.temperatures or (1.0,) * len(tables)
    for name, own, table, temperature in zip(members.names, members.own, tables, temperatures, strict=True):
        needed = own and temperature != 1
        found.append(of_networks(output_dir, name, which, table) if needed else None)
    return recipe.blend_tables(tables, KEYS[which], found)


def of_networks(output_dir: Path, run: str, which: str, table: pd.DataFrame) -> np.ndarray | None:
    """(K, N, 18) probabilities of a run's K networks, rows as in its `table` of a set.

    None unless 06_inference has left them all, and their mean is the table: they may be deleted at any time.
    """
    home = Path(output_dir) / "inferences" / "models" / run
    if not is_finished(output_dir, run):
        return None
    found = [sorted(home.glob(f"fold{fold}.{which}.*.csv")) for fold in trained_folds(Path(output_dir) / "runs" / run)]
    if any(len(paths) != 1 for paths in found):
        return None
    networks = np.stack([_read(paths[0], table[KEYS[which]]) for paths in found])
    is_their_mean = np.allclose(networks.mean(axis=0), table[COLUMNS].to_numpy(), rtol=0, atol=TOLERANCE)
    return networks if is_their_mean else None


def _read(path: Path, keys: pd.Series) -> np.ndarray:
    """(N, 18) of a fold's file in the order of `keys`; those it lacks could not be read and get the mean of all."""
    table = pd.read_csv(path, dtype={"path": str}).set_index("path")[COLUMNS]
    return table.reindex(keys).fillna(table.mean()).to_numpy(dtype=np.float64)
