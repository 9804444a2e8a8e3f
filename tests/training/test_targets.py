"""Training may count numbers such as ages otherwise than scores do; what it makes of them is provable on a few rows."""

import numpy as np
import pandas as pd
import pytest
import torch

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.training import loss

OTHER = (
    labels.Attribute("kind", ("a", "b"), "ab"),
    labels.Attribute("length", ("<10", "10-19", "20-39", "40+"), "cdef", edges=(10, 20, 40), limits=(0, 500)),
)
ORDINAL = {"head": "three", "age_target": "ordinal"}


def rows(*years: float | None) -> pd.DataFrame:
    """Train rows of women with a mask worn incorrectly, of these ages; without one, of the group of 40."""
    groups = [labels.attribute("age").value_of(40 if one is None else one) for one in years]
    found = [labels.encode(mask=1, gender=1, age=group) for group in groups]
    return pd.DataFrame({"person": "a", "label": found, "age": np.array(years, dtype="float64")})


def past(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The borders in targets, by their years."""
    target = loss.fold_targets(table, run).rows.target
    return pd.DataFrame(target[:, labels.class_count() :].numpy(), columns=loss.borders(run))


def test_by_default_training_reads_labels_alone():
    table = rows(20, 40, 70).drop(columns="age")
    found = loss.fold_targets(table, Run())
    assert found.rows.target.dtype == torch.int64
    assert found.rows.target.tolist() == found.labels.tolist() == list(table["label"])
    assert found.rows.weights is None and found.is_real.all()
    assert not loss.reads_numbers(Run())


def test_pseudo_labeled_rows_are_not_counted_and_have_weights_of_their_own():
    people = ["a", "eval:b.jpg", "c"]
    found = loss.fold_targets(rows(20, 40, 70).assign(weight=[1.0, 0.5, 0.25], person=people), Run())
    assert found.is_real.tolist() == [True, False, True]
    assert found.rows.weights.tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("changes", [{"old_from": 58}, ORDINAL])
def test_ages_that_are_asked_for_and_missing_are_missed(changes):
    with pytest.raises(ValueError, match="need a split's column age, which is not there"):
        loss.fold_targets(rows(20, 40).drop(columns="age"), Run(**changes))


@pytest.mark.parametrize(("old_from", "old"), [(57, [57, 58, 59, 60]), (58, [58, 59, 60]), (59, [59, 60]), (60, [60])])
def test_training_counts_people_as_old_from_the_age_asked_for(old_from, old):
    years = [29, 30, 56, 57, 58, 59, 60]
    found = loss.fold_targets(rows(*years), Run(old_from=old_from))
    parts = labels.decode_all(found.labels)
    assert [year for year, group in zip(years, parts["age"], strict=True) if group == 2] == old
    assert list(parts["age"][:3]) == [0, 1, 1]
    assert set(parts["mask"]) == set(parts["gender"]) == {1}
    assert found.rows.target.tolist() == found.labels.tolist()


def test_a_label_that_a_reviewer_changed_goes_before_the_age_in_years():
    table, run = rows(58, 58), Run(old_from=57)
    table.loc[1, "label"] = labels.encode(mask=1, gender=1, age=0)
    np.testing.assert_array_equal(loss.known_numbers(table), [58, np.nan])
    assert labels.decode_all(loss.fold_targets(table, run).labels)["age"].tolist() == [2, 0]


@pytest.mark.parametrize("old_from", [57, 60])
def test_an_ordinal_head_learns_each_border_in_years(old_from):
    run, years = Run(**ORDINAL, old_from=old_from), [18, 20, 30, 44, 45, old_from, 65]
    assert loss.borders(run) == (20, 25, 30, 35, 40, 45, 50, 55, old_from)
    found = loss.fold_targets(rows(*years), run)
    np.testing.assert_array_equal(found.rows.target[:, :18], np.eye(18)[found.labels])
    assert found.rows.target.dtype == torch.float32
    for year, row in zip(years, past(rows(*years), run).to_numpy(), strict=True):
        assert list(row) == [float(year >= edge) for edge in loss.borders(run)]
    places = dict(zip(loss.borders(run), loss.border_places(run), strict=True))
    assert (places[30], places[old_from], places[45]) == (0, 1, pytest.approx(15 / (old_from - 30)))


def test_of_unknown_years_the_label_tells_some_borders():
    table = rows(None, None, None)
    table["label"] += [-1, 0, 1]
    found = past(table, Run(**ORDINAL, old_from=57))
    assert found[20].isna().tolist() == [True, False, False]
    assert list(found[30]) == [0, 1, 1]
    assert found[45].isna().tolist() == [False, True, False]
    assert found[57].isna().tolist() == [False, True, False]  # a middle-aged person may be 58


def test_any_number_cut_at_edges_has_borders():
    with labels.using(OTHER):
        run = Run(**ORDINAL, old_from=32)
        table = pd.DataFrame(
            {"person": "a", "label": [0, 3, 6, 7], "length": [9.0, 60, 35, np.nan]}
        )  # 35: of the last group but one
        assert loss.borders(run) == (0, 5, 10, 15, 20, 25, 30, 32, 35)
        assert past(table, run)[[10, 20, 32]].to_numpy().tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
        assert loss.fold_targets(table, run).labels.tolist() == [0, 3, 7, 7]


def test_an_ordinal_head_needs_two_edges():
    one = labels.Attribute("age", ("<18", "18+"), "ab", edges=(18,), limits=(0, 120))
    with labels.using((one,)), pytest.raises(ValueError, match="'ordinal': age must be cut at two edges or more"):
        loss.fold_targets(pd.DataFrame({"person": ["a"], "label": [0], "age": [5.0]}), Run(**ORDINAL))
