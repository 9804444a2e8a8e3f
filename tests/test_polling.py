"""The vote on a painted set's evaluation photos: copies of one face agree, unreadable photos keep their answer."""

import numpy as np
import pandas as pd
import pytest
from tiny_project import paint

from mask_lib import files, folds, labels, photos, polling, store, suspects

COLUMNS = list(labels.PROBABILITY_COLUMNS)
FRAME = store.Frame(48, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A painted set and the tables that 00_prepare_data writes."""
    project = tmp_path_factory.mktemp("poll")
    paint(project, people=30, eval_people=10)
    data, output = project / "data" / "sample", project / "output"
    table, _ = photos.scan(data)
    files.write_csv(table, output / "tables" / "photos.csv")
    folds.write_splits(folds.make_splits(table[table["split"] == "train"], 2, 0.1), output)
    return data, output


def test_the_photos_of_one_face_agree_on_gender_and_age_once_they_have_voted(folders):
    data, output = folders
    train = photos.labeled(output)
    described = polling.described(data, output, train, FRAME)
    judged = suspects.out_of_fold(described[:-1], train, fold_count=3).merge(train[["path", "person"]], on="path")
    judged = judged.set_index("path").loc[train["path"]].reset_index()
    ids = [*photos.evaluated(output)["path"], "unreadable.jpg"]
    generator = np.random.default_rng(0)
    values = generator.dirichlet(np.ones(18), len(ids))
    test = pd.DataFrame({"ImageID": ids}).join(pd.DataFrame(values, columns=COLUMNS))
    voted, words = polling.poll(data, output, test, judged, FRAME)
    assert list(voted.columns) == list(test.columns) and list(voted["ImageID"]) == ids
    assert voted.iloc[-1].equals(test.iloc[-1])
    np.testing.assert_allclose(voted[COLUMNS].sum(axis=1), 1)
    changed = (voted[COLUMNS].to_numpy() != test[COLUMNS].to_numpy()).any(axis=1)
    assert changed.sum() >= 2 and "macro F1" in words
    answers = labels.decode_all(voted[COLUMNS].to_numpy().argmax(axis=1))
    face_of = {name: about["face"] for name, about in files.read_json(data / "truth.json")["eval"].items()}
    by_face = pd.DataFrame({"face": [face_of.get(name) for name in ids], "gender": answers["gender"]})[changed]
    spread = by_face.groupby("face")["gender"].agg(lambda votes: votes.value_counts(normalize=True).iloc[0])
    assert spread.mean() > 0.9  # random answers alone would agree in seven photos of ten at most
