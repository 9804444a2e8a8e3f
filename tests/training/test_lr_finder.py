"""The trial finds where the loss falls and where it explodes, by photos and losses as the run has them."""

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import config
from mask_lib.training import lr_finder

PLAIN = {"augmentation": "none", "dropout": 0.0, "schedule": "constant", "warmup_epochs": 0.0}


def find(data, changes=PLAIN, **options) -> pd.DataFrame:
    run = config.Run(**{**toys.SETTINGS, "folds": (1,), **changes})
    return lr_finder.find_rate(run, {1: toys.splits(toys.table())[0]}, toys.opened(data), **options)


def test_the_loss_falls_with_the_rate_and_then_explodes(data):
    found = find(data, step_count=120, highest=1e3)
    assert len(found) < 120  # stopped when all was lost
    assert found["learning_rate"].tolist() == pytest.approx(np.geomspace(1e-6, 1e3, 120)[: len(found)].tolist())
    assert np.isfinite(found[["loss", "smoothed"]]).all(axis=None)
    lowest = found["smoothed"].idxmin()
    assert 0 < lowest < len(found) - 1
    assert found["smoothed"][lowest] < 0.8 * found["smoothed"][0]
    assert 1e-4 < lr_finder.suggestion(found) < 1


def test_the_same_trial_gives_the_same_curve_and_meets_photos_and_losses_as_the_run_would(data):
    plain = find(data, {}, step_count=5)
    pd.testing.assert_frame_equal(find(data, {}, step_count=5), plain, check_exact=True)
    for changes in ({"mixing": "cutmix_old", "loss": "focal"}, {"sampling": "weighted", "loss": "f1"}):
        found = find(data, changes, step_count=5)
        assert len(found) == 5
        assert not np.allclose(plain["loss"], found["loss"], rtol=1e-3)


@pytest.mark.parametrize(
    ("losses", "exploded"),
    [
        ([3.0, float("nan")], True),
        ([1.0] * 20 + [2.0] * 20, False),
        ([1.0] * 20 + [9.0], False),  # one bad batch
        ([1.0] * 20 + [9.0] * 9, True),
        ([9.0] * 9 + [1.0] * 20, False),
    ],
)
def test_a_trial_ends_when_the_last_losses_are_far_above_the_lowest(losses, exploded):
    assert lr_finder.exploded(losses) == exploded


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss_or_advice():
    rates = np.geomspace(1e-6, 1, 61)
    table = pd.DataFrame({"learning_rate": rates, "smoothed": np.abs(np.log10(rates) + 2)})
    assert lr_finder.suggestion(table) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="precision: float32"):
        lr_finder.suggestion(table.head(0))
