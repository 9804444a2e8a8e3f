"""The classes go back and forth between numbers, attributes, words and probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mask_lib.base import labels

ALL = range(18)
SHAPE = labels.Attribute("shape", ("round", "not round"), "rn")
SIZE = labels.Attribute("size", labels.group_words((10, 20, 30)), "abcd", of_person=True, edges=(10, 20, 30))


def rows_of_probabilities(count: int, size: int):
    numbers = arrays.arrays(np.float64, (count, size), elements=st.floats(0, 1))
    return numbers.map(lambda rows: (rows + 1e-9) / (rows + 1e-9).sum(axis=1, keepdims=True))


def heads(count: int = 4):
    """By attribute probabilities of `count` photos, now and then exactly 0."""
    return st.fixed_dictionaries({one.name: rows_of_probabilities(count, one.size) for one in labels.attributes()})


@pytest.mark.parametrize("label", ALL)
def test_every_label_survives_decoding_and_encoding(label):
    mask, gender, age = labels.decode(label)
    assert labels.encode(mask, gender, age) == labels.encode(**labels.values_of(label)) == label
    assert label == 6 * mask + 3 * gender + age  # the contest's own formula


@pytest.mark.parametrize("label", [-1, 18, 1000])
def test_numbers_that_are_no_label_are_refused(label):
    with pytest.raises(ValueError):
        labels.decode(label)


@pytest.mark.parametrize("values", [(3, 0, 0), (0, 2, 0), (0, 0, 3), (-1, 0, 0)])
def test_numbers_that_are_no_attribute_are_refused(values):
    with pytest.raises(ValueError):
        labels.encode(*values)


@pytest.mark.parametrize(("years", "group"), [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (120, 2)])
def test_ages_at_the_edges_fall_into_their_group(years, group):
    assert labels.attribute("age").value_of(years) == group


@pytest.mark.parametrize("years", [-1, 121, 1985])
def test_an_age_nobody_has_is_refused_and_named(years):
    with pytest.raises(ValueError, match=rf"age = {years}: it must be from 0 to 120"):
        labels.attribute("age").value_of(years)


@pytest.mark.parametrize("word", ["diverse", "Female", "", "not_worn"])
def test_an_unknown_word_is_refused_with_the_known_ones(word):
    with pytest.raises(ValueError, match=rf"'{word}' is no gender: write one of male, female"):
        labels.attribute("gender").value_of(word)
    assert [labels.attribute("mask").value_of(one) for one in ("worn", "incorrect", "not_worn")] == [0, 1, 2]


def test_many_labels_decode_and_encode_as_one_does():
    found = labels.decode_all(np.array(ALL))
    assert list(found) == ["mask", "gender", "age"]
    assert [tuple(map(int, one)) for one in zip(*found.values(), strict=True)] == [labels.decode(one) for one in ALL]
    assert {part.dtype for part in found.values()} == {np.dtype(np.int64)}
    assert list(labels.encode_all(found)) == list(ALL)
    assert all(len(part) == 0 for part in labels.decode_all(np.array([])).values())


def test_every_class_is_described_in_other_words():
    assert len({labels.describe(label) for label in ALL}) == 18
    assert labels.describe(4) == "worn female 30-59"
    assert labels.describe(labels.with_values(4, {"age": 2, "mask": 1})) == "incorrect female 60+"


def test_there_is_a_probability_column_for_every_class_in_order():
    columns = labels.probability_columns()
    assert (columns[0], columns[9:11], len(columns)) == ("p00", ["p09", "p10"], 18)


@settings(max_examples=60, deadline=None)
@given(heads())
def test_the_marginals_of_joint_probabilities_are_the_heads_again(given_heads):
    joint = labels.joint(given_heads)
    assert joint.shape == (4, 18)
    np.testing.assert_allclose(joint.sum(axis=1), 1, atol=1e-6)
    for name, found in labels.marginals(joint).items():
        np.testing.assert_allclose(found, given_heads[name], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(heads(count=1))
def test_a_joint_probability_is_the_product_at_its_label(given_heads):
    joint = labels.joint(given_heads)[0]
    for label in ALL:
        assert joint[label] == pytest.approx(
            np.prod([given_heads[name][0, value] for name, value in labels.values_of(label).items()])
        )


@settings(max_examples=60, deadline=None)
@given(heads())
def test_of_a_product_the_likeliest_class_is_made_of_the_likeliest_values(given_heads):
    """The seed notebooks' sum of arg-maxes, 6, 3 and 1 times, is no other answer for three heads."""
    joint, apart = labels.joint(given_heads), labels.combine(given_heads)
    best = {name: head.argmax(axis=1) for name, head in given_heads.items()}
    assert list(apart) == list(6 * best["mask"] + 3 * best["gender"] + best["age"])
    np.testing.assert_allclose(joint[np.arange(len(joint)), apart], joint.max(axis=1), rtol=1e-6)


def test_18_outputs_of_one_head_may_hold_the_likeliest_class_and_values_apart():
    probabilities = np.zeros((1, 18))
    for values, share in [((0, 0, 0), 0.4), ((1, 1, 0), 0.3), ((1, 0, 1), 0.3)]:
        probabilities[0, labels.encode(*values)] = share
    assert probabilities.argmax() == labels.encode(0, 0, 0)
    assert list(labels.combine(labels.marginals(probabilities))) == [labels.encode(1, 0, 0)]


def test_another_task_is_other_attributes_for_a_while():
    with labels.using([SHAPE, SIZE]):
        assert (labels.names(), labels.shape(), labels.number()) == (("shape", "size"), (2, 4), SIZE)
        assert (labels.names(of_person=True), labels.names(of_person=False)) == (("size",), ("shape",))
        assert labels.describe(5) == "not round 10-19"
        assert SIZE.words == ("<10", "10-19", "20-29", "30+") and SHAPE.table_words == ("round", "not_round")
        with pytest.raises(ValueError, match="'age' is no attribute: there are shape, size"):
            labels.attribute("age")
        with labels.using([SHAPE]):
            assert labels.class_count() == 2 and labels.number() is None
    assert labels.names() == ("mask", "gender", "age")


@pytest.mark.parametrize("task", [[], [SHAPE, SHAPE], [SHAPE, labels.Attribute("other", ("a", "b"), "xr")]])
def test_attributes_need_names_and_keys_of_their_own(task):
    with pytest.raises(ValueError, match="names and keys of their own"), labels.using(task):
        pass
