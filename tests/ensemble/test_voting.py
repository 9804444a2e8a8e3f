"""Photos of one person vote on the person's attributes, never on the photo's own, and only where that pays or must."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulated
from tiny_project import paint

from mask_lib.base import files, labels, scores
from mask_lib.data import photos, splits, store
from mask_lib.ensemble import person_groups, voting
from mask_lib.ensemble.members import probabilities_of, with_probabilities
from mask_lib.relabel import probabilities

FRAME = store.Frame(48, 64)


def table_of(**parts: list[list[float]]) -> pd.DataFrame:
    """Photos with these probabilities of mask, gender and age."""
    joint = labels.joint({name: np.array(part) for name, part in parts.items()})
    return pd.DataFrame(joint, columns=simulated.COLUMNS)


def test_the_vote_moves_gender_and_age_and_leaves_each_mask():
    test = table_of(
        mask=[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]],
        gender=[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]],
        age=[[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1]],
    )
    found = voting.vote(test, np.array([5, 5, 5]))
    before, after = (labels.marginals(probabilities_of(one)) for one in (test, found))
    np.testing.assert_allclose(after["mask"], before["mask"])
    for name in ("gender", "age"):
        expected = np.prod(before[name], axis=0) ** (1 / 3)
        np.testing.assert_allclose(after[name], np.tile(expected / expected.sum(), (3, 1)))
    np.testing.assert_allclose(probabilities_of(found), labels.joint(after))


def test_who_is_alone_keeps_every_bit():
    test = simulated.with_random(pd.DataFrame({"ImageID": list("abcd")}))
    found = voting.vote(test, np.array([0, 1, 0, 2]))
    pd.testing.assert_frame_equal(found.iloc[[1, 3]], test.iloc[[1, 3]], check_exact=True)
    assert not np.allclose(probabilities_of(found)[[0, 2]], probabilities_of(test)[[0, 2]])
    with pytest.raises(ValueError):
        voting.vote(test, np.array([0, 1]))


def test_a_vote_of_certainties_that_contradict_each_other_is_finite():
    test = table_of(mask=[[1, 0, 0], [0, 0, 1]], gender=[[1, 0], [0, 1]], age=[[1, 0, 0], [1, 0, 0]])
    found = voting.vote(test, np.array([0, 0]))
    np.testing.assert_allclose(labels.marginals(probabilities_of(found))["gender"], 0.5)


def test_where_photos_err_alone_the_vote_helps_and_is_advised():
    generator, (features, known) = np.random.default_rng(6), simulated.known_people()
    truth = known["label"].to_numpy()
    other_mask = np.arange(18)[None] // 6 != truth[:, None] // 6
    alone = 2 * np.eye(18)[truth] + generator.normal(size=(len(truth), 18)) - 9 * other_mask
    noisy = with_probabilities(known, simulated.softmax(alone))
    finder = person_groups.learn_people(features, noisy, evaluation_photos=84)
    is_advised, said = voting.vote_report(noisy, finder)
    tables = noisy, voting.vote(noisy, finder.group)
    before, after = (scores.summarise(*scores.from_probabilities(one))["macro_f1"] for one in tables)
    assert is_advised and after > before + 0.05 and "worth switching on" in said
    assert f"from {before:.3f} to {after:.3f}, a difference of {after - before:+.3f} (" in said


def test_where_a_persons_photos_agree_already_voting_is_not_advised():
    features, known = simulated.known_people()
    sure = with_probabilities(known, 0.982 * np.eye(18)[known["label"]] + 0.001)
    finder = person_groups.learn_people(features, sure, evaluation_photos=84)
    is_advised, said = voting.vote_report(sure, finder)
    assert not is_advised and "leave voting off" in said


def test_no_threshold_at_all_is_said():
    alone = simulated.known_people()[1].groupby("person").head(1).reset_index(drop=True)  # no true pair
    noise = np.random.default_rng(4).normal(size=(len(alone), simulated.SIDE))
    finder = person_groups.learn_people([noise], alone, evaluation_photos=84)
    assert finder.threshold == np.inf and len(set(finder.group)) == len(alone)
    assert "leave it off" in voting.vote_report(alone, finder)[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A painted set and the tables that 00_prepare_data writes."""
    project = tmp_path_factory.mktemp("vote")
    paint(project, people=30, eval_people=10)
    data, output = project / "data" / "sample", project / "output"
    table, _ = photos.scan_photos(data)
    files.write_csv(table, output / "tables" / "photos.csv")
    splits.write_splits(splits.make_splits(table[table["split"] == "train"], 2, 0.1), output)
    return data, output


