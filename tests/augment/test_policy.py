"""Policies are data: what a file may say is checked to the last value, and nothing in it is ever executed."""

import json
import math

import numpy as np
import pytest

from mask_lib.augment.policy import (
    OPERATIONS,
    PRESET_POLICIES,
    Policy,
    Space,
    Step,
    named_policy,
    operation_shares,
    policy_summary,
    policy_table,
    random_policy,
    read_policy,
    write_policy,
)
from mask_lib.base.config import AUGMENTATIONS

MILD = Policy("mild", ((Step("rotate", 0.5, 0.1), Step("invert", 0.25)), (Step("blur", 1.0, 0.0),)))
RANGED = Policy("ranged", ((Step("rotate", 0.5, (0.0, 0.1)), Step("scale", 1.0)),))


def plain(**changes) -> dict:
    return {"format": 1, "name": "mild", "sub_policies": [[["rotate", 0.5, 0.1]]], **changes}


def one_step(*step) -> dict:
    return plain(sub_policies=[[["invert", 1, None]], [["rotate", 0.5, 0.1], list(step)]])


@pytest.mark.parametrize("policy", [*PRESET_POLICIES.values(), MILD, RANGED], ids=lambda policy: policy.name)
def test_a_policy_comes_back_from_its_file(policy, tmp_path):
    path = write_policy(policy, tmp_path / "deep" / "policy.json")
    assert read_policy(path) == policy
    assert [file.name for file in path.parent.iterdir()] == ["policy.json"]
    first = path.read_bytes()
    assert write_policy(read_policy(path), path).read_bytes() == first


