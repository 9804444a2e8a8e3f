"""Macro F1 and accuracies, with intervals that treat a person, not a photo, as the unit of chance."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from mask_lib.base.labels import ATTRIBUTES, CLASS_COUNT, PROBABILITY_COLUMNS, decode_all, describe

METRICS = ("macro_f1", "accuracy", *ATTRIBUTES)
DRAWS_AT_ONCE = 100  # bounds memory: draws x people x 8 bytes
SUM_TOLERANCE = 1e-3  # of a row of probabilities; float16 and rounded CSV files stay well inside
# What each photo adds to its person's tally: one-hot columns for a hit, the truth and the prediction
# of every class, then whether each attribute is right. All five metrics follow from their sums, so a
# resample of people is one product of matrices.
_HITS, _TRUE, _PREDICTED = (slice(part * CLASS_COUNT, (part + 1) * CLASS_COUNT) for part in range(3))
_ATTRIBUTE_HITS = slice(3 * CLASS_COUNT, 3 * CLASS_COUNT + len(ATTRIBUTES))


@dataclasses.dataclass(frozen=True)
class Score:
    """A value in [0, 1] and the ends of its interval; as text `0.763 (0.741 to 0.784)`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def summarise(truth: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """`macro_f1`, `accuracy`, `mask`, `gender` and `age`, each in [0, 1], of (N,) labels 0-17.

    Macro F1 is the plain mean over all 18 classes; one that is neither true nor predicted counts 0.
    The last three are the accuracies of one attribute alone. Raises ValueError for labels outside
    0-17, none at all, or two lengths.
    """
    truth, predicted = _checked_labels(truth, predicted)
    true_parts, predicted_parts = decode_all(truth), decode_all(predicted)
    macro_f1 = f1_score(truth, predicted, labels=range(CLASS_COUNT), average="macro", zero_division=0)
    parts = {name: float(accuracy_score(true_parts[name], predicted_parts[name])) for name in ATTRIBUTES}
    return {"macro_f1": float(macro_f1), "accuracy": float(accuracy_score(truth, predicted)), **parts}


def bootstrap(
    truth: Sequence[int],
    predicted: Sequence[int],
    person: Sequence,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Indexed by metric, the columns `value`, `low` and `high`: percentile intervals at `level`.

    Whole people are drawn with replacement (Efron's bootstrap on groups), because one person's photos
    succeed or fail together: drawing photos would make the intervals far too narrow. In a small set,
    draws that miss a rare class altogether count 0 for it, and the interval of macro F1 reaches low
    or even lies below its value. Raises ValueError as `summarise` does, and for a missing person.
    """
    tallies = person_tallies(truth, predicted, person)
    drawn = _resampled_metrics(tallies, draws, seed)
    values = summarise(truth, predicted)
    scores = {metric: _interval(values[metric], drawn[:, place], level) for place, metric in enumerate(METRICS)}
    return pd.DataFrame.from_dict(
        {metric: dataclasses.asdict(score) for metric, score in scores.items()}, orient="index"
    ).rename_axis("metric")


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a model, one column a metric: value and interval in words; `tables`: from `bootstrap`, by model."""
    rows = {name: {metric: str(Score(*row)) for metric, row in table.iterrows()} for name, table in tables.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(METRICS))


def paired_bootstrap(
    truth: Sequence[int],
    predicted_a: Sequence[int],
    predicted_b: Sequence[int],
    person: Sequence,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Indexed by metric, how much better b is than a: `difference`, `low`, `high` and `p`.

    Both are scored on the same draws of people, so what is hard for both cancels out. `p` is the
    share of draws in which b is no better than a. Raises ValueError as `bootstrap` does.
    """
    tallies = [person_tallies(truth, predicted, person) for predicted in (predicted_a, predicted_b)]
    drawn = np.subtract(*(_resampled_metrics(part, draws, seed) for part in reversed(tallies)))
    values_a, values_b = summarise(truth, predicted_a), summarise(truth, predicted_b)
    values = np.array([values_b[metric] - values_a[metric] for metric in METRICS])
    return _differences(values, drawn, level)


def _differences(values: np.ndarray, drawn: np.ndarray, level: float) -> pd.DataFrame:
    """The table of (5,) differences and of (draws, 5) drawn ones."""
    rows = {}
    for place, metric in enumerate(METRICS):
        score = _interval(float(values[place]), drawn[:, place], level)
        # The two sides are sums of the same numbers: equal ones differ by rounding at most.
        no_better = float((drawn[:, place] <= 1e-12).mean())
        rows[metric] = {"difference": score.value, "low": score.low, "high": score.high, "p": no_better}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def paired_over_seeds(
    before: pd.DataFrame, after: pd.DataFrame, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Indexed by metric, how much better `after` is than `before`, both trained with several seeds.

    Both have the columns `seed, person, label, predicted`, with the same people for every seed. Each
    draw takes people and seeds with replacement, the same for both: what is hard for both cancels
    out, and a difference that came from one lucky seed does not look sure. Of three seeds such draws
    still know little. Columns and errors as `paired_bootstrap` has them.
    """
    tallies = [_tallies_by_seed(before), _tallies_by_seed(after)]  # (S, P, 57) each
    if tallies[0].shape != tallies[1].shape:
        raise ValueError(f"{tallies[0].shape[:2]} seeds and people on one side, {tallies[1].shape[:2]} on the other")
    drawn = np.subtract(*(_resampled_over_seeds(part, draws, seed) for part in reversed(tallies)))
    values = metrics_of(tallies[1].sum(axis=(0, 1))[None]) - metrics_of(tallies[0].sum(axis=(0, 1))[None])
    return _differences(values[0], drawn, level)


def _tallies_by_seed(table: pd.DataFrame) -> np.ndarray:
    """(S, P, 57) tallies, seeds and people in sorted order."""
    people = {one: sorted(part["person"].unique()) for one, part in table.groupby("seed")}
    if len({tuple(names) for names in people.values()}) != 1:
        raise ValueError("the seeds are not scored on the same people")
    return np.stack(
        [person_tallies(part["label"], part["predicted"], part["person"]) for _, part in table.groupby("seed")]
    )


def _resampled_over_seeds(tallies: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, 5) metrics of resamples of seeds and people; the same seed draws the same ones."""
    generator, (seeds, people) = np.random.default_rng(seed), tallies.shape[:2]
    times_of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)  # (D, S)
    times = generator.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)  # (D, P)
    sums = sum(times_of_seed[:, [place]] * (times @ one) for place, one in enumerate(tallies))
    return metrics_of(sums)


def per_class(truth: Sequence[int], predicted: Sequence[int]) -> pd.DataFrame:
    """One row a class: `label`, `name`, `photos` (that truly belong to it), `precision`, `recall`, `f1`."""
    truth, predicted = _checked_labels(truth, predicted)
    classes = range(CLASS_COUNT)
    precision, recall, f1, photos = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0)
    names = [describe(label) for label in classes]
    columns = {"label": classes, "name": names, "photos": photos, "precision": precision, "recall": recall, "f1": f1}
    return pd.DataFrame(columns)


def from_probabilities(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(N,) true and (N,) most probable labels, int64, of a table with `label` and `p00`-`p17`."""
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy()  # (N, 18)
    return table["label"].to_numpy(dtype=np.int64), probabilities.argmax(axis=1)


def check_probabilities(table: pd.DataFrame, key: str) -> None:
    """Raise ValueError that names the culprit unless this is a whole table of probabilities.

    `key` is `ImageID` (columns `ImageID, p00...p17`) or `path` (`path, label, p00...p17`): each once
    and present, labels 0-17, probabilities finite, not negative, and adding up to 1 in every row.
    """
    if key not in ("ImageID", "path"):
        raise ValueError(f"the key of a table of probabilities is ImageID or path, not {key!r}")
    _check_columns(list(table.columns), [key, *(["label"] if key == "path" else []), *PROBABILITY_COLUMNS])
    if table[key].isna().any():
        raise ValueError(f"row {int(table[key].isna().argmax())} has no {key}")
    if table[key].duplicated().any():
        raise ValueError(f"{key} {table[key][table[key].duplicated()].iloc[0]!r} stands on more than one row")
    if key == "path":
        _refuse(table, key, ~table["label"].isin(range(CLASS_COUNT)), "has a label outside 0-17")
    for column in PROBABILITY_COLUMNS:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"column {column} does not hold numbers")
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy(dtype=np.float64)
    _refuse(table, key, ~np.isfinite(probabilities).all(axis=1), "has a probability that is missing or infinite")
    _refuse(table, key, (probabilities < 0).any(axis=1), "has a negative probability")
    off = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
    _refuse(table, key, off, f"has probabilities that do not add up to 1 within {SUM_TOLERANCE}")


def _check_columns(found: list[str], wanted: list[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise ValueError(f"the table of probabilities lacks {', '.join(missing)}; its columns are {', '.join(wanted)}")
    extra = [str(column) for place, column in enumerate(found) if column not in wanted or column in found[:place]]
    if extra:
        raise ValueError(f"the table of probabilities has {', '.join(extra)} too much")
    if found != wanted:
        place = next(place for place, column in enumerate(found) if column != wanted[place])
        raise ValueError(f"columns out of order: {found[place]} stands where {wanted[place]} belongs")


def _refuse(table: pd.DataFrame, key: str, wrong: Sequence[bool], fault: str) -> None:
    wrong = np.asarray(wrong)
    if wrong.any():
        others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        raise ValueError(f"{key} {table[key].iloc[int(wrong.argmax())]!r}{others} {fault}")


def _checked_labels(truth: Sequence[int], predicted: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true labels but {len(predicted)} predicted ones")
    if not len(truth):
        raise ValueError("no labels to score")
    for name, values in (("true", truth), ("predicted", predicted)):
        unknown = values[~np.isin(values, np.arange(CLASS_COUNT))]
        if len(unknown):
            raise ValueError(f"{unknown[0]} is no {name} label: labels are whole numbers 0-{CLASS_COUNT - 1}")
    return truth.astype(np.int64), predicted.astype(np.int64)


def person_tallies(truth: Sequence[int], predicted: Sequence[int], person: Sequence) -> np.ndarray:
    """(P, 57) float64 sums over each person's photos, people in sorted order."""
    truth, predicted = _checked_labels(truth, predicted)
    if len(person) != len(truth):
        raise ValueError(f"{len(truth)} labels but {len(person)} entries for person")
    codes, people = pd.factorize(np.asarray(person), sort=True)
    if (codes < 0).any():
        raise ValueError(f"row {int((codes < 0).argmax())} has no person")
    tallies = np.zeros((len(people), _ATTRIBUTE_HITS.stop))
    hit = truth == predicted
    for part, rows, classes in ((_HITS, hit, truth[hit]), (_TRUE, ..., truth), (_PREDICTED, ..., predicted)):
        np.add.at(tallies[:, part], (codes[rows], classes), 1)
    true_parts, predicted_parts = decode_all(truth), decode_all(predicted)
    right = np.stack([true_parts[name] == predicted_parts[name] for name in ATTRIBUTES], axis=1)  # (N, 3)
    np.add.at(tallies[:, _ATTRIBUTE_HITS], codes, right)
    return tallies


def _resampled_metrics(tallies: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, 5) metrics of resamples of people; the same seed draws the same people."""
    if draws < 1:
        raise ValueError(f"draws = {draws!r}: it must be at least 1; 1000 is usual")
    generator = np.random.default_rng(seed)
    people = len(tallies)
    chances = np.full(people, 1 / people)
    blocks = []
    for begin in range(0, draws, DRAWS_AT_ONCE):
        times = generator.multinomial(people, chances, size=min(DRAWS_AT_ONCE, draws - begin))  # (D, P)
        blocks.append(metrics_of(times.astype(np.float64) @ tallies))
    return np.concatenate(blocks)


def metrics_of(sums: np.ndarray) -> np.ndarray:
    """(D, 5) values in the order of `METRICS` from (D, 57) summed tallies."""
    hits, photos = sums[:, _HITS], sums[:, _TRUE].sum(axis=1, keepdims=True)
    either = sums[:, _TRUE] + sums[:, _PREDICTED]
    f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
    right = np.concatenate([hits.sum(axis=1, keepdims=True), sums[:, _ATTRIBUTE_HITS]], axis=1)
    return np.concatenate([f1.mean(axis=1, keepdims=True), right / photos], axis=1)


def _interval(value: float, drawn: np.ndarray, level: float) -> Score:
    if not 0 < level < 1:
        raise ValueError(f"level = {level!r}: it must lie between 0 and 1, such as 0.95")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Score(value, float(low), float(high))


def worst_mistakes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` rows of a probability table (columns `label`, `p00` … `p17`) that are wrong with most confidence."""
    truth, predicted = from_probabilities(table)
    wrong = table[truth != predicted]
    confidence = wrong[list(PROBABILITY_COLUMNS)].max(axis=1)
    return wrong.iloc[np.argsort(-confidence.to_numpy(), kind="stable")[:count]]
