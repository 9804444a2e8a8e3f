"""Whether probabilities are as high as answers are right, and a temperature that corrects them."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

LEAST = 1e-7  # probability below which a logarithm would count one photo for too much
TEMPERATURES = (0.1, 10.0)  # the range that is searched; 1 changes nothing


def log_losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) minus the logarithm of what (N, C) probabilities give to the (N,) true labels."""
    return -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], LEAST))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(…, C) probabilities p^(1/T), of sum 1, less sure for T above 1 (Guo et al. 2017)."""
    if temperature == 1:
        return probabilities
    # Divided by the greatest of its row first, so that no power can underflow a whole row to zeros.
    powers = (probabilities / probabilities.max(axis=-1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that gives (N, C) probabilities the least log loss on (N,) labels."""
    logs = np.log(np.maximum(probabilities, LEAST))
    own = logs[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(scale * logs).sum(axis=1)) - scale * own))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """How often the likeliest class is right, by its probability, of (N, C) probabilities and (N,) labels.

    One row a bin: photos, and the means confidence and accuracy, which are NaN without photos.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # a bin holds its upper edge
    photos = pd.DataFrame({"confidence": confidence, "accuracy": right.astype(np.float64)}).groupby(bin_of)
    means, counts = photos.mean().reindex(range(bins)), photos.size().reindex(range(bins), fill_value=0)
    return means.assign(photos=counts)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a `reliability` table: |confidence - accuracy|, weighted by photos, in [0, 1]."""
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["photos"]).sum() / max(table["photos"].sum(), 1))
