"""Suspects are ranked by the best that is known: a finished run, and a frozen backbone for what it left out."""

import os

import pandas as pd
import pytest
import toys

from mask_lib.base import files, labels
from mask_lib.data import photos
from mask_lib.relabel import probabilities
from mask_lib.training import runs

COLUMNS = list(labels.PROBABILITY_COLUMNS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data and output of the toy set, before any training."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    return data, output


def gathered(folders, run: str = "") -> probabilities.Probabilities:
    data, output = folders
    return probabilities.gather(data, output, photos.read_labeled(output), toys.FRAME, run, fold_count=3)


def test_before_any_training_a_frozen_backbone_judges_every_photo(folders):
    found = gathered(folders)
    assert sorted(found.probabilities["path"]) == sorted(toys.table()["path"])
    assert found.probabilities[COLUMNS].sum(axis=1).between(0.999, 1.001).all()
    assert "frozen" in found.source


def test_an_unfinished_run_that_is_asked_for_is_an_error(folders):
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        gathered(folders, "toy")


def test_the_latest_finished_run_goes_first_and_the_backbone_fills_the_rest(folders):
    data, output = folders
    for number, run in enumerate(("newer", "older")):
        runs.write_scores(toys.train(data, output, run=run, epochs=1))
        os.utime(output / "runs" / run / "scores.json", (2_000_000_000 - number, 2_000_000_000 - number))
    found = gathered(folders)
    assert found.source.startswith("run newer") and "frozen" in found.source
    tables = [pd.read_csv(output / f"runs/newer/fold{fold}/oof.csv") for fold in (0, 1)]
    of_run = pd.concat(tables).set_index("path")[COLUMNS]
    together = found.probabilities.set_index("path")[COLUMNS]
    assert sorted(together.index) == sorted(toys.table()["path"])
    pd.testing.assert_frame_equal(together.loc[of_run.index], of_run)

    left_out = together.index.difference(of_run.index)
    predicted = together.loc[left_out].reset_index().assign(label=0)[["path", "label", *COLUMNS]]
    files.write_csv(predicted, output / "inferences" / "older.test_val.csv")
    assert gathered(folders, "older").source == "run older"  # nothing is left for the backbone
