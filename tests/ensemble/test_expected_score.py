"""Intervals of what is to come hold what came, set after set, and say so when labels are doubtful."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulated

from mask_lib.base import files, labels, scores
from mask_lib.ensemble import expected_score
from mask_lib.relabel import corrections

TRAIN, EVALUATION, HELD_OUT = 108, 40, 12  # people of the painted sample
UNREVIEWED = Path("gone")  # an output folder without decisions


def true_score(table: pd.DataFrame) -> float:
    return scores.summarise(*scores.from_probabilities(table))["macro_f1"]


def with_wrong_people(table: pd.DataFrame, share: float, generator: np.random.Generator) -> pd.DataFrame:
    """All photos of some people carry the other gender or another age group."""
    parts = labels.decode_all(table["label"].to_numpy())
    codes, people = pd.factorize(table["person"])
    wrong = generator.permutation(len(people))[: round(share * len(people))]
    first, rest = np.isin(codes, wrong[::2]), np.isin(codes, wrong[1::2])
    parts["gender"] = np.where(first, 1 - parts["gender"], parts["gender"])
    parts["age"] = np.where(rest, (parts["age"] + 1) % 3, parts["age"])
    return table.assign(label=labels.encode_all(parts))


@pytest.fixture(scope="module")
def predicted() -> pd.DataFrame:
    return simulated.predictions(TRAIN, np.random.default_rng(0))


def covered(repeats: int, noise: float = 0.0, doubting: bool = False, draws: int = 200) -> tuple[float, float]:
    """Share of simulated sets whose true score lies in the interval, and the mean error of the estimate."""
    hits, errors = [], []
    for seed in range(repeats):
        generator = np.random.default_rng(seed)
        known, held_out, evaluation = (
            simulated.predictions(count, generator, first)
            for first, count in ((0, TRAIN), (1000, HELD_OUT), (2000, EVALUATION))
        )
        known, held_out = (with_wrong_people(table, noise, generator) for table in (known, held_out))
        doubtful = expected_score.doubtful_photos(known, UNREVIEWED) if doubting else ()
        found = expected_score.estimate(known, len(evaluation), held_out, doubtful, seed, draws)
        hits.append(found.score.low <= true_score(evaluation) <= found.score.high)
        errors.append(found.score.value - true_score(evaluation))
    return float(np.mean(hits)), float(np.mean(errors))


def test_the_interval_holds_the_score_of_at_least_nine_sets_in_ten():
    share, error = covered(100)
    assert share >= 0.9 and abs(error) < 0.02


def test_doubting_wrong_labels_brings_the_estimate_nearer_and_keeps_the_coverage():
    plain, doubting = (covered(20, noise=0.1, doubting=doubting) for doubting in (False, True))
    assert plain[1] < doubting[1] < 0.02
    assert doubting[0] >= 0.9 > plain[0]


def test_the_interval_is_wider_than_that_of_the_mean_alone_and_narrows_with_the_set(predicted):
    mean = scores.bootstrap(*scores.from_probabilities(predicted), predicted["person"]).loc["accuracy"]
    small, large = (expected_score.estimate(predicted, 7 * people).table.loc["accuracy"] for people in (20, 2000))
    widths = [row["high"] - row["low"] for row in (small, large, mean)]
    assert widths[0] > 1.4 * widths[1] > 1.4 * 0.7 * widths[2]  # which allows for few people of a kind


def test_held_out_people_move_the_estimate_as_far_as_they_are_sure(predicted):
    """They are predicted as the evaluation photos are; a few say little, many say more, none say nothing."""
    better = [simulated.predictions(count, np.random.default_rng(1), 5000, skill=8) for count in (12, 600)]
    found = [expected_score.estimate(predicted, 280, some, draws=4000) for some in (None, *better)]
    values = [one.table.loc["accuracy", "value"] for one in found]
    assert values[0] < values[1] < values[2]
    assert found[1].known == pytest.approx({"out of fold": true_score(predicted), "test_val": true_score(better[0])})
    empty = expected_score.estimate(predicted, 280, predicted.iloc[:0], draws=4000)
    pd.testing.assert_frame_equal(empty.table, found[0].table)
    assert list(empty.known) == ["out of fold"]


def test_averaging_networks_takes_away_a_share_of_the_errors(predicted):
    one, five = (expected_score.estimate(predicted, 700, fold_count=many, draws=4000).table["value"] for many in (1, 5))
    share = (five - one) / (1 - one)
    np.testing.assert_allclose(share[["macro_f1", "accuracy"]], expected_score.AVERAGING[0], atol=0.01)


def test_the_value_and_its_ends_are_those_of_the_draws(predicted):
    found = expected_score.estimate(predicted, 280, draws=500, seed=3)
    drawn = found.drawn["macro_f1"]
    assert found.drawn.shape == (500, 5) and list(found.table.index) == list(scores.metric_names())
    ends = np.quantile(drawn, [0.025, 0.975])
    assert dataclasses.astuple(found.score) == pytest.approx((drawn.mean(), *ends))
    assert found.drawn.to_numpy().min() >= 0 and found.drawn.to_numpy().max() <= 1
    pd.testing.assert_frame_equal(found.drawn, expected_score.estimate(predicted, 280, draws=500, seed=3).drawn)


def test_what_is_promised_is_said_and_written_and_goes_when_nothing_is(predicted, tmp_path):
    found = expected_score.estimate(predicted, 292, doubtful={predicted["path"][0], "of another set"}, draws=50)
    line = found.summary()
    assert "\n" not in line and str(found.score) in line
    assert "On 42 unseen people" in line and "1 doubtful labels" in line and f"from {TRAIN} people" in line
    path = tmp_path / "submissions" / "expected.json"
    assert expected_score.write_expected(found, path.parent) == [path]
    about = {"people": TRAIN, "evaluation_people": 42, "doubtful": 1, "thin": found.thin}
    assert files.read_json(path) == {"metrics": found.table.to_dict("index"), **about}
    for _ in range(2):
        assert expected_score.write_expected(None, path.parent) == [] and not path.exists()


@pytest.mark.parametrize(("photos_each", "photos", "people"), [(7, 292, 42), (7, 3, 1), (2, 292, 146), (1, 30, 30)])
def test_people_are_counted_from_photos(predicted, photos_each, photos, people):
    some = predicted.groupby("person").head(photos_each)
    assert expected_score.estimate(some, photos, draws=50).evaluation_people == people


def test_classes_of_too_few_people_are_said_to_make_it_err(predicted):
    assert "Fewer than" not in expected_score.estimate(predicted, 280, draws=50).summary()
    few = predicted.head(7 * 12)
    found = expected_score.estimate(few, 280, draws=50)
    held = few.groupby("label")["person"].nunique().reindex(range(18), fill_value=0)
    assert found.thin == [labels.describe(label) for label in range(18) if held[label] < 5] != []
    assert f"Fewer than 5 people are known of {len(found.thin)} classes" in found.summary()


def test_doubt_falls_on_planted_faults_and_spares_the_rest(predicted, monkeypatch):
    noisy = with_wrong_people(predicted, 0.08, np.random.default_rng(4))
    wrong = set(predicted["path"][noisy["label"] != predicted["label"]])
    found = expected_score.doubtful_photos(noisy, UNREVIEWED)
    assert len(found & wrong) > 0.4 * len(wrong) and len(found - wrong) < 0.2 * len(found)
    assert len(expected_score.doubtful_photos(predicted, UNREVIEWED)) < 0.01 * len(predicted)
    monkeypatch.setattr(corrections, "opinions_by_photo", lambda logs: dict.fromkeys(wrong))
    assert not expected_score.doubtful_photos(noisy, UNREVIEWED) & wrong
