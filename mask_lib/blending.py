"""Weights of an ensemble found on out-of-fold probabilities, kept only where new people confirm them.

Members are (M, N, 18) float64 probabilities of the same N photos. Whatever is found on photos flatters
itself on them, so methods are compared nested: found on some people, scored on the others.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from mask_lib import calibration, folds
from mask_lib.ensemble import COLUMNS, weighted_mean
from mask_lib.labels import CLASS_COUNT

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
        `ensemble.weighted_mean` does.
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
    return photos["person"].map(folds.spread(photos, count, seed)).to_numpy()


def nested(members: np.ndarray, truth: np.ndarray, parts: np.ndarray, **how: str | bool) -> np.ndarray:
    """(N, 18) probabilities of each part by the recipe that `fit` finds on the other parts."""
    found = np.empty(members.shape[1:])
    for part in np.unique(parts):
        asked = parts == part
        found[asked] = fit(members[:, ~asked], truth[~asked], **how).blend(members[:, asked])
    return found
