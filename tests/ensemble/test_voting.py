"""Photos of one person are found by what training people teach, and vote on gender and age, never on the mask."""

import lookalikes
import numpy as np
import opinions
import pandas as pd
import pytest

from mask_lib.base import labels
from mask_lib.ensemble import voting


@pytest.fixture(scope="module")
def learned() -> voting.Learned:
    return voting.learn(*lookalikes.known_people(), evaluation_photos=84)


def grouped(test: pd.DataFrame, *groups: int) -> pd.DataFrame:
    return pd.DataFrame({"ImageID": test["ImageID"], "group": groups})


def test_unknown_people_are_found_though_masks_and_nuisance_are_louder(learned):
    features, test, person = lookalikes.unknown_people()
    found = voting.find_people(features, test, learned)
    precision, recall = voting.pair_scores(found["group"].to_numpy(), person)
    assert precision > 0.97 and recall > 0.8
    assert found["ImageID"].tolist() == test["ImageID"].tolist()
    assert list(found.columns) == ["ImageID", "group", "certainty"]
    assert found["group"].drop_duplicates().tolist() == list(range(found["group"].nunique()))


def test_who_they_are_does_not_depend_on_the_order_of_photos(learned):
    features, test, _ = lookalikes.unknown_people()
    turned = voting.find_people(features[::-1], test.iloc[::-1], learned).iloc[::-1]
    forward = voting.find_people(features, test, learned)
    assert voting.pair_scores(turned["group"].to_numpy(), forward["group"].to_numpy()) == (1.0, 1.0)


def test_several_arrays_and_small_pictures_describe_photos_together(learned):
    features, test, _ = lookalikes.unknown_people()
    known, photos = lookalikes.known_people()
    pictures = [one[:, 20:].reshape(-1, 4, 5) for one in (known, features)]
    several = voting.learn([known[:, :20], pictures[0]], photos, evaluation_photos=84)
    found = voting.find_people([features[:, :20], pictures[1]], test, several)
    pd.testing.assert_frame_equal(found, voting.find_people(features, test, learned))


def test_photos_that_nobody_resembles_stay_alone_and_have_no_certainty(learned):
    features, test, _ = lookalikes.unknown_people(count=1)
    one_of_each = pd.concat(
        [test.iloc[:1], lookalikes.unknown_people(seed=2, count=9)[1].iloc[:1].assign(ImageID="stranger")]
    )
    strange = np.vstack([features[:1], -features[:1]])
    found = voting.find_people(strange, one_of_each, learned)
    assert found["group"].tolist() == [0, 1] and found["certainty"].isna().all()


def test_the_same_noise_for_everybody_joins_nobody():
    """Features that say nothing must not be used: the wanted precision cannot be had."""
    generator, (_, photos) = np.random.default_rng(3), lookalikes.known_people()
    noise = generator.normal(size=(len(photos), lookalikes.SIDE))
    learned = voting.learn(noise, photos, evaluation_photos=84, precision=0.98)
    assert learned.recall < 0.02
    found = voting.find_people(noise[:84], photos.rename(columns={"path": "ImageID"})[:84], learned)
    assert voting.pairs_of(found["group"].to_numpy()) < 10


def test_no_threshold_at_all_is_said_in_words():
    generator, (_, photos) = np.random.default_rng(4), lookalikes.known_people()
    alone = photos.groupby("person").head(1).reset_index(drop=True)  # no true pair, so every join is wrong
    learned = voting.learn(generator.normal(size=(len(alone), lookalikes.SIDE)), alone, evaluation_photos=84)
    assert learned.threshold == np.inf and learned.groups["certainty"].isna().all()
    assert "leave it off" in voting.voting_summary(voting.vote_report(alone, learned, draws=20))


def test_a_higher_precision_is_paid_for_in_recall():
    case = lookalikes.known_people(noise=0.5)
    easy, strict = (voting.learn(*case, evaluation_photos=84, precision=wanted) for wanted in (0.6, 0.95))
    assert strict.threshold > easy.threshold and strict.recall < easy.recall
    assert strict.precision >= 0.95 and easy.precision >= 0.6


