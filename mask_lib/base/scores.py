"""Macro F1 and accuracies, with intervals that treat a person, not a photo, as the unit of chance."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from mask_lib.base import files, labels

Classes = Sequence[int]  # (N,) class numbers
DRAWS_AT_ONCE = 100  # bounds memory: draws x people x 8 bytes
SUM_TOLERANCE = 1e-3  # of a row of probabilities; float16 and rounded CSV files stay well inside


def metric_names() -> tuple[str, ...]:
    """`macro_f1`, `accuracy`, then each attribute's name, whose metric is the accuracy of that attribute alone."""
    return ("macro_f1", "accuracy", *labels.names())


@dataclasses.dataclass(frozen=True)
class Score:
    """A value in [0, 1] and the ends of its interval; as text `0.763 (0.741 to 0.784)`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def summarise(truth: Classes, predicted: Classes) -> dict[str, float]:
    """The metrics of `metric_names` in [0, 1]. ValueError for numbers that are no class, none at all, or two lengths.

    Macro F1 is the plain mean over all classes; one that is neither true nor predicted counts 0.
    """
    values = metrics_of(person_tallies(truth, predicted, np.zeros(len(truth))))[0]
    return dict(zip(metric_names(), values.tolist(), strict=True))


def bootstrap(
    truth: Classes, predicted: Classes, person: Sequence, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Indexed by metric, the columns `value`, `low` and `high`: the interval at `level` around the value, in [0, 1].

    Whole people are drawn with replacement (Efron's bootstrap on groups), as a person's photos succeed or fail
    together. A draw without any photo of a class takes the F1 of another class for it: counting 0 would centre the
    draws too low. Where nearly all is right, no draw tells of the people who are not: one more of those is allowed for
    in accuracies. As many deviations are taken as Student's t asks, with the people a kind (combination of a person's
    values) as degrees of freedom. Missing classes count 0; the interval reaches as far up as if they had the other
    classes' F1. Coverage: `benchmarks/coverage.py`. Raises ValueError as `summarise` does, and for a missing person.
    """
    tallies = person_tallies(truth, predicted, person)
    deviation = _resampled_metrics(tallies, draws, seed, is_filled=True).std(axis=0)
    deviation = np.hypot(deviation, [0.0, *[1 / len(tallies)] * (len(deviation) - 1)])  # one more, of accuracies
    kinds = np.prod([labels.attribute(name).size for name in labels.names(of_person=True)])
    half = stdtrit(max(len(tallies) / kinds, 1), (1 + level) / 2) * deviation
    values, count = metrics_of(tallies.sum(axis=0, keepdims=True))[0], labels.class_count()
    missing, above = count - len(np.unique(np.asarray(truth))), np.zeros_like(values)
    above[0] = values[0] * missing / (count - missing)  # macro F1 if missing classes had the others' F1
    return _table("value", values, np.maximum(values - half, 0), np.minimum(values + half + above, 1))


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a model, one column a metric: value and interval as text; `tables`: from `bootstrap`, by model."""
    rows = {name: {metric: str(Score(*row)) for metric, row in table.iterrows()} for name, table in tables.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(metric_names()))


def paired_bootstrap(
    truth: Classes, a: Classes, b: Classes, person: Sequence, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Indexed by metric, how much better the predictions b are than a: `difference`, `low`, `high` and `p`.

    Both by the same draws of people. `p`: the share of draws with b no better than a. Raises as `bootstrap`.
    """
    tallies = [person_tallies(truth, part, person) for part in (b, a)]  # (P, T) each
    return _differences(tallies, [_resampled_metrics(part, draws, seed) for part in tallies], level)


