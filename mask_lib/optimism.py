"""How much too good a score looks when photos are dealt into folds without asking whose they are."""

import numpy as np
import pandas as pd

from mask_lib import features, folds, scores, store

HONEST, NAIVE = "people kept together", "photos dealt freely"


def measure(
    described: np.ndarray, photos: store.Store, splits: dict[int, pd.DataFrame], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Scores (see `scores.bootstrap`) of the same logistic regression by honest folds and by naive ones.

    described: (N, D) features of every photo of the store. Naive folds deal the photos of `splits`, but
    for test_val, freely; they serve this comparison alone. Keys: `HONEST` and `NAIVE`.
    """
    first = splits[min(splits)]
    dealt = first[(first["split"] != folds.TEST_VAL) & ~folds.is_external(first["path"])]
    naive = folds.naive_splits(dealt, len(splits), seed)
    person_of = dealt.set_index("path")["person"]
    found = {}
    for name, some in ((HONEST, splits), (NAIVE, naive)):
        table = features.logistic_out_of_fold(described, photos, some)
        truth, predicted = scores.from_probabilities(table)
        found[name] = scores.bootstrap(truth, predicted, person_of[table["path"]].to_numpy())
    return found


def in_words(found: dict[str, pd.DataFrame]) -> str:
    """One sentence on both macro F1s."""
    honest, naive = (scores.Score(*found[name].loc["macro_f1"]) for name in (HONEST, NAIVE))
    return (
        f"Photos dealt freely would have promised a macro F1 of {naive.value:.3f} where people kept together give "
        f"{honest.value:.3f}: {naive.value - honest.value:+.3f} of memory for faces, not of skill."
    )
