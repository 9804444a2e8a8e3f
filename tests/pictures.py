"""Tables to draw, and how a drawing is read back: what the tests of pictures share."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mask_lib.base import labels

METRICS = ["macro_f1", "accuracy", "mask", "gender", "age"]
FORMULA = "$^{$"  # between two dollar signs, and no valid formula: drawing it as one raises


def photo_table(people: int = 30) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for person in range(people):
        gender, age = int(generator.integers(2)), int(generator.integers(18, 61))
        for mask in (0, 0, 0, 0, 0, 1, 2):
            label = labels.encode(mask, gender, labels.attribute("age").value_of(age))
            words = [labels.attribute(name).table_words[value] for name, value in (("mask", mask), ("gender", gender))]
            rows.append((f"{person:06d}/{len(rows)}.jpg", f"{person:06d}", *words, age, label, "train"))
    return pd.DataFrame(rows, columns=["path", "person", "mask", "gender", "age", "label", "split"])


def predictions(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 18, count)
    return truth, np.where(generator.random(count) < 0.7, truth, generator.integers(0, 18, count))


def history_table(folds: int = 3, epochs: int = 6) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    table = pd.DataFrame([(fold, epoch) for fold in range(folds) for epoch in range(1, epochs + 1)])
    table.columns = ["fold", "epoch"]
    values = {name: generator.random(len(table)) for name in ("train_loss", "val_loss", "val_macro_f1")}
    return table.assign(**values, learning_rate=0.001)


def score_intervals(shift: float = 0.0) -> pd.DataFrame:
    value = np.array([0.70, 0.80, 0.98, 0.97, 0.85]) - shift
    columns = {"value": value, "low": value - 0.02, "high": value + 0.01}
    return pd.DataFrame(columns, index=pd.Index(METRICS, name="metric"))


def certain(predicted: list[int]) -> pd.DataFrame:
    """Probabilities that say one class each, without saying what is true."""
    return pd.DataFrame(np.eye(18)[predicted], columns=labels.probability_columns())


def draw(figure: Figure) -> bytes:
    """The pixels' file: forces the texts to be laid out and drawn."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=40)
    return written.getvalue()


def texts(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def finder_table() -> pd.DataFrame:
    """A loss that falls, is lowest at a rate of 0.1, and explodes."""
    rates = np.geomspace(1e-6, 10, 71)
    loss = 1 + np.abs(np.log10(rates) + 1) ** 2 + 500.0 * (rates > 5)
    return pd.DataFrame({"learning_rate": rates, "loss": loss + 0.1 * (np.arange(71) % 2), "smoothed": loss})


def reliability_table() -> pd.DataFrame:
    """Of three bins one without photos."""
    return pd.DataFrame({"photos": [10, 0, 30], "confidence": [0.3, np.nan, 0.9], "accuracy": [0.5, np.nan, 0.8]})


def shares_of(names: list[str]) -> pd.DataFrame:
    values = 1 - np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names)))) / 10
    return pd.DataFrame(values, index=names, columns=names)


def contribution_table(names: list[str]) -> pd.DataFrame:
    rows = [(name, 0.5, place / 100, place / 100 - 0.02, place / 100 + 0.01, 0.1) for place, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["member", "weight", "difference", "low", "high", "p"])


def trial_table() -> pd.DataFrame:
    values = [0.5, 0.4, np.nan, 0.6, 0.55]
    return pd.DataFrame({"trial": range(5), "state": "complete", "value": values})


def importance_table() -> pd.DataFrame:
    return pd.DataFrame({"operation": ["motion_blur", FORMULA], "correlation": [0.5, -0.2], "policies": [1, 30]})


def verdict_found() -> dict:
    pairs = {"merged - trivialaugment": (-0.01, -0.05, 0.03), "merged - none": (0.1, 0.02, 0.2)}
    differences = {
        name: dict(zip(("difference", "low", "high"), values, strict=True)) for name, values in pairs.items()
    }
    return {"differences": differences, "seeds": 3}


def one_fold() -> dict[int, pd.DataFrame]:
    return {0: photo_table().assign(split=["val", "train"] * 105)}
