"""The classes go back and forth between numbers, attributes, words and probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mask_lib.base import labels

ALL = range(18)
SHAPE = labels.Attribute("shape", ("round", "not round"), "rn")
SIZE = labels.Attribute("size", ("<10", "10-19", "20-29", "30+"), "abcd", of_person=True, edges=(10, 20, 30))


def rows_of_probabilities(count: int, size: int):
    numbers = arrays.arrays(np.float64, (count, size), elements=st.floats(0, 1))
    return numbers.map(lambda rows: (rows + 1e-9) / (rows + 1e-9).sum(axis=1, keepdims=True))


def heads():
    """By attribute probabilities of four photos, now and then nearly 0."""
    return st.fixed_dictionaries({one.name: rows_of_probabilities(4, one.size) for one in labels.attributes()})


def test_every_label_survives_decoding_and_encoding_alone_and_among_others():
    together = labels.decode_all(np.array(ALL))
    assert list(together) == ["mask", "gender", "age"]
    assert {part.dtype for part in together.values()} == {np.dtype(np.int64)}
    assert list(labels.encode_all(together)) == list(ALL)
    for label in ALL:
        mask, gender, age = labels.decode(label)
        assert (mask, gender, age) == tuple(part[label] for part in together.values())
        assert labels.encode(mask, gender, age) == labels.encode(**labels.values_of(label)) == label
        assert label == 6 * mask + 3 * gender + age  # the contest's own formula
    assert all(len(part) == 0 for part in labels.decode_all(np.array([])).values())


@pytest.mark.parametrize("wrong", [-1, 18, 1000, (3, 0, 0), (0, 2, 0), (0, 0, 3), (-1, 0, 0)])
def test_numbers_that_are_no_label_or_attribute_are_refused(wrong):
    with pytest.raises(ValueError):
        labels.decode(wrong) if isinstance(wrong, int) else labels.encode(*wrong)


@pytest.mark.parametrize(("years", "group"), [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (120, 2)])
def test_ages_at_the_edges_fall_into_their_group(years, group):
    assert labels.attribute("age").value_of(years) == group


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        *(("age", years, f"age = {years}: it must be from 0 to 120") for years in (-1, 121, 1985)),
        *(("gender", word, f"'{word}' is no gender: write one of male, female") for word in ("diverse", "Female", "")),
    ],
)
def test_what_is_no_value_is_refused_by_name(name, written, message):
    with pytest.raises(ValueError, match=message):
        labels.attribute(name).value_of(written)


def test_every_class_has_other_words_and_a_column_of_its_own():
    assert len({labels.describe(label) for label in ALL}) == 18
    assert labels.describe(4) == "worn female 30-59"
    assert labels.describe(labels.with_values(4, {"age": 2, "mask": 1})) == "incorrect female 60+"
    assert [labels.attribute("mask").value_of(one) for one in ("worn", "incorrect", "not_worn")] == [0, 1, 2]
    columns = labels.probability_columns()
    assert (columns[0], columns[9:11], len(columns)) == ("p00", ["p09", "p10"], 18)


@settings(max_examples=60, deadline=None)
@given(heads())
def test_joint_probabilities_are_the_products_and_their_marginals_the_heads_again(given_heads):
    joint = labels.joint(given_heads)
    assert joint.shape == (4, 18)
    for label in ALL:
        parts = [given_heads[name][:, value] for name, value in labels.values_of(label).items()]
        np.testing.assert_allclose(joint[:, label], np.prod(parts, axis=0))
    for name, found in labels.marginals(joint).items():
        np.testing.assert_allclose(found, given_heads[name], atol=1e-6)


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
        assert SHAPE.table_words == ("round", "not_round")
        with pytest.raises(ValueError, match="'age' is no attribute: there are shape, size"):
            labels.attribute("age")
        with labels.using([SHAPE]):
            assert labels.class_count() == 2 and labels.number() is None
    assert labels.names() == ("mask", "gender", "age")
