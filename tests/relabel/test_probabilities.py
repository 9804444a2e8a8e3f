"""Suspects are ranked by all that is known: a frozen backbone, and with it a finished run."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import toys
from relabeling import CROWD, crowd, with_faults

from mask_lib.base import files, labels
from mask_lib.data.photos import read_labeled
from mask_lib.models.features import ARCHITECTURE
from mask_lib.relabel import probabilities
from mask_lib.relabel.probabilities import TRUSTED, out_of_fold
from mask_lib.training import runs

COLUMNS = labels.probability_columns()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data and output of the toy set, before any training."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    return data, output


def gathered(folders, run: str = "", backbones: Sequence[str] = (ARCHITECTURE,)) -> tuple[pd.DataFrame, str]:
    data, output = folders
    return probabilities.gather(data, output, read_labeled(output), toys.FRAME, backbones, run)


def test_before_any_training_a_frozen_backbone_judges_every_photo(folders):
    found, source = gathered(folders)
    assert sorted(found["path"]) == sorted(toys.table()["path"])
    assert found[COLUMNS].sum(axis=1).between(0.999, 1.001).all()
    assert "frozen" in source


def test_an_unfinished_run_that_is_asked_for_is_an_error(folders):
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        gathered(folders, "toy")


def test_what_the_backbone_says_is_kept_until_photos_or_labels_change(folders, monkeypatch):
    data, output = folders
    before, calls = gathered(folders)[0], []
    judge = probabilities.out_of_fold
    monkeypatch.setattr(probabilities, "out_of_fold", lambda *given: calls.append(1) or judge(*given))
    pd.testing.assert_frame_equal(gathered(folders)[0], before)
    assert not calls
    changed = read_labeled(output)
    changed.loc[0, "label"] = (changed.loc[0, "label"] + 3) % 18
    found, _ = probabilities.gather(data, output, changed, toys.FRAME, [ARCHITECTURE])
    assert calls == [1] and not found[COLUMNS].equals(before[COLUMNS])
    for path in (output / "features").glob("out_of_fold-*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    pd.testing.assert_frame_equal(gathered(folders)[0], before)
    assert calls == [1, 1]


def test_the_stages_of_several_backbones_are_averaged(folders, monkeypatch):
    table, random = read_labeled(folders[1]), np.random.default_rng(0)
    stages = {"one": [random.normal(size=(len(table), 4))], "other": [random.normal(size=(len(table), 4))] * 2}
    monkeypatch.setattr(probabilities, "stage_features", lambda photos, folder, architecture: stages[architecture])
    found, source = gathered(folders, backbones=["one", "other"])
    assert "one and other" in source
    one, other = (labels.marginals(out_of_fold(stage, table)[COLUMNS].to_numpy())["mask"] for stage in stages.values())
    np.testing.assert_allclose(labels.marginals(found[COLUMNS].to_numpy())["mask"], (one + 2 * other) / 3)


def test_the_latest_finished_run_is_averaged_with_the_backbone_which_fills_the_rest(folders):
    data, output = folders
    alone = gathered(folders)[0].set_index("path")[COLUMNS]
    for number, run in enumerate(("newer", "older")):
        runs.write_scores(toys.train(data, output, run=run, epochs=1))
        os.utime(output / "runs" / run / "scores.json", (2_000_000_000 - number, 2_000_000_000 - number))
    found, source = gathered(folders)
    assert source.startswith("run newer") and "frozen" in source
    tables = [pd.read_csv(output / f"runs/newer/fold{fold}/oof.csv") for fold in (0, 1)]
    of_run = pd.concat(tables).set_index("path")[COLUMNS]
    together = found.set_index("path")[COLUMNS]
    assert sorted(together.index) == sorted(toys.table()["path"])
    pd.testing.assert_frame_equal(together.loc[of_run.index], (of_run + alone.loc[of_run.index]) / 2)
    left_out = together.index.difference(of_run.index)
    pd.testing.assert_frame_equal(together.loc[left_out], alone.loc[left_out])
    predicted = together.loc[left_out].reset_index().assign(label=0)[["path", "label", *COLUMNS]]
    files.write_csv(predicted, output / "inferences" / "older.test_val.csv")
    assert "left out" in source and "left out" not in gathered(folders, "older")[1]


def test_a_frozen_run_is_not_taken_for_a_second_opinion(folders):
    data, output = folders
    frozen = {"head": "frozen", "epochs": 1, "attribute_loss": 0.0}
    runs.write_scores(toys.train(data, output, run="frozen", **frozen))
    os.utime(output / "runs" / "frozen" / "scores.json", (2_100_000_000, 2_100_000_000))
    assert gathered(folders)[1].startswith("run newer")


def people_of(ages: np.ndarray, each: int) -> pd.DataFrame:
    """Photos of people of these age groups, so many a person; masks and genders take turns."""
    rows = [
        (f"{row:04d}.jpg", f"{row // each:04d}", labels.encode(row % 3, row // each % 2, age))
        for row, age in enumerate(np.repeat(ages, each))
    ]
    return pd.DataFrame(rows, columns=["path", "person", "label"])


def test_few_old_people_are_not_taken_for_younger_ones():
    """One person in twenty is old, and the features tell only roughly: still most of the old look old."""
    ages = np.where(np.arange(300) % 20 == 0, 2, np.arange(300) % 2)
    table, ages = people_of(ages, each=2), np.repeat(ages, 2)
    signal = 1.5 * np.eye(3)[ages] + np.random.default_rng(0).normal(size=(600, 3))
    found = labels.marginals(out_of_fold([signal], table)[COLUMNS].to_numpy())["age"]
    assert (found.argmax(axis=1)[ages == 2] == 2).mean() > 0.5


def test_distrust_leaves_every_value_someone_to_learn_it_from():
    """The only two old people look young: distrusted both, they still keep a probability of being old."""
    looks = np.arange(60) % 2
    table = people_of(np.where(np.arange(60) < 2, 2, looks), each=1)
    layer = np.eye(2)[looks] * 9 + np.random.default_rng(0).normal(size=(60, 2))
    found = out_of_fold([layer], table, fold_count=2)[COLUMNS].to_numpy()
    assert (labels.marginals(found)["age"][2:, 2] > 0).any()


def test_wrong_labels_teach_nobody_the_second_time(monkeypatch):
    """Ten people's gender is wrong: learned without them, the others' own gender is more probable."""
    table, own = crowd(), {}
    gender = labels.decode_all(table["true"].to_numpy())["gender"]
    layers = [np.repeat(np.eye(2)[gender] * 4, 4, axis=1) + np.random.default_rng(0).normal(size=(700, 8))]
    wrong = table["person"].astype(int) < 10
    table.loc[wrong, "label"] += 3 * (1 - 2 * gender[wrong])
    for trusted in (0.0, TRUSTED):
        monkeypatch.setattr(probabilities, "TRUSTED", trusted)
        found = out_of_fold(layers, table)[COLUMNS].to_numpy()
        own[trusted] = labels.marginals(found)["gender"][np.arange(700), gender].mean()
    assert own[TRUSTED] > own[0.0] + 0.01


def test_no_photo_is_judged_by_its_own_person():
    photos = with_faults(crowd())
    telltale = np.eye(CROWD)[pd.factorize(photos["person"])[0]] * 9  # tells who it is: of no use for other people
    found = out_of_fold([telltale], photos, fold_count=3)
    given = labels.decode_all(photos["label"].to_numpy())["gender"]
    gender = labels.marginals(found[COLUMNS].to_numpy())["gender"]
    assert gender[np.arange(len(given)), given].max() < 0.8