@pytest.mark.parametrize(
    ("stem", "name"), [("found here", "found here"), ("x" * 150, "x" * 100), ("a\nb", "ab"), (" ", "policy")]
)
def test_a_bare_list_of_sub_policies_is_called_as_its_file_as_far_as_a_policy_may_be(tmp_path, stem, name):
    path = tmp_path / f"{stem}.json"
    path.write_text(json.dumps(MILD.plain()["sub_policies"]))
    assert read_policy(path) == Policy(name, MILD.sub_policies)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "not valid JSON"),
        ("\xff\xfe\0", "not valid JSON"),
        ("[" * 100_000, "is no policy: not valid JSON: maximum recursion depth"),
        ("9" * 5000, "is no policy"),
        (json.dumps(plain()).replace("0.5", "NaN"), "sub_policies[0][0], probability = nan"),
        (json.dumps(plain()).replace("0.5", "-1e999"), "sub_policies[0][0], probability = -inf"),
        ("[]", "it is a list"),
        ("null", "it is empty"),
        ("[[[\"__import__('os')\", 1, null]]]", "is unknown; there are identity, flip"),
        ({"format": 1, "name": "mild"}, "its keys must be format, name, sub_policies, not format, name"),
        (plain(extra=1), "not extra, format, name, sub_policies"),
        (plain(format=True), "format = True"),
        (plain(format=2), "format = 2: this version reads format 1"),
        (plain(name=3), "name = 3"),
        (plain(name="a\nb"), "name = 'a\\nb'"),
        (plain(name="x" * 101), "name = "),
        (plain(sub_policies="rotate"), "sub_policies is text: write a list"),
        (plain(sub_policies=["rotate"]), "sub_policies[0] is text: write a list of steps"),
        (plain(sub_policies=[[]] * 1001), "1,001 sub-policies, more than 1,000"),
        (plain(sub_policies=[[["invert", 1, None]] * 11]), "sub_policies[0] has 11 steps, more than 10"),
        (plain(sub_policies=[[["rotate", 1]]]), "sub_policies[0][0] = ['rotate', 1]: write [operation, probability"),
        (one_step("rotat", 1, 0.5), "sub_policies[1][1], operation = 'rotat' is unknown; did you mean rotate"),
        (one_step(["rotate"], 1, 0.5), "operation = ['rotate'] is unknown"),
        (one_step("rotate", 1.5, 0.5), "sub_policies[1][1], probability = 1.5: it must be a number from 0 to 1"),
        (one_step("rotate", True, 0.5), "probability = True"),
        (one_step("rotate", "0.5", 0.5), "probability = '0.5'"),
        (one_step("rotate", 1, 7), "sub_policies[1][1], magnitude = 7"),
        (one_step("rotate", 1, [[[0.5]]]), "magnitude = [[[0.5]]]"),
        (one_step("rotate", 1, [0.5, 0.2]), "magnitude = [0.5, 0.2]: a range must be [low, high]"),
        (one_step("rotate", 1, [0.5, 2]), "sub_policies[1][1], magnitude = 2"),
        (one_step("invert", 1, 0.5), "magnitude = 0.5: invert has none, write null"),
        (one_step("rotate", 10**400, 0.5), "probability = 1000"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_by_its_name_and_the_place(tmp_path, content, said):
    path = tmp_path / "odd.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="latin-1")
    with pytest.raises(ValueError) as caught:
        read_policy(path)
    assert "odd.json" in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_policy_made_in_a_program_is_checked_too():
    with pytest.raises(ValueError, match=r"sub_policies\[0\]\[0\], probability = nan"):
        Policy("odd", ((Step("rotate", math.nan, 0.5),),))
    with pytest.raises(ValueError, match="it is a list"):
        Policy.from_plain([[["flip", 0.5, None]]])
    with pytest.raises(AttributeError):
        MILD.name = "other"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read as a policy: No such file"):
        read_policy(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="cannot be read as a policy"):
        read_policy(tmp_path)


def test_the_presets_are_the_published_ones():
    assert tuple(PRESET_POLICIES) == AUGMENTATIONS
    assert PRESET_POLICIES["flip"].sub_policies == ((Step("flip", 0.5),),)
    trivial = PRESET_POLICIES["trivialaugment"].sub_policies
    assert len(trivial) == 14
    assert all(len(sub) == 1 and sub[0].probability == 1 and sub[0].magnitude is None for sub in trivial)
    seed = {step.operation for sub in PRESET_POLICIES["seed"].sub_policies for step in sub}
    words = "contrast brightness gamma blur motion_blur invert rotate shift scale grid_distortion elastic_distortion"
    assert seed == set(words.split())


def test_randaugment_takes_two_steps_at_the_magnitude_nine_of_thirty():
    sub_policies = PRESET_POLICIES["randaugment"].sub_policies
    steps = {step for sub in sub_policies for step in sub}
    assert (len(sub_policies), {len(sub) for sub in sub_policies}, len(steps)) == (14**2, {2}, 14)
    found = {step.operation: OPERATIONS[step.operation].value(step.magnitude or 0) for step in steps}
    wanted = {"rotate": 9, "shear_x": 0.09, "shift_x": 0.3 * 150 / 331, "brightness": 0.27, "solarize": 0.7}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_random_policies_fill_their_space_and_repeat_with_their_seed():
    several = [random_policy(np.random.default_rng(seed), Space()) for seed in range(60)]
    assert several[3] == random_policy(np.random.default_rng(3), Space())
    assert several[3] != several[4]
    found = [step for policy in several for sub in policy.sub_policies for step in sub]
    assert {(len(policy.sub_policies), *map(len, policy.sub_policies)) for policy in several} == {(5, 2, 2, 2, 2, 2)}
    assert {step.operation for step in found} == set(Space().operations)
    assert {step.probability for step in found} == {0.0, 0.25, 0.5, 0.75}
    assert {step.magnitude for step in found} == {*Space().magnitudes, None}
    assert all((step.magnitude is None) == (step.operation == "invert") for step in found)
    assert all(first.operation != second.operation for policy in several for first, second in policy.sub_policies)


def test_a_space_may_be_small_but_not_empty():
    space = Space(operations=("invert",), sub_policies=1, steps=3)
    assert len(random_policy(np.random.default_rng(0), space).sub_policies[0]) == 3
    with pytest.raises(ValueError, match="no operations"):
        random_policy(np.random.default_rng(0), Space(operations=()))
    with pytest.raises(ValueError, match="space = 'blurr' is unknown; did you mean blur"):
        random_policy(np.random.default_rng(0), Space(operations=("blurr",)))


def test_a_run_names_a_preset_or_a_file(tmp_path):
    assert named_policy("seed") is PRESET_POLICIES["seed"]
    assert named_policy(str(write_policy(MILD, tmp_path / "p.json"))) == MILD


def test_a_policy_says_what_it_does():
    said = policy_summary(MILD)
    assert said.splitlines()[0] == "mild: each photo draws one of 2 sub-policies"
    assert "rotate ± 13.5 degrees, in 50%, then invert, in 25%" in said
    assert "rotate ± from 0 to 13.5 degrees, in 50%, then zoom ± from 0 to 0.693" in policy_summary(RANGED)
    assert policy_summary(PRESET_POLICIES["none"]) == "none: photos stay as they are"
    assert policy_summary(PRESET_POLICIES["randaugment"]).endswith("… and 184 more")
    assert "posterize from 8 to 2 bits" in policy_summary(PRESET_POLICIES["trivialaugment"])


def test_a_policy_as_a_table_and_what_photos_meet():
    found = policy_table(MILD)
    assert found["operation"].tolist() == ["rotate", "invert", "blur"]
    assert found["sub_policy"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(found[["low", "high"]], [[0.1, 0.1], [math.nan] * 2, [0, 0]])
    np.testing.assert_array_equal(policy_table(RANGED)[["low", "high"]], [[0, 0.1], [0, 1]])
    shares = operation_shares(MILD).set_index("operation")["share"]
    assert shares.to_dict() == {"rotate": 0.25, "invert": 0.125, "blur": 0.5}
    assert operation_shares(PRESET_POLICIES["randaugment"])["share"].sum() == pytest.approx(2)
    assert policy_table(PRESET_POLICIES["none"]).empty
