"""Scores against scikit-learn, and intervals against what resampling people must give."""

import numpy as np
import pandas as pd
import past_runs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from mask_lib.base import labels, scores

LABELS = st.integers(0, labels.class_count() - 1)
ROWS = st.lists(st.tuples(LABELS, LABELS, st.integers(0, 6)), min_size=1, max_size=60)


def example(people: int = 40, photos_each: int = 7, right: float = 0.7, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Truth, prediction and person of people whose photos tend to fail together."""
    generator = np.random.default_rng(seed)
    person = np.repeat([f"{number:06d}" for number in range(people)], photos_each)
    mask = np.resize([0, 0, 0, 0, 0, 1, 2], photos_each)
    truth = np.concatenate([mask * 6 + generator.integers(6) for _ in range(people)])
    known = np.repeat(generator.random(people) < right, photos_each)
    return truth, np.where(known, truth, generator.integers(0, 18, len(truth))), person


def sklearn_metrics(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    apart = [np.array([labels.decode(label) for label in side]) for side in (truth, predicted)]
    parts = {name: np.mean(apart[0][:, place] == apart[1][:, place]) for place, name in enumerate(labels.names())}
    macro_f1 = f1_score(truth, predicted, labels=range(18), average="macro", zero_division=0)
    return {"macro_f1": macro_f1, "accuracy": accuracy_score(truth, predicted), **parts}


def probability_table(key: str = "path") -> pd.DataFrame:
    generator = np.random.default_rng(1)
    values = generator.dirichlet(np.ones(18), size=4)
    table = pd.DataFrame(values, columns=labels.probability_columns())
    if key == "path":
        table.insert(0, "label", [0, 5, 17, 3])
    table.insert(0, key, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    return table


@given(rows=ROWS)
@settings(max_examples=40, deadline=None)
def test_the_summary_equals_scikit_learn(rows):
    truth, predicted, _ = np.array(rows).T
    assert scores.summarise(truth, predicted) == pytest.approx(sklearn_metrics(truth, predicted))


def test_every_draw_equals_scikit_learn_on_the_people_it_drew():
    truth, predicted, person = example(people=6)  # few enough that draws lose whole classes
    drawn = scores._resampled_metrics(scores.person_tallies(truth, predicted, person), draws=130, seed=3)
    times = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=130)
    names = np.unique(person)
    for draw in (0, 1, 99, 100, 129):  # both sides of a block's edge
        rows = np.concatenate([np.flatnonzero(person == name) for name in np.repeat(names, times[draw])])
        wanted = sklearn_metrics(truth[rows], predicted[rows])
        assert drawn[draw] == pytest.approx([wanted[metric] for metric in scores.metric_names()])


def test_intervals_are_deviations_of_the_draws_around_the_value():
    truth, predicted, person = example()
    table = scores.bootstrap(truth, predicted, person, draws=300, seed=5, level=0.9)
    tallies = scores.person_tallies(truth, predicted, person)
    drawn = scores._resampled_metrics(tallies, draws=300, seed=5, is_filled=True)
    half = stats.t.ppf(0.95, len(tallies) / 6) * drawn.std(axis=0)  # two genders by three ages
    half[1:] = np.hypot(half[1:], stats.t.ppf(0.95, len(tallies) / 6) / len(tallies))  # one more who is wrong in all
    value = np.array(list(scores.summarise(truth, predicted).values()))
    assert list(table.index) == list(scores.metric_names())
    assert list(table.columns) == ["value", "low", "high"]
    assert table["low"].to_numpy() == pytest.approx(np.maximum(value - half, 0))
    assert table["high"].to_numpy() == pytest.approx(np.minimum(value + half, 1))
    assert table["value"].to_dict() == pytest.approx(scores.summarise(truth, predicted))
    pd.testing.assert_frame_equal(table, scores.bootstrap(truth, predicted, person, draws=300, seed=5, level=0.9))


def test_a_draw_without_a_class_takes_the_f1_of_another_for_it_unless_nobody_has_that_class():
    truth, predicted = np.repeat([0, 4, 8], 40), np.repeat([0, 4, 8], 40)
    predicted[:30] = 4  # F1 of class 0 is 0.4, of 4 0.73, of 8 1
    whole = scores.person_tallies(truth, predicted, np.arange(120)).sum(axis=0)
    without = whole.copy()
    without[[8, 26]] = 0  # no hit of class 8, and nobody has it
    plain = scores.metrics_of(without[None])[0, 0] * 18
    is_known = np.isin(np.arange(18), [0, 4, 8])
    filled = scores.metrics_of(np.tile(without, (500, 1)), is_known)[:, 0] * 18
    assert set(np.round(filled - plain, 6)) == {0.4, round(80 / 110, 6)}
    assert scores.metrics_of(whole[None], is_known)[0, 0] == scores.metrics_of(whole[None])[0, 0]


def test_macro_f1_of_few_people_with_rare_classes_is_covered():
    """Percentiles of draws that count 0 for a missing class hold it in four of five samples only."""
    random = np.random.default_rng(0)
    truth = random.choice(18, 4000, p=np.r_[np.full(9, 0.1), np.full(9, 0.1 / 9)])
    predicted = np.where(random.random(4000) < np.where(truth < 9, 0.8, 0.4), truth, random.integers(0, 18, 4000))
    population, covered = scores.summarise(truth, predicted)["macro_f1"], 0
    for seed in range(100):
        rows = random.choice(4000, 120)
        found = scores.bootstrap(truth[rows], predicted[rows], np.arange(120) // 2, draws=200, seed=seed)
        covered += found.loc["macro_f1", "low"] <= population <= found.loc["macro_f1", "high"]
    assert covered >= 90


def test_models_are_shown_side_by_side():
    tables = {name: scores.bootstrap(*example(seed=seed), draws=20) for seed, name in enumerate(("deep", "wide"))}
    found = scores.side_by_side(tables)
    assert list(found.index) == ["deep", "wide"] and list(found.columns) == list(scores.metric_names())
    assert found.loc["wide", "age"] == str(scores.Score(*tables["wide"].loc["age"]))
    assert str(scores.Score(0.7631, 0.741, 0.784)) == "0.763 (0.741 to 0.784)"


def test_paired_draws_see_a_small_steady_gain_that_single_intervals_hide():
    truth, predicted_a, person = example(people=200)
    predicted_b = predicted_a.copy()
    wrong = np.flatnonzero(predicted_a != truth)[::12]
    predicted_b[wrong] = truth[wrong]
    paired = scores.paired_bootstrap(truth, predicted_a, predicted_b, person).loc["accuracy"]
    single_a = scores.bootstrap(truth, predicted_a, person).loc["accuracy"]
    single_b = scores.bootstrap(truth, predicted_b, person).loc["accuracy"]
    assert single_b["low"] < single_a["high"]
    assert paired["low"] > 0
    assert paired["p"] < 0.01
    assert paired["difference"] == pytest.approx(single_b["value"] - single_a["value"])


def test_a_model_is_no_better_than_itself():
    truth, predicted, person = example()
    table = scores.paired_bootstrap(truth, predicted, predicted, person, draws=50)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["p"] == 1).all()


@pytest.mark.parametrize(
    ("truth", "predicted", "person", "message"),
    [
        ([0, 1], [0], ["a", "b"], "2 true labels but 1 predicted"),
        ([0, 1], [0, 1], ["a"], "2 labels but 1 entries for person"),
        ([], [], [], "no labels to score"),
        ([0, 18], [0, 1], ["a", "b"], "18 is no true label"),
        ([0, 1], [0, -1], ["a", "b"], "-1 is no predicted label"),
        ([0, 1], [0, 1.5], ["a", "b"], "1.5 is no predicted label"),
        ([0, 1], [0, 1], ["a", None], "row 1 has no person"),
    ],
)
def test_unusable_labels_are_named(truth, predicted, person, message):
    with pytest.raises(ValueError, match=message):
        scores.bootstrap(truth, predicted, person, draws=2)


def test_metrics_are_those_of_the_attributes_at_hand():
    shape, place = labels.Attribute("shape", ("round", "square"), "rs"), labels.Attribute("place", ("in", "out"), "io")
    with labels.using([shape, place]):
        table = scores.bootstrap([0, 1, 2, 3], [0, 1, 2, 2], list("abcd"), draws=20)
        assert list(table.index) == ["macro_f1", "accuracy", "shape", "place"]
        assert list(table["value"][1:]) == [0.75, 1.0, 0.75]
        probabilities = pd.DataFrame(np.eye(4), columns=labels.probability_columns()).assign(label=[0, 1, 2, 3])
        found = scores.from_probabilities(probabilities.iloc[::-1])
        assert [(part.dtype, list(part)) for part in found] == [(np.int64, [3, 2, 1, 0])] * 2
        with pytest.raises(ValueError, match="whole numbers 0-3"):
            scores.summarise([4], [0])


def with_value(column: str, value: object) -> pd.DataFrame:
    table = probability_table()
    table[column] = table[column].astype(object)
    table.loc[2, column] = value
    return table.infer_objects()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (probability_table().drop(columns="p17"), "lacks p17: write path, label, p00, "),
        (probability_table().drop(columns="label"), "p00 where label belongs"),
        (probability_table().assign(p18=0.0), "has p18 where nothing belongs"),
        (pd.concat([probability_table(), probability_table()[["p03"]]], axis=1), "has p03 where nothing belongs"),
        (probability_table().iloc[:, [0, 1, 2, 4, 3, *range(5, 20)]], "p02 where p01 belongs"),
        (with_value("p05", np.nan), "'c.jpg' has a probability that is missing"),
        (with_value("p05", np.inf), "'c.jpg' has a probability that is missing or infinite"),
        (with_value("p05", -0.1), "'c.jpg' has a negative"),
        (with_value("p05", 0.9), "'c.jpg' has probabilities that do not add up to 1"),
        (with_value("label", 18), "'c.jpg' has a label outside 0-17"),
        (with_value("path", "a.jpg"), "path 'a.jpg' stands on more than one row"),
    ],
)
def test_a_faulty_table_of_probabilities_is_refused_by_name(table, message):
    with pytest.raises(ValueError, match=message):
        scores.check_probabilities(table, "path")


@pytest.mark.parametrize("key", ["path", "ImageID"])
def test_a_whole_table_passes_and_its_rows_may_be_off_by_a_thousandth(key):
    table = probability_table(key)
    scores.check_probabilities(table, key)
    scores.check_probabilities(table.round(4).astype({"p00": np.float32}), key)
    scores.check_probabilities(table.assign(p00=table["p00"] + 0.0009), key)
    with pytest.raises(ValueError, match=r"'a.jpg' \(and 3 more\)"):
        scores.check_probabilities(table.assign(p00=table["p00"] + 0.0011), key)


@pytest.mark.parametrize(("count", "rows"), [(2, [4, 1]), (3, [4, 1, 2]), (9, [4, 1, 2]), (0, [])])
def test_the_worst_mistakes_are_the_wrong_rows_with_most_confidence_first(count, rows):
    table = past_runs.probabilities(np.array([0, 5, 6, 3, 9]), np.array([0.95, 0.6, 0.5, 0.9, 0.8]))
    table["label"] = [0, 1, 2, 3, 17]
    pd.testing.assert_frame_equal(scores.worst_mistakes(table, count), table.loc[rows])
    assert scores.worst_mistakes(table.loc[[0, 3]], 5).empty


# Several seeds


def seeded(hits: dict[int, list[bool]]) -> pd.DataFrame:
    """One photo a person of class 0, 1, …; which are right is told for each seed."""
    rows = [
        {"seed": seed, "person": f"{place}", "label": place % 18, "predicted": place % 18 if hit else (place + 1) % 18}
        for seed, of_seed in hits.items()
        for place, hit in enumerate(of_seed)
    ]
    return pd.DataFrame(rows)


def test_with_one_seed_the_difference_is_the_paired_one():
    generator = np.random.default_rng(0)
    before, after = (seeded({0: list(generator.random(90) < share)}) for share in (0.5, 0.8))
    found = scores.paired_over_seeds(before, after)
    expected = scores.paired_bootstrap(before["label"], before["predicted"], after["predicted"], before["person"])
    assert found["difference"].to_dict() == pytest.approx(expected["difference"].to_dict())
    assert found.loc["accuracy", "low"] == pytest.approx(expected.loc["accuracy", "low"], abs=0.03)
    assert found.loc["accuracy", "p"] == pytest.approx(expected.loc["accuracy", "p"], abs=0.02)


def test_one_lucky_seed_of_three_leaves_doubt():
    right, wrong = [True] * 60, [place % 2 == 0 for place in range(60)]
    before = seeded({0: wrong, 1: wrong, 2: wrong})
    lucky = scores.paired_over_seeds(before, seeded({0: right, 1: wrong, 2: wrong})).loc["macro_f1"]
    steady = scores.paired_over_seeds(before, seeded({0: right, 1: right, 2: right})).loc["macro_f1"]
    assert lucky["difference"] > 0
    assert lucky["low"] <= 0  # all three draws may miss it
    assert steady["low"] > 0


def test_seeds_must_be_scored_on_the_same_people():
    table = seeded({0: [True] * 5, 1: [True] * 5})
    with pytest.raises(ValueError, match="not scored on the same people"):
        scores.paired_over_seeds(table[1:], table[1:])
    with pytest.raises(ValueError, match=r"\(2, 5\) seeds and people on one side, \(1, 5\) on the other"):
        scores.paired_over_seeds(table, table[:5])
