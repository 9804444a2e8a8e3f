"""The vote on a painted set's photos: of one face they agree, and only where voting pays, or must, do they vote."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_project import paint

from mask_lib.base import files, labels
from mask_lib.data import photos, splits, store
from mask_lib.ensemble import voting
from mask_lib.relabel import probabilities

COLUMNS = list(labels.PROBABILITY_COLUMNS)
FRAME = store.Frame(48, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A painted set and the tables that 00_prepare_data writes."""
    project = tmp_path_factory.mktemp("poll")
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
    known = train[train["split"] != splits.TEST_VAL]
    described = voting.described(data, output, photos.read_labeled(output).set_index("path").loc[known["path"]]
                                  .reset_index(), FRAME)  # fmt: skip
    judged = probabilities.out_of_fold(described[:-1], known, fold_count=3).merge(known[["path", "person"]], on="path")
    judged = judged.set_index("path").loc[known["path"]].reset_index()
    ids = [*photos.read_evaluated(output)["path"], "unreadable.jpg"]
    test = pd.DataFrame({"ImageID": ids}).join(random_probabilities(len(ids)))
    held_out = train[train["split"] == splits.TEST_VAL].reset_index(drop=True)
    test_val = held_out[["path", "label"]].join(random_probabilities(len(held_out))).assign(person=held_out["person"])
    return test, test_val, judged


def random_probabilities(count: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).dirichlet(np.ones(18), count), columns=COLUMNS)


def advise(monkeypatch, pays: bool) -> None:
    """From now on the report on training people says that voting pays, or does not."""
    monkeypatch.setattr(voting.Report, "is_advised", property(lambda report: pays))


@pytest.fixture(scope="module")
def always(folders, tables) -> voting.Poll:
    """The vote held whatever it is worth."""
    return voting.poll("always", *folders, *tables, FRAME)


def faces(folders) -> dict[str, str]:
    return {name: about["face"] for name, about in files.read_json(folders[0] / "truth.json")["eval"].items()}


def test_the_photos_of_one_face_agree_on_gender_and_age_once_they_have_voted(folders, tables, always):
    test, voted = tables[0], always.test
    assert list(voted.columns) == list(test.columns) and list(voted["ImageID"]) == list(test["ImageID"])
    assert voted.iloc[-1].equals(test.iloc[-1])  # it could not be read
    np.testing.assert_allclose(voted[COLUMNS].sum(axis=1), 1)
    changed = (voted[COLUMNS].to_numpy() != test[COLUMNS].to_numpy()).any(axis=1)
    assert changed.sum() >= 2 and "macro F1" in always.reason
    answers = labels.decode_all(voted[COLUMNS].to_numpy().argmax(axis=1))
    face_of = faces(folders)
    by_face = pd.DataFrame({"face": voted["ImageID"].map(face_of), "gender": answers["gender"]})[changed]
    spread = by_face.groupby("face")["gender"].agg(lambda votes: votes.value_counts(normalize=True).iloc[0])
    assert spread.mean() > 0.9  # random answers alone would agree in seven photos of ten at most


def test_the_people_found_are_the_faces_that_were_painted(folders, tables):
    data, output = folders
    test, _, judged = tables
    test = test.iloc[:-1]
    known = photos.read_labeled(output).set_index("path").loc[judged["path"]].reset_index()
    learned = voting.learn(voting.described(data, output, known, FRAME), judged, len(test))
    asked = photos.read_evaluated(output).set_index("path").loc[test["ImageID"]].rename_axis("path").reset_index()
    found = voting.find_people(voting.described(data, output, asked, FRAME), test, learned)
    precision, recall = voting.pair_scores(found["group"].to_numpy(), test["ImageID"].map(faces(folders)).to_numpy())
    assert precision > 0.95 and recall > 0.8


def test_what_voted_is_expected_to_score_as_voted(tables, always):
    """The out-of-fold photos vote too, as do the held-out people: the estimate is of what is handed in."""
    assert always.has_voted and "Photos of a person voted" in always.reason
    for before, after in zip(tables[1:], (always.test_val, always.out_of_fold), strict=True):
        pd.testing.assert_frame_equal(after.drop(columns=COLUMNS), before.drop(columns=COLUMNS))
        changed = (after[COLUMNS].to_numpy() != before[COLUMNS].to_numpy()).any(axis=1)
        assert changed.any()
        masks = [labels.marginals(table[COLUMNS].to_numpy())["mask"] for table in (before, after)]
        np.testing.assert_allclose(*masks, atol=1e-6)


@pytest.mark.parametrize("pays", [True, False])
def test_photos_vote_only_where_that_pays(folders, tables, monkeypatch, always, pays):
    advise(monkeypatch, pays)
    found = voting.poll(True, *folders, *tables, FRAME)
    expected = (always.test, always.test_val, always.out_of_fold) if pays else tables
    assert found.has_voted is pays
    for one, other in zip((found.test, found.test_val, found.out_of_fold), expected, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert found.reason.endswith("Photos of a person voted." if pays else "Nobody voted.")


def test_a_vote_that_does_not_pay_says_why_it_was_held(folders, tables, monkeypatch):
    advise(monkeypatch, False)
    found = voting.poll("always", *folders, *tables, FRAME)
    assert found.has_voted and "leave voting off" in found.reason and "person_voting is 'always'" in found.reason


@pytest.mark.parametrize("off", [None, False])
def test_nobody_is_looked_at_unless_asked(tables, off):
    found = voting.poll(off, Path("gone"), Path("gone"), *tables, FRAME)
    assert found.test is tables[0] and not found.has_voted and found.reason == "Nobody voted."


def test_without_out_of_fold_tables_nobody_can_vote(tables):
    found = voting.poll("always", Path("gone"), Path("gone"), *tables[:2], None, FRAME)
    assert found.test is tables[0] and "takes out-of-fold tables of every member" in found.reason


@pytest.mark.parametrize("wrong", ["yes", 1, 0.5, []])
def test_another_answer_to_whether_to_vote_is_refused(tables, wrong):
    with pytest.raises(ValueError, match="write false, true"):
        voting.poll(wrong, Path("gone"), Path("gone"), *tables, FRAME)
