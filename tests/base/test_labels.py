"""The 18 classes go back and forth between numbers, attributes, words and probabilities."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mask_lib.base import labels
from mask_lib.base.labels import AgeGroup, Gender, Mask

ALL = range(labels.CLASS_COUNT)


def heads(count: int = 4):
    """Probabilities of three heads for `count` photos, now and then exactly 0."""
    return st.tuples(*(rows_of_probabilities(count, size) for size in labels.SHAPE))


def rows_of_probabilities(count: int, size: int):
    numbers = arrays.arrays(np.float64, (count, size), elements=st.floats(0, 1))
    return numbers.map(lambda rows: (rows + 1e-9) / (rows + 1e-9).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("label", ALL)
def test_every_label_survives_decoding_and_encoding(label):
    mask, gender, age = labels.decode(label)
    assert labels.encode(mask, gender, age) == label
    assert label == 6 * mask + 3 * gender + age  # the contest's own formula


def test_the_eighteen_combinations_have_eighteen_labels():
    found = [labels.encode(*attributes) for attributes in itertools.product(Mask, Gender, AgeGroup)]
    assert found == list(ALL)


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ((Mask.WORN, Gender.MALE, AgeGroup.YOUNG), 0),
        ((Mask.WORN, Gender.FEMALE, AgeGroup.OLD), 5),
        ((Mask.INCORRECT, Gender.MALE, AgeGroup.MIDDLE), 7),
        ((Mask.NOT_WORN, Gender.FEMALE, AgeGroup.OLD), 17),
    ],
)
def test_labels_are_those_of_the_contest(attributes, label):
    assert labels.encode(*attributes) == label
    assert labels.decode(label) == attributes


@pytest.mark.parametrize("label", [-1, 18, 1000])
def test_numbers_that_are_no_label_are_refused(label):
    with pytest.raises(ValueError):
        labels.decode(label)


@pytest.mark.parametrize("attributes", [(3, 0, 0), (0, 2, 0), (0, 0, 3), (-1, 0, 0)])
def test_numbers_that_are_no_attribute_are_refused(attributes):
    with pytest.raises(ValueError):
        labels.encode(*attributes)


@pytest.mark.parametrize(
    ("years", "group"),
    [
        (0, AgeGroup.YOUNG),
        (29, AgeGroup.YOUNG),
        (30, AgeGroup.MIDDLE),
        (59, AgeGroup.MIDDLE),
        (60, AgeGroup.OLD),
        (120, AgeGroup.OLD),
    ],
)
def test_ages_at_the_edges_fall_into_their_group(years, group):
    assert labels.age_group(years) is group


@pytest.mark.parametrize("years", [-1, 121, 1985, float("nan")])
def test_an_age_nobody_has_is_refused_and_named(years):
    with pytest.raises(ValueError, match=rf"{years} years is outside 0-120"):
        labels.age_group(years)


def test_many_labels_decode_as_one_does():
    found = labels.decode_all(np.array(ALL))
    assert list(found) == ["mask", "gender", "age"]
    assert [tuple(map(int, one)) for one in zip(*found.values(), strict=True)] == [labels.decode(one) for one in ALL]
    assert {part.dtype for part in found.values()} == {np.dtype(np.int64)}


def test_no_labels_decode_to_nothing():
    assert all(len(part) == 0 for part in labels.decode_all(np.array([])).values())


def test_every_class_is_described_in_other_words():
    assert len({labels.describe(label) for label in ALL}) == labels.CLASS_COUNT
    assert labels.describe(4) == "worn female 30-59"


@pytest.mark.parametrize("kind", labels.ATTRIBUTES.values())
def test_every_attribute_survives_its_key(kind):
    assert [labels.from_key(kind, labels.key_of(member)) for member in kind] == list(kind)


@pytest.mark.parametrize("key", ["diverse", "Female", "", "FEMALE", "not_worn"])
def test_an_unknown_key_is_refused_with_the_known_ones(key):
    with pytest.raises(ValueError, match=rf"'{key}' is no Gender: write one of male, female"):
        labels.from_key(Gender, key)


def test_there_is_a_probability_column_for_every_class_in_order():
    assert labels.PROBABILITY_COLUMNS[0] == "p00"
    assert labels.PROBABILITY_COLUMNS[9:11] == ("p09", "p10")
    assert len(labels.PROBABILITY_COLUMNS) == labels.CLASS_COUNT


@settings(max_examples=60, deadline=None)
@given(heads())
def test_the_marginals_of_joint_probabilities_are_the_heads_again(given_heads):
    joint = labels.joint(by_name(given_heads))
    assert joint.shape == (4, labels.CLASS_COUNT)
    np.testing.assert_allclose(joint.sum(axis=1), 1, atol=1e-6)
    for head, found in zip(given_heads, labels.marginals(joint).values(), strict=True):
        np.testing.assert_allclose(found, head, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(rows_of_probabilities(3, labels.CLASS_COUNT))
def test_marginals_add_up_what_the_labels_say(probabilities):
    found = labels.marginals(probabilities)
    for name, numbers in labels.decode_all(np.array(ALL)).items():
        for value in range(found[name].shape[1]):
            expected = probabilities[:, numbers == value].sum(axis=1)
            np.testing.assert_allclose(found[name][:, value], expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(heads(count=1))
def test_a_joint_probability_is_the_product_at_its_label(given_heads):
    joint = labels.joint(by_name(given_heads))[0]
    mask, gender, age = (head[0] for head in given_heads)
    for label in ALL:
        one, two, three = labels.decode(label)
        assert joint[label] == pytest.approx(mask[one] * gender[two] * age[three])


@settings(max_examples=60, deadline=None)
@given(heads())
def test_of_a_product_the_likeliest_class_is_made_of_the_likeliest_attributes(given_heads):
    """The seed notebooks' sum of arg-maxes, 6, 3 and 1 times, is no other answer for three heads."""
    joint, apart = labels.joint(by_name(given_heads)), labels.combine(by_name(given_heads))
    assert list(apart) == [6 * mask + 3 * gender + age for mask, gender, age in zip(
        *(head.argmax(axis=1) for head in given_heads), strict=True
    )]  # fmt: skip
    np.testing.assert_allclose(joint[np.arange(len(joint)), apart], joint.max(axis=1), rtol=1e-6)
    assert list(labels.combine(labels.marginals(joint))) == list(joint.argmax(axis=1)) or _has_ties(given_heads)


def _has_ties(given_heads) -> bool:
    """Whether two values of an attribute are as likely as each other, but for rounding."""
    best = [np.sort(head, axis=1)[:, -2:] for head in given_heads]
    return any((np.diff(two, axis=1) < 1e-6).any() for two in best)


def test_18_outputs_of_one_head_may_hold_the_likeliest_class_and_attributes_apart():
    probabilities = np.zeros((1, labels.CLASS_COUNT))
    for mask, gender, age, share in [(0, 0, 0, 0.4), (1, 1, 0, 0.3), (1, 0, 1, 0.3)]:
        probabilities[0, labels.encode(mask, gender, age)] = share
    assert probabilities.argmax() == labels.encode(0, 0, 0)
    assert list(labels.combine(labels.marginals(probabilities))) == [labels.encode(1, 0, 0)]
