"""How far probabilities can be believed, and two corrections: a temperature, and an offset for each class."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from mask_lib.base.labels import CLASS_COUNT

LEAST = 1e-7  # probability below which a logarithm would count one photo for too much
TEMPERATURES = (0.1, 10.0)  # the range that is searched; 1 changes nothing
OFFSETS = np.linspace(-1.5, 1.5, 31)  # in log probability; the steps that are tried
SWEEPS = 3  # over all classes; a fourth seldom finds anything
GAIN = 1e-9  # what macro F1 must rise by to count as risen


def log_losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) minus the logarithm of what (N, 18) probabilities give to the (N,) true labels."""
    return -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], LEAST))


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """As `scores.summarise` gives it, without its checks: searches ask for it thousands of times."""
    hits = np.bincount(truth[truth == predicted], minlength=CLASS_COUNT)
    either = np.bincount(truth, minlength=CLASS_COUNT) + np.bincount(predicted, minlength=CLASS_COUNT)
    return float(np.divide(2 * hits, either, out=np.zeros(CLASS_COUNT), where=either > 0).mean())


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(…, 18) probabilities p^(1/T), made to sum to 1; T above 1 makes them less sure.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. Raises ValueError unless T is above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: it must be above 0; 1 changes nothing")
    if temperature == 1:
        return probabilities
    # Over the greatest of its row, so that no power can make a whole row vanish.
    powers = (probabilities / probabilities.max(axis=-1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that gives (N, 18) probabilities the least log loss on (N,) labels."""
    logs = np.log(np.maximum(probabilities, LEAST))
    own = logs[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(scale * logs).sum(axis=1)) - scale * own))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def shifted(probabilities: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(N, 18) probabilities with (18,) offsets added to their logarithms, made to sum to 1."""
    offsets = np.asarray(offsets, dtype=np.float64)
    if not offsets.any():
        return probabilities
    odds = probabilities * np.exp(offsets)
    return odds / odds.sum(axis=1, keepdims=True)


def fit_offsets(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(18,) offsets for `shifted` that raise macro F1 on (N,) labels, found class by class.

    Each class in turn tries every step of `OFFSETS` while the others stand still; of equally good
    ones the smallest is taken. Searched and scored on the same photos they flatter: nest them.
    """
    logs, offsets = np.log(np.maximum(probabilities, LEAST)), np.zeros(CLASS_COUNT)
    best, rows = macro_f1(truth, logs.argmax(axis=1)), np.arange(len(truth))
    for _ in range(SWEEPS):
        before = offsets.copy()
        for label in range(CLASS_COUNT):
            rivals = logs + offsets
            rivals[:, label] = -np.inf
            rival = rivals.argmax(axis=1)
            lead = logs[:, label] - rivals[rows, rival]
            for offset in sorted(OFFSETS, key=abs):
                found = macro_f1(truth, np.where(lead + offset > 0, label, rival))
                if found > best + GAIN:
                    best, offsets[label] = found, offset
        if (offsets == before).all():
            break
    return offsets


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """One row a bin of the likeliest class's probability: low, high, photos, confidence and accuracy (means).

    Bins without photos have NaN means. Raises ValueError for fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins}: at least one is needed")
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)  # a bin holds its upper edge
    photos = np.bincount(place, minlength=bins)
    sums = {
        "confidence": np.bincount(place, weights=sure, minlength=bins),
        "accuracy": np.bincount(place, weights=right, minlength=bins),
    }
    means = {name: np.divide(s, photos, out=np.full(bins, np.nan), where=photos > 0) for name, s in sums.items()}
    edges = np.linspace(0, 1, bins + 1)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "photos": photos, **means})


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a `reliability` table: |confidence - accuracy|, weighted by photos, in [0, 1]."""
    gaps = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gaps * table["photos"]).sum() / max(table["photos"].sum(), 1))