@pytest.fixture(scope="module")
def tables(folders):
    """test, test_val and out-of-fold tables: a logistic regression's on training people, else random ones."""
    data, output = folders
    train = next(iter(splits.read_splits(output).values()))
    is_held_out = train["split"] == splits.TEST_VAL
    known, held_out = (train[asked].reset_index(drop=True) for asked in (~is_held_out, is_held_out))
    arrays = voting.photo_features(data, output, photos.read_labeled(output), list(known["path"]), FRAME)
    predicted = probabilities.out_of_fold(arrays[:-1], known, fold_count=3).set_index("path").loc[known["path"]]
    out_of_fold = with_probabilities(known[["path", "person", "label"]], probabilities_of(predicted))
    test = pd.DataFrame({"ImageID": [*photos.read_evaluated(output)["path"], "unreadable.jpg"]})
    return simulated.with_random(test), simulated.with_random(held_out[["path", "label", "person"]]), out_of_fold


@pytest.fixture(scope="module")
def always(folders, tables) -> voting.VoteResult:
    """A vote that does not pay, held all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voting, "vote_report", lambda *_given, **_how: (False, "As reported."))
        return voting.hold_vote("always", *folders, tables, FRAME)


def changed_rows(before: pd.DataFrame, after: pd.DataFrame) -> np.ndarray:
    return (probabilities_of(before) != probabilities_of(after)).any(axis=1)


def test_the_photos_of_one_face_agree_on_gender_once_they_have_voted(folders, tables, always):
    test, voted = tables[0], always.test
    assert list(voted.columns) == list(test.columns) and list(voted["ImageID"]) == list(test["ImageID"])
    assert voted.iloc[-1].equals(test.iloc[-1])  # it could not be read
    face_of = {name: about["face"] for name, about in files.read_json(folders[0] / "truth.json")["eval"].items()}
    answers = labels.decode_all(probabilities_of(voted).argmax(axis=1))["gender"]
    by_face = pd.DataFrame({"face": voted["ImageID"].map(face_of), "gender": answers})[changed_rows(test, voted)]
    spread = by_face.groupby("face")["gender"].agg(lambda votes: votes.value_counts(normalize=True).iloc[0])
    assert spread.mean() > 0.9  # random answers alone would agree in seven photos of ten at most


def test_what_voted_is_expected_to_score_as_voted(tables, always):
    """The out-of-fold photos vote too, as do the held-out people: the estimate is of what is handed in."""
    assert always.has_voted and always.reason == "As reported. Photos of a person voted: person_voting is 'always'."
    for before, after in zip(tables[1:], (always.test_val, always.out_of_fold), strict=True):
        others = [name for name in before if name not in simulated.COLUMNS]
        pd.testing.assert_frame_equal(after[others], before[others])
        assert changed_rows(before, after).any()
        masks = [labels.marginals(probabilities_of(table))["mask"] for table in (before, after)]
        np.testing.assert_allclose(*masks, atol=1e-6)


@pytest.mark.parametrize("pays", [True, False])
def test_photos_vote_only_where_that_pays(folders, tables, monkeypatch, always, pays):
    monkeypatch.setattr(voting, "vote_report", lambda *_given, **_how: (pays, "As reported."))
    found = voting.hold_vote(True, *folders, tables, FRAME)
    expected = (always.test, always.test_val, always.out_of_fold) if pays else tables
    for one, other in zip((found.test, found.test_val, found.out_of_fold), expected, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert found.has_voted is pays
    assert found.reason == f"As reported. {'Photos of a person voted.' if pays else 'Nobody voted.'}"


def not_held(tables: tuple, person_voting: bool | str | None) -> str:
    """Why nobody votes, without a look at any photo."""
    found = voting.hold_vote(person_voting, Path("gone"), Path("gone"), tables, FRAME)
    assert found.test is tables[0] and not found.has_voted
    return found.reason


def test_where_nobody_is_asked_to_vote_or_can_a_sentence_says_so(tables):
    assert not_held(tables, None) == not_held(tables, False) == "Nobody voted."
    assert "takes out-of-fold tables of every member" in not_held((*tables[:2], None), "always")
    alone = tables[2].assign(person=tables[2]["path"])
    assert not_held((*tables[:2], alone), True) == "Nobody voted: people have one photo each."
    with labels.using((labels.Attribute("sharp", ("no", "yes"), "ny"),)):
        assert not_held(tables, True) == "Nobody voted: no attribute is the same on all photos of a person."


@pytest.mark.parametrize("wrong", ["yes", 1, 0.5, []])
def test_another_answer_to_whether_to_vote_is_refused(tables, wrong):
    with pytest.raises(ValueError, match="write false, true"):
        voting.hold_vote(wrong, Path("gone"), Path("gone"), tables, FRAME)
