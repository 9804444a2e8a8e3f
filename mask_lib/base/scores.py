"""Macro F1 and accuracies, with intervals that treat a person, not a photo, as the unit of chance."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from sklearn.metrics import accuracy_score, f1_score

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
    truth, predicted = _checked_labels(truth, predicted)
    true_values, predicted_values = labels.decode_all(truth), labels.decode_all(predicted)
    macro_f1 = f1_score(truth, predicted, labels=range(labels.class_count()), average="macro", zero_division=0)
    parts = {name: float(accuracy_score(true_values[name], predicted_values[name])) for name in labels.names()}
    return {"macro_f1": float(macro_f1), "accuracy": float(accuracy_score(truth, predicted)), **parts}


def bootstrap(
    truth: Classes, predicted: Classes, person: Sequence, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Indexed by metric, the columns `value`, `low` and `high`: the interval at `level` around the value, in [0, 1].

    Whole people are drawn with replacement (Efron's bootstrap on groups), because one person's photos succeed or
    fail together: drawing photos would make the intervals far too narrow. Rare classes decide macro F1. A draw without
    any of one says nothing of it, and takes the F1 of another class for it: counting 0 would centre the draws too low.
    Where nearly all is right, no draw tells of the people who are not: one more of those is allowed for in accuracies.
    And of few people of a kind the draws tell the deviation badly: as many deviations are taken as Student's t asks,
    with the people a kind (combination of a person's values) as degrees of freedom. Classes that are missing altogether
    count 0 in the value; the interval reaches as far up as if they had the other classes' F1. How often it holds the
    truth says `benchmarks/coverage.py`. Raises ValueError as `summarise` does, and for a missing person.
    """
    tallies = person_tallies(truth, predicted, person)
    deviation = _resampled_metrics(tallies, draws, seed, is_filled=True).std(axis=0)
    deviation = np.hypot(deviation, [0.0, *[1 / len(tallies)] * (len(deviation) - 1)])  # one more, of accuracies
    kinds = np.prod([labels.attribute(name).size for name in labels.names(of_person=True)])
    half = stdtrit(max(len(tallies) / kinds, 1), (1 + _checked_level(level)) / 2) * deviation
    values, count = np.array(list(summarise(truth, predicted).values())), labels.class_count()
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

    Both are scored on the same draws of people, so what is hard for both cancels out. `p` is the
    share of draws in which b is no better than a. Raises ValueError as `bootstrap` does.
    """
    drawn = np.subtract(*(_resampled_metrics(person_tallies(truth, part, person), draws, seed) for part in (b, a)))
    values = np.subtract(*(list(summarise(truth, part).values()) for part in (b, a)))
    return _differences(values, drawn, level)


def _differences(values: np.ndarray, drawn: np.ndarray, level: float) -> pd.DataFrame:
    """The table of (M,) differences in each metric and of (draws, M) drawn ones."""
    share = (1 - _checked_level(level)) / 2
    found = _table("difference", values, *np.quantile(drawn, [share, 1 - share], axis=0))
    # The two sides are sums of the same numbers: equal ones differ by rounding at most.
    return found.assign(p=(drawn <= 1e-12).mean(axis=0))


def paired_over_seeds(before: pd.DataFrame, after: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Indexed by metric, how much better `after` is than `before`, both trained with several seeds.

    Both have the columns `seed, person, label, predicted`, with the same people for every seed. Each of 1000 draws
    takes people and seeds with replacement, the same for both: a difference that came from one lucky seed does not
    look sure. Of three seeds such draws still know little. Columns and errors as `paired_bootstrap` has them.
    """
    tallies = [_tallies_by_seed(before), _tallies_by_seed(after)]  # (S, P, T) each
    if tallies[0].shape != tallies[1].shape:
        raise ValueError(f"{tallies[0].shape[:2]} seeds and people on one side, {tallies[1].shape[:2]} on the other")
    drawn = np.subtract(*(_resampled_over_seeds(part, draws=1000, seed=0) for part in reversed(tallies)))
    values = metrics_of(tallies[1].sum(axis=(0, 1))[None]) - metrics_of(tallies[0].sum(axis=(0, 1))[None])
    return _differences(values[0], drawn, level)


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
    """A table that `check_probabilities` accepts from a CSV, the key as text. Raises as that and `files.read_csv` do,
    with the file's name.
    """
    kinds = {key: "str", **({"label": "int64"} if key == "path" else {})}
    table = files.read_csv(path, kinds | dict.fromkeys(labels.probability_columns(), "float64"))
    try:
        check_probabilities(table, key)
    except ValueError as error:
        raise ValueError(f"{files.shown_path(path)}: {error}") from error
    return table