def test_what_is_said_of_the_training_groups_is_true_of_them():
    """As many people are searched at once as there are to find, so nothing is counted up."""
    features, photos = lookalikes.known_people(noise=0.5)
    learned = voting.learn(features, photos, evaluation_photos=84, precision=0.9)
    person = photos.set_index("path")["person"][learned.groups["path"]].to_numpy()
    found = voting.pair_scores(learned.groups["group"].to_numpy(), person)
    assert found == pytest.approx((learned.precision, learned.recall))


def test_a_crowd_to_find_makes_it_stricter():
    case = lookalikes.known_people()
    few, many = (voting.learn(*case, evaluation_photos=count, precision=0.98) for count in (84, 8400))
    assert many.threshold > few.threshold


def test_missing_photos_make_it_stricter(monkeypatch):
    """A full group takes in no stranger; with gaps in it, it may, and the precision must be had then too."""
    case = lookalikes.known_people()
    gappy = voting.learn(*case, evaluation_photos=84)
    monkeypatch.setattr(voting, "thinned", lambda person, generator: np.ones(len(person), bool))
    assert voting.learn(*case, evaluation_photos=84).threshold < gappy.threshold
    assert gappy.precision >= gappy.wanted


def test_people_are_never_judged_by_what_they_taught_themselves():
    """In features of pure chance each person can be learned by heart; found again they are not."""
    generator, (_, photos) = np.random.default_rng(5), lookalikes.known_people()
    noise = generator.normal(size=(len(photos), 200))
    own = voting.fitted(noise, pd.factorize(photos["person"])[0]).vectors(noise)
    by_heart = voting.joined(voting.merges(own, voting.sure_masks(photos)), len(photos))
    assert voting.pair_scores(by_heart, photos["person"].to_numpy())[1] > 0.5
    assert voting.learn(noise, photos, evaluation_photos=84).recall < 0.05


def test_the_vote_moves_gender_and_age_and_leaves_each_mask():
    rows = [
        lookalikes.probabilities([0.7, 0.2, 0.1], [0.9, 0.1], [0.8, 0.1, 0.1]),
        lookalikes.probabilities([0.1, 0.8, 0.1], [0.8, 0.2], [0.7, 0.2, 0.1]),
        lookalikes.probabilities([0.2, 0.2, 0.6], [0.4, 0.6], [0.2, 0.7, 0.1]),
    ]
    test = lookalikes.table(*rows)
    found = voting.vote(test, grouped(test, 5, 5, 5))
    before, after = (labels.marginals(one[opinions.COLUMNS].to_numpy()) for one in (test, found))
    np.testing.assert_allclose(after["mask"], before["mask"])
    expected = np.prod([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], axis=0) ** (1 / 3)
    np.testing.assert_allclose(after["gender"], np.tile(expected / expected.sum(), (3, 1)))
    assert (after["age"] == pytest.approx(after["age"][:1].repeat(3, axis=0))) and (after["age"].argmax(1) == 0).all()
    np.testing.assert_allclose(found[opinions.COLUMNS].sum(axis=1), 1)
    np.testing.assert_allclose(found[opinions.COLUMNS].to_numpy(), labels.joint(after))


def test_who_is_alone_keeps_every_bit():
    generator = np.random.default_rng(0)
    test = lookalikes.table(*generator.dirichlet(np.ones(18), 4).astype(np.float32))
    found = voting.vote(test, grouped(test, 0, 1, 0, 2))
    alone = [1, 3]
    assert found.loc[alone, opinions.COLUMNS].equals(test.loc[alone, opinions.COLUMNS].astype("float64"))
    assert not np.allclose(found.loc[[0, 2], opinions.COLUMNS], test.loc[[0, 2], opinions.COLUMNS])


def test_a_vote_of_certainties_that_contradict_each_other_is_finite():
    test = lookalikes.table(
        lookalikes.probabilities([1, 0, 0], [1, 0], [1, 0, 0]), lookalikes.probabilities([0, 0, 1], [0, 1], [1, 0, 0])
    )
    found = voting.vote(test, grouped(test, 0, 0))
    np.testing.assert_allclose(labels.marginals(found[opinions.COLUMNS].to_numpy())["gender"], 0.5)


