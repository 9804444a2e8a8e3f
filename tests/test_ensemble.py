"""Probability files are averaged photo by photo, and only a submission as the contest wants it gets out."""

import numpy as np
import pandas as pd
import pytest

from mask_lib import ensemble, files
from mask_lib.labels import CLASS_COUNT

IDS = ["c.jpg", "a.jpg", "b.jpg"]
PATHS = ["p2/mask1.jpg", "p1/mask1.jpg"]


def probabilities(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASS_COUNT), count)


def test_table(seed: int = 0, ids=IDS) -> pd.DataFrame:
    return pd.DataFrame(probabilities(len(ids), seed), columns=ensemble.COLUMNS).assign(ImageID=ids)[
        ["ImageID", *ensemble.COLUMNS]
    ]


def test_val_table(seed: int = 0, paths=PATHS) -> pd.DataFrame:
    table = pd.DataFrame(probabilities(len(paths), seed), columns=ensemble.COLUMNS)
    return table.assign(path=paths, label=[3, 17][: len(paths)])[["path", "label", *ensemble.COLUMNS]]


# They make tables and are no tests, whatever pytest thinks of their names.
test_table.__test__ = test_val_table.__test__ = False
