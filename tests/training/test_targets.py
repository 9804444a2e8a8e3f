"""What training makes of whole, weighted and partly known rows is what each of them says, and no more."""

import numpy as np
import pandas as pd
import pytest
import torch

from mask_lib.base import config, labels
from mask_lib.data import splits
from mask_lib.training import ages, targets

UNKNOWN = np.nan


def rows(*given: tuple[int, int, int, float]) -> pd.DataFrame:
    """Train rows of (mask, gender, age group, years), -1 where unknown."""
    numbers = np.array(given)
    table = pd.DataFrame(numbers[:, :3].astype(np.int64), columns=list(splits.KNOWN.values()))
    whole = (table >= 0).all(axis=1)
    label = [labels.encode(*row) if is_whole else -1 for row, is_whole in zip(table.to_numpy(), whole, strict=True)]
    return table.assign(label=label, age=numbers[:, 3])


def test_whole_rows_without_weights_are_plain_labels():
    table = rows((0, 1, 2, 60), (2, 0, 0, 20))
    found = targets.of_rows(table[["label"]], config.Run())
    assert found.wanted.target.dtype == torch.int64 and found.wanted.target.tolist() == list(table["label"])
    assert found.wanted.weights is found.wanted.known is None
    assert found.is_real.all()


def test_only_whole_labels_of_full_weight_are_counted():
    table = rows((0, 1, 2, 60), (2, 0, 0, 20), (-1, -1, 1, 40)).assign(weight=[1.0, 0.5, 1.0])
    found = targets.of_rows(table, config.Run(attribute_loss=1.0))
    assert found.real_labels.tolist() == [table["label"][0]]
    assert found.labels.tolist() == [*table["label"][:2], -1]


def test_a_batch_holds_the_rows_at_its_positions():
    table = rows((0, 1, 2, 60), (2, 0, 0, 20), (-1, -1, 1, 40)).assign(weight=[1.0, 0.5, 1.0])
    found = targets.of_rows(table, config.Run(attribute_loss=1.0)).of(np.array([2, 1]), torch.device("cpu"))
    assert found.weights.tolist() == [1.0, 0.5]
    assert found.known.tolist() == [[False, False, True], [True, True, True]]
    age = labels.marginals(found.target.numpy())["age"]
    np.testing.assert_allclose(age, [[0, 1, 0], [1, 0, 0]], atol=1e-6)


def test_an_age_in_years_moves_the_border_for_partial_rows_too():
    table = rows((-1, -1, 1, 58), (-1, 0, 1, UNKNOWN), (0, 0, 1, 58))
    found = targets.of_rows(table, config.Run(attribute_loss=1.0, old_from=57))
    age = labels.marginals(found.wanted.target.numpy())["age"]
    np.testing.assert_allclose(age, [[0, 0, 1], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    assert found.labels.tolist() == [-1, -1, labels.encode(0, 0, 2)]


def test_whole_rows_beside_partial_ones_are_blurred_as_ever():
    run = config.Run(attribute_loss=1.0, age_softness=2.0)
    table = rows((0, 1, 1, 58), (-1, -1, 1, 58), (1, -1, -1, UNKNOWN))
    found = targets.of_rows(table, run).wanted
    _, alone = ages.age_targets(table[:1], run)
    np.testing.assert_allclose(found.target[0], alone[0], atol=1e-6)
    parts = labels.marginals(found.target.numpy())
    np.testing.assert_allclose(parts["age"][1], parts["age"][0], atol=1e-6)
    np.testing.assert_allclose(parts["mask"][1:], [[1 / 3] * 3, [0, 1, 0]], atol=1e-6)


def test_an_ordinal_head_learns_no_border_from_an_unknown_age():
    run = config.Run(head="three", age_target="ordinal")
    found = targets.of_rows(rows((0, 1, -1, UNKNOWN), (-1, -1, 1, 44), (-1, -1, 1, UNKNOWN)), run).wanted
    past = pd.DataFrame(found.target[:, 18:].numpy(), columns=ages.borders())
    assert past.loc[0].isna().all()
    assert past.loc[1].tolist() == [float(edge <= 44) for edge in ages.borders()]
    assert past.loc[2, [30, 60]].tolist() == [1, 0] and np.isnan(past.loc[2, 45])


def test_partial_labels_that_nothing_explains_are_refused():
    table = rows((0, 1, 2, 60), (-1, -1, 1, 40))[["label"]]
    with pytest.raises(ValueError, match=r"1 photos have the label -1.*read the splits by trainable\.read_splits"):
        targets.of_rows(table, config.Run(attribute_loss=1.0))