def test_the_order_of_the_groups_does_not_matter():
    test = lookalikes.table(*np.random.default_rng(0).dirichlet(np.ones(18), 5))
    groups = grouped(test, 3, 1, 3, 1, 0)
    pd.testing.assert_frame_equal(voting.vote(test, groups), voting.vote(test, groups.iloc[::-1]))


def test_groups_of_other_photos_are_refused():
    test = lookalikes.table(*np.random.default_rng(0).dirichlet(np.ones(18), 3))
    with pytest.raises(ValueError, match=r"1 photos in one only.*2\.jpg"):
        voting.vote(test, grouped(test, 0, 1, 2).iloc[:2])
    twice = grouped(test, 0, 1, 2).iloc[[0, 1, 2, 2]]
    with pytest.raises(ValueError, match="4 and 3 rows"):
        voting.vote(test, twice)


def test_unsound_probabilities_are_refused():
    test = lookalikes.table(*np.random.default_rng(0).dirichlet(np.ones(18), 3)).assign(p03=np.nan)
    with pytest.raises(ValueError, match="missing or infinite"):
        voting.vote(test, grouped(test, 0, 0, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"precision": 0.0}, "precision = 0.0"), ({"precision": 1.5}, "precision = 1.5")],
)
def test_an_impossible_precision_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        voting.learn(*lookalikes.known_people(), evaluation_photos=84, **settings)


def test_arrays_of_other_photos_are_refused(learned):
    features, photos = lookalikes.known_people()
    with pytest.raises(ValueError, match="167 described photos but 168 rows"):
        voting.learn(features[1:], photos, evaluation_photos=84)
    with pytest.raises(ValueError, match="167 described photos but 168 rows"):
        voting.learn([features, features[1:]], photos, evaluation_photos=84)
    with pytest.raises(ValueError, match="168 described photos but 84 rows"):
        voting.find_people(features, lookalikes.unknown_people()[1], learned)


def test_features_that_are_no_numbers_are_refused(learned):
    features, test, _ = lookalikes.unknown_people()
    features[5, 3] = np.nan
    with pytest.raises(ValueError, match="1 photos, first row 5"):
        voting.find_people(features, test, learned)


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_photo_is_no_difficulty(learned, count):
    features, test, _ = lookalikes.unknown_people()
    found = voting.find_people(features[:count], test[:count], learned)
    assert found["group"].tolist() == list(range(count))
    assert len(voting.vote(test[:count], found)) == count


def test_three_people_are_too_few():
    features, photos = lookalikes.known_people()
    with pytest.raises(ValueError, match="3 people are too few"):
        voting.learn(features[:21], photos[:21], evaluation_photos=84)


def test_where_photos_err_alone_the_vote_helps_and_is_advised():
    generator, (features, photos) = np.random.default_rng(6), lookalikes.known_people()
    truth = photos["label"].to_numpy()
    other_mask = np.arange(18)[None] // 6 != truth[:, None] // 6
    alone = 2 * np.eye(18)[truth] + generator.normal(size=(len(truth), 18)) - 9 * other_mask
    noisy = opinions.softmax(alone)
    photos = photos.assign(**dict(zip(opinions.COLUMNS, noisy.T, strict=True)))
    found = voting.vote_report(photos, voting.learn(features, photos, evaluation_photos=84), draws=200)
    assert found.after > found.before + 0.05 and found.is_advised
    assert found.gain.loc["macro_f1", "difference"] == pytest.approx(found.after - found.before)
    assert found.gain.loc["mask", "difference"] >= -0.02
    assert "worth switching on" in voting.voting_summary(found)


def test_where_a_persons_photos_agree_already_voting_is_not_advised(learned):
    _, photos = lookalikes.known_people()
    truth = photos["label"].to_numpy()
    sure = photos.assign(**dict(zip(opinions.COLUMNS, (0.982 * np.eye(18)[truth] + 0.001).T, strict=True)))
    found = voting.vote_report(sure, learned, draws=200)
    assert not found.is_advised and "leave voting off" in voting.voting_summary(found)
