"""Training may count ages otherwise than scores do; what it makes of them is provable on a few people."""

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import config, labels
from mask_lib.data.splits import audit_splits, read_splits
from mask_lib.training import ages

MIDDLE_LABEL = labels.encode(labels.Mask.INCORRECT, labels.Gender.FEMALE, labels.AgeGroup.MIDDLE)


def rows(*years: float | None, label: int | None = None) -> pd.DataFrame:
    """Train rows of women with a mask worn incorrectly, of these ages; `label`: that of people of 40 without one."""
    groups = [labels.age_group(40 if one is None else int(one)) for one in years]
    found = [labels.encode(labels.Mask.INCORRECT, labels.Gender.FEMALE, group) for group in groups]
    return pd.DataFrame({"label": found if label is None else label, "age": np.array(years, dtype="float64")})


def age_of(targets: np.ndarray) -> np.ndarray:
    """(N, 3) probabilities of the age groups in (N, 18) targets."""
    return labels.marginals(targets)["age"]


def test_by_default_training_reads_labels_and_no_ages():
    table = rows(20, 40, 70).drop(columns="age")
    counted, targets = ages.age_targets(table, config.Run())
    assert counted is targets
    assert targets.dtype == np.int64
    assert list(targets) == list(table["label"])


@pytest.mark.parametrize(
    "changes", [{"old_from": 58}, {"age_softness": 1.0}, {"head": "three", "age_target": "ordinal"}]
)
def test_ages_that_are_asked_for_and_missing_are_missed(changes):
    with pytest.raises(ValueError, match=r"give them to ages\.with_years first"):
        ages.age_targets(rows(20, 40).drop(columns="age"), config.Run(**changes))


@pytest.mark.parametrize(("old_from", "old"), [(57, [57, 58, 59, 60]), (58, [58, 59, 60]), (59, [59, 60]), (60, [60])])
def test_training_counts_people_as_old_from_the_age_asked_for(old_from, old):
    years = [29, 30, 56, 57, 58, 59, 60]
    counted, targets = ages.age_targets(rows(*years), config.Run(old_from=old_from))
    group = labels.decode_all(counted)["age"]
    assert [year for year, one in zip(years, group, strict=True) if one == labels.AgeGroup.OLD] == old
    assert list(group[:3]) == [0, 1, 1]
    parts = labels.decode_all(counted)
    assert set(parts["mask"]) == {labels.Mask.INCORRECT} and set(parts["gender"]) == {labels.Gender.FEMALE}
    assert counted is targets


def test_a_label_that_a_reviewer_changed_goes_before_the_age_in_years():
    table = rows(58, 58)
    table.loc[1, "label"] = labels.encode(labels.Mask.INCORRECT, labels.Gender.FEMALE, labels.AgeGroup.YOUNG)
    np.testing.assert_array_equal(ages.known_years(table), [58, np.nan])
    counted, _ = ages.age_targets(table, config.Run(old_from=57))
    assert list(labels.decode_all(counted)["age"]) == [labels.AgeGroup.OLD, labels.AgeGroup.YOUNG]


def test_blurred_borders_follow_the_years_and_keep_mask_and_gender():
    years = list(range(18, 71))
    counted, targets = ages.age_targets(rows(*years), config.Run(age_softness=2.0))
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    parts = labels.marginals(targets)
    np.testing.assert_allclose(parts["mask"][:, labels.Mask.INCORRECT], 1, atol=1e-6)
    np.testing.assert_allclose(parts["gender"][:, labels.Gender.FEMALE], 1, atol=1e-6)
    assert (np.diff(parts["age"][:, 2]) >= 0).all() and (np.diff(parts["age"][:, 0]) <= 0).all()
    assert list(parts["age"].argmax(axis=1)) == list(labels.decode_all(counted)["age"])
    at = dict(zip(years, parts["age"], strict=True))
    assert at[59][2] == pytest.approx(1 - at[60][2], abs=1e-6)  # 59.5 and 60.5 lie alike on both sides of 60
    assert 0.05 < at[57][2] < at[59][2] < 0.5 < at[60][2] < at[63][2]


