"""A policy says what it does, what photos meet, and what another does differently."""

import pytest

from mask_lib.augment import policy
from mask_lib.augment.policy import Policy, Step

MILD = Policy("mild", ((Step("rotate", 0.5, 0.1), Step("invert", 0.25)), (Step("blur", 1.0, 0.0),)))


def test_equal_policies_have_no_differences():
    assert policy.policy_diff(MILD, Policy("other name", MILD.sub_policies[::-1])).empty


def test_differences_are_named():
    after = Policy("x", ((Step("rotate", 0.5, 0.2), Step("invert", 0.25)), (Step("flip", 1.0),), (Step("flip", 1.0),)))
    found = policy.policy_diff(MILD, after)
    assert list(found.columns) == ["change", "before", "after"]
    assert sorted(found["change"]) == ["added", "added", "changed", "removed"]
    changed = found[found["change"] == "changed"].iloc[0]
    assert changed["before"] == "rotate ± 13.5 degrees, in 50%, then invert, in 25%"
    assert changed["after"] == "rotate ± 27 degrees, in 50%, then invert, in 25%"
    assert found.loc[found["change"] == "removed", "before"].tolist() == ["blur 0 of the shorter side"]


def test_a_policy_says_what_it_does():
    said = policy.describe_policy(MILD)
    assert said.splitlines()[0] == "mild: each photo draws one of 2 sub-policies"
    assert "rotate ± 13.5 degrees, in 50%, then invert, in 25%" in said
    assert policy.describe_policy(policy.PRESET_POLICIES["none"]) == "none: photos stay as they are"
    assert policy.describe_policy(policy.PRESET_POLICIES["randaugment"]).endswith("… and 184 more")
    assert "posterize from 8 to 2 bits" in policy.describe_policy(policy.PRESET_POLICIES["trivialaugment"])


def test_a_policy_as_a_table_and_what_photos_meet():
    found = policy.policy_table(MILD)
    assert found["operation"].tolist() == ["rotate", "invert", "blur"]
    assert found["sub_policy"].tolist() == [0, 0, 1]
    assert found["magnitude"].isna().tolist() == [False, True, False]
    shares = policy.operation_shares(MILD).set_index("operation")["share"]
    assert shares.to_dict() == {"rotate": 0.25, "invert": 0.125, "blur": 0.5}
    assert policy.operation_shares(policy.PRESET_POLICIES["randaugment"])["share"].sum() == pytest.approx(2)
    assert policy.policy_table(policy.PRESET_POLICIES["none"]).empty
