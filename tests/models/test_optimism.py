"""A model that only knows faces again looks good on naive folds and is found out by honest ones."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from mask_lib.data.splits import SPLIT_COLUMNS, make_splits
from mask_lib.models import features

CLASSES = (0, 4, 8)


def test_features_that_tell_the_person_and_not_the_class_pay_only_on_naive_folds():
    generator = np.random.default_rng(0)
    people, each = 30, 4
    photos = pd.DataFrame(
        [
            (f"{person}/{number}.jpg", f"{person:02d}", CLASSES[person % 3])
            for person in range(people)
            for number in range(each)
        ],
        columns=["path", "person", "label"],
    )
    faces = generator.normal(size=(people, 300))  # what a face looks like has nothing to do with its class
    described = np.repeat(faces, each, axis=0) + 0.05 * generator.normal(size=(len(photos), 300))
    row_of = {path: row for row, path in enumerate(photos["path"])}
    store = SimpleNamespace(rows=lambda paths: np.array([row_of[path] for path in paths]))
    splits = make_splits(photos, fold_count=3, test_val_share=0.1, seed=0)
    outside = pd.DataFrame([["/elsewhere/a.jpg", "external:x/a", 0, "train"]], columns=SPLIT_COLUMNS)
    described, row_of["/elsewhere/a.jpg"] = np.vstack([described, described[:1]]), len(photos)
    joined = {fold: pd.concat([split, outside], ignore_index=True) for fold, split in splits.items()}
    found = features.measure(described, store, joined)
    honest, naive = (found[name].loc["accuracy", "value"] for name in (features.HONEST, features.NAIVE))
    assert naive > 0.9 and honest < 0.6
    assert f"{found[features.NAIVE].loc['macro_f1', 'value']:.3f}" in features.optimism_summary(found)