def check_probabilities(table: pd.DataFrame, key: str) -> None:
    """Raise ValueError that names the culprit unless this is a whole table of probabilities.

    `key` is `ImageID` (columns `ImageID, p00, …`) or `path` (`path, label, p00, …`): each once and present,
    labels that are classes, probabilities finite, not negative, and adding up to 1 in every row.
    """
    columns, classes = labels.probability_columns(), range(labels.class_count())
    _check_columns(list(table.columns), [key, *(["label"] if key == "path" else []), *columns])
    if table[key].isna().any():
        raise ValueError(f"row {int(table[key].isna().argmax())} has no {key}")
    _refuse(table, key, table[key].duplicated(), "stands on more than one row")
    if key == "path":
        _refuse(table, key, ~table["label"].isin(classes), f"has a label outside 0-{classes[-1]}")
    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"column {column} does not hold numbers")
    probabilities = table[columns].to_numpy(dtype=np.float64)
    _refuse(table, key, ~np.isfinite(probabilities).all(axis=1), "has a probability that is missing or infinite")
    _refuse(table, key, (probabilities < 0).any(axis=1), "has a negative probability")
    off = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
    _refuse(table, key, off, f"has probabilities that do not add up to 1 within {SUM_TOLERANCE}")


def _check_columns(found: list[str], wanted: list[str]) -> None:
    missing = ", ".join(collections.Counter(wanted) - collections.Counter(found))
    extra = ", ".join(map(str, collections.Counter(found) - collections.Counter(wanted)))
    if missing or extra:
        fault = f"lacks {missing}; its columns are {', '.join(wanted)}" if missing else f"has {extra} too much"
        raise ValueError(f"the table of probabilities {fault}")
    for one, other in zip(found, wanted, strict=True):
        if one != other:
            raise ValueError(f"columns out of order: {one} stands where {other} belongs")


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
    codes, people = pd.factorize(np.asarray(person), sort=True)
    if (codes < 0).any():
        raise ValueError(f"row {int((codes < 0).argmax())} has no person")
    count, names, hit = labels.class_count(), labels.names(), truth == predicted
    tallies = np.zeros((len(people), 3 * count + len(names)))
    for part, rows, classes in ((0, hit, truth[hit]), (1, ..., truth), (2, ..., predicted)):
        np.add.at(tallies, (codes[rows], part * count + classes), 1)
    true_values, predicted_values = labels.decode_all(truth), labels.decode_all(predicted)
    right = np.stack([true_values[name] == predicted_values[name] for name in names], axis=1)  # (N, A)
    np.add.at(tallies[:, 3 * count :], codes, right)
    return tallies


def _resampled_metrics(tallies: np.ndarray, draws: int, seed: int, is_filled: bool = False) -> np.ndarray:
    """(draws, M) metrics of resamples of people; the same seed draws the same people. is_filled: see `metrics_of`."""
    if draws < 1:
        raise ValueError(f"draws = {draws!r}: it must be at least 1; 1000 is usual")
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


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level = {level!r}: it must lie between 0 and 1, such as 0.95")
    return level


def worst_mistakes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` rows of a table with `label` and probabilities that are wrong with most confidence."""
    wrong = table[np.not_equal(*from_probabilities(table))]
    confidence = wrong[labels.probability_columns()].max(axis=1).to_numpy()
    return wrong.iloc[np.argsort(-confidence, kind="stable")[:count]]