def compare(before: pd.DataFrame, after: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`paired_bootstrap` of two tables with `label, p00 …` of the same photos in one order, `person` in `after`."""
    (truth, a), (_, b) = map(from_probabilities, (before, after))
    return paired_bootstrap(truth, a, b, after["person"].to_numpy(), seed=seed)


def _differences(tallies: Sequence[np.ndarray], drawn: Sequence[np.ndarray], level: float) -> pd.DataFrame:
    """The table of how much better the first of two is than the second, by (…, T) tallies and (draws, M) metrics."""
    values = np.subtract(*(metrics_of(part.sum(axis=tuple(range(part.ndim - 1)))[None])[0] for part in tallies))
    share, differences = (1 - level) / 2, np.subtract(*drawn)
    found = _table("difference", values, *np.quantile(differences, [share, 1 - share], axis=0))
    # The two sides are sums of the same numbers: equal ones differ by rounding at most.
    return found.assign(p=(differences <= 1e-12).mean(axis=0))


def paired_over_seeds(before: pd.DataFrame, after: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Indexed by metric, how much better `after` is than `before`, both trained with several seeds.

    Both have the columns `seed, person, label, predicted`, with the same people for every seed. Each of 1000 draws
    takes people and seeds with replacement, the same for both. Columns and errors as `paired_bootstrap` has them.
    """
    tallies = [_tallies_by_seed(after), _tallies_by_seed(before)]  # (S, P, T) each
    if tallies[0].shape != tallies[1].shape:
        raise ValueError(f"{tallies[1].shape[:2]} seeds and people on one side, {tallies[0].shape[:2]} on the other")
    return _differences(tallies, [_resampled_over_seeds(part, draws=1000, seed=0) for part in tallies], level)


def _tallies_by_seed(table: pd.DataFrame) -> np.ndarray:
    """(S, P, T) tallies, as `person_tallies` has them, seeds and people in sorted order."""
    parts = [part for _, part in table.groupby("seed")]
    if len({tuple(sorted(part["person"].unique())) for part in parts}) != 1:
        raise ValueError("the seeds are not scored on the same people")
    return np.stack([person_tallies(part["label"], part["predicted"], part["person"]) for part in parts])


def _resampled_over_seeds(tallies: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, M) metrics of resamples of seeds and people."""
    generator, (seeds, people) = np.random.default_rng(seed), tallies.shape[:2]
    times_of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)  # (D, S)
    times = generator.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)  # (D, P)
    return metrics_of(sum(times_of_seed[:, [place]] * (times @ one) for place, one in enumerate(tallies)))


def from_probabilities(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(N,) true and (N,) most probable labels, int64, of a table with `label` and the columns of probabilities."""
    probabilities = table[labels.probability_columns()].to_numpy()  # (N, C)
    return table["label"].to_numpy(dtype=np.int64), probabilities.argmax(axis=1)


def read_probabilities(path: Path, key: str) -> pd.DataFrame:
    """A CSV's table that `check_probabilities` accepts, the key as text. Raises as that and `files.read_csv` do."""
    kinds = {key: "str", **({"label": "int64"} if key == "path" else {})}
    table = files.read_csv(path, kinds | dict.fromkeys(labels.probability_columns(), "float64"))
    try:
        check_probabilities(table, key)
    except ValueError as error:
        raise ValueError(f"{files.shown_path(path)}: {error}") from error
    return table


def check_probabilities(table: pd.DataFrame, key: str) -> None:
    """Raise ValueError that names the culprit unless this is a whole table of probabilities.

    `key` is `ImageID` (columns `ImageID, p00, …`) or `path` (`path, label, p00, …`): each once, labels that are
    classes, probabilities finite, not negative, and adding up to 1 in every row.
    """
    columns, classes = labels.probability_columns(), range(labels.class_count())
    wanted = [key, *(["label"] if key == "path" else []), *columns]
    for one, other in itertools.zip_longest(table.columns, wanted):
        if one != other:
            fault = f"has {one} where {other or 'nothing'} belongs" if one else f"lacks {other}"
            raise ValueError(f"the table of probabilities {fault}: write {', '.join(wanted)}")
    _refuse(table, key, table[key].duplicated(), "stands on more than one row")
    if key == "path":
        _refuse(table, key, ~table["label"].isin(classes), f"has a label outside 0-{classes[-1]}")
    probabilities = table[columns].to_numpy(dtype=np.float64)
    _refuse(table, key, ~np.isfinite(probabilities).all(axis=1), "has a probability that is missing or infinite")
    _refuse(table, key, (probabilities < 0).any(axis=1), "has a negative probability")
    off = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
    _refuse(table, key, off, f"has probabilities that do not add up to 1 within {SUM_TOLERANCE}")


def _refuse(table: pd.DataFrame, key: str, wrong: Sequence[bool], fault: str) -> None:
    wrong = np.asarray(wrong)
    if wrong.any():
        others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        raise ValueError(f"{key} {table[key].iloc[int(wrong.argmax())]!r}{others} {fault}")


def _checked_labels(truth: Classes, predicted: Classes) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true labels but {len(predicted)} predicted ones")
    if not len(truth):
        raise ValueError("no labels to score")
    for name, values in (("true", truth), ("predicted", predicted)):
        unknown = values[~np.isin(values, np.arange(labels.class_count()))]
        if len(unknown):
            raise ValueError(f"{unknown[0]} is no {name} label: labels are whole numbers 0-{labels.class_count() - 1}")
    return truth.astype(np.int64), predicted.astype(np.int64)


def person_tallies(truth: Classes, predicted: Classes, person: Sequence) -> np.ndarray:
    """(P, T) float64 sums over each person's photos, people in sorted order, from which all metrics follow.

    T is 3C + A: how often each class was hit, true and predicted, then how often each attribute was right.
    """
    truth, predicted = _checked_labels(truth, predicted)
    if len(person) != len(truth):
        raise ValueError(f"{len(truth)} labels but {len(person)} entries for person")
    person = np.asarray(person)
    if pd.isna(person).any():
        raise ValueError(f"row {int(pd.isna(person).argmax())} has no person")
    values = (np.stack(list(labels.decode_all(side).values()), axis=1) for side in (truth, predicted))  # (N, A) each
    true, said = (np.eye(labels.class_count())[side] for side in (truth, predicted))  # (N, C) each
    tallies = np.concatenate([true * said, true, said, np.equal(*values)], axis=1)  # (N, T)
    return pd.DataFrame(tallies).groupby(person).sum().to_numpy()


def _resampled_metrics(tallies: np.ndarray, draws: int, seed: int, is_filled: bool = False) -> np.ndarray:
    """(draws, M) metrics of resamples of people; the same seed draws the same people. is_filled: see `metrics_of`."""
    generator, people = np.random.default_rng(seed), len(tallies)
    sizes = [min(DRAWS_AT_ONCE, draws - begin) for begin in range(0, draws, DRAWS_AT_ONCE)]
    times = (generator.multinomial(people, np.full(people, 1 / people), size=size) for size in sizes)  # (D, P) each
    filled = tallies[:, labels.class_count() : 2 * labels.class_count()].any(axis=0) & is_filled  # (C,)
    return np.concatenate([metrics_of(some.astype(np.float64) @ tallies, filled) for some in times])


def metrics_of(sums: np.ndarray, filled: np.ndarray | None = None) -> np.ndarray:
    """(D, M) values in the order of `metric_names` from (D, T) sums of `person_tallies`.

    filled: (C,) bool, classes that take another class's F1 where a sum has no photo of them, instead of 0.
    """
    hits, true, predicted, attribute_hits = np.split(sums, np.arange(1, 4) * labels.class_count(), axis=1)
    either, photos = true + predicted, true.sum(axis=1, keepdims=True)
    f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
    if filled is not None:
        other = (np.random.default_rng(0).random(true.shape) * (true > 0)).argmax(axis=1)
        draw, lacking = np.nonzero((true == 0) & filled)
        f1[draw, lacking] = f1[draw, other[draw]]
    right = np.concatenate([hits.sum(axis=1, keepdims=True), attribute_hits], axis=1)
    return np.concatenate([f1.mean(axis=1, keepdims=True), right / photos], axis=1)


def _table(name: str, values: Sequence[float], low: np.ndarray, high: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({name: values, "low": low, "high": high}, index=pd.Index(metric_names(), name="metric"))


def worst_mistakes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` rows of a table with `label` and probabilities that are wrong with most confidence."""
    wrong = table[np.not_equal(*from_probabilities(table))]
    confidence = wrong[labels.probability_columns()].max(axis=1).to_numpy()
    return wrong.iloc[np.argsort(-confidence, kind="stable")[:count]]