def test_hardly_blurred_borders_are_the_labels():
    table = rows(18, 29, 30, 59, 60, 61)
    _, targets = ages.age_targets(table, config.Run(age_softness=0.01))
    np.testing.assert_allclose(targets, np.eye(18)[table["label"]], atol=1e-6)


def test_the_blur_moves_with_the_border():
    _, targets = ages.age_targets(rows(56, 57, 58), config.Run(age_softness=1.0, old_from=57))
    old = age_of(targets)[:, 2]
    assert old[0] == pytest.approx(1 - old[1], abs=1e-6)
    assert old[0] < 0.5 < old[1] < old[2]


def test_unknown_years_keep_the_label_however_borders_are_blurred():
    _, targets = ages.age_targets(rows(None, 59), config.Run(age_softness=5.0))
    np.testing.assert_array_equal(targets[0], np.eye(18)[MIDDLE_LABEL])
    assert targets[1].max() < 0.9


@pytest.mark.parametrize("old_from", [57, 60])
def test_an_ordinal_head_learns_each_border_in_years(old_from):
    run = config.Run(head="three", age_target="ordinal", old_from=old_from)
    years = [18, 20, 30, 44, 45, old_from, 65]
    counted, targets = ages.age_targets(rows(*years), run)
    edges = ages.borders(old_from)
    assert {labels.AGE_EDGES[0], old_from, 20, 45} <= set(edges) and sorted(edges) == list(edges)
    np.testing.assert_array_equal(targets[:, :18], np.eye(18)[counted])
    for year, past in zip(years, targets[:, 18:], strict=True):
        assert list(past) == [float(year >= edge) for edge in edges]


def test_of_unknown_years_the_label_tells_some_borders():
    run = config.Run(head="three", age_target="ordinal", old_from=57)
    table = rows(None, None, None).assign(label=[MIDDLE_LABEL - 1, MIDDLE_LABEL, MIDDLE_LABEL + 1])
    _, targets = ages.age_targets(table, run)
    past = pd.DataFrame(targets[:, 18:], columns=ages.borders(57))
    assert past[20].isna().tolist() == [True, False, False]
    assert list(past[30]) == [0, 1, 1]
    assert past[45].isna().tolist() == [False, True, False]
    assert past[57].isna().tolist() == [False, True, False]  # a middle-aged person may be 58


def test_the_line_of_borders_has_30_years_at_0_and_the_old_at_1():
    places = dict(zip(ages.borders(58), ages.border_places(58), strict=True))
    assert (places[30], places[58]) == (0, 1)
    assert places[44 + 1] == pytest.approx(15 / 28)


def test_years_join_splits_by_path_and_external_ones_may_be_unknown(tmp_path, monkeypatch):
    splits = {0: pd.DataFrame({"path": ["/a/x.png", "b", "a"], "label": [0, 4, 4], "split": "train"})}
    table = pd.DataFrame({"path": ["a", "b", "/a/x.png"], "age": pd.array([31, 45, None], dtype="Int64")})
    monkeypatch.setattr(ages.photos, "labeled", lambda output_dir: table)
    monkeypatch.setattr(ages.external, "with_external", lambda labeled, output_dir: labeled)
    found = ages.with_years(splits, tmp_path)[0]
    np.testing.assert_array_equal(found["age"], [np.nan, 45, 31])
    assert "age" not in splits[0]


def test_years_come_from_the_tables_that_are_prepared(tmp_path):
    toys.prepare(tmp_path / "data", tmp_path)  # its people have no age
    splits = read_splits(tmp_path)
    found = ages.with_years(splits, tmp_path)
    assert all(one["age"].isna().all() and one["age"].dtype == "float64" for one in found.values())
    audit_splits(found)
