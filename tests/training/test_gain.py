"""Whether cleaning helped is told by two runs that differ in the labels alone, on photos nobody changed."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import config, files, labels
from mask_lib.data import clean_labels, photos, splits
from mask_lib.training import dataset, gain, runs

COLUMNS = list(labels.PROBABILITY_COLUMNS)


def table(answers: list[int], truth: list[int]) -> pd.DataFrame:
    """Out-of-fold probabilities that are sure of `answers`, two photos a person."""
    keys = pd.DataFrame({"path": [f"{number}" for number in range(len(truth))], "label": truth})
    keys.insert(1, "person", [number // 2 for number in range(len(truth))])
    return keys.join(pd.DataFrame(np.eye(labels.CLASS_COUNT)[answers], columns=COLUMNS))


def test_only_untouched_photos_count_and_the_rows_may_stand_in_any_order():
    truth = [0, 0, 1, 1, 2, 2]
    before, after = table([0, 0, 1, 2, 2, 2], truth), table([0, 0, 1, 1, 5, 5], truth)
    found = gain.compare(before, after.sample(frac=1, random_state=0), touched={"4", "5"})
    assert (found["photos"], found["people"], found["touched"]) == (4, 2, 2)
    assert found["before"]["accuracy"] == 0.75 and found["after"]["accuracy"] == 1
    assert found["gain"]["accuracy"]["difference"] == pytest.approx(0.25)


def test_a_photo_dropped_in_one_run_is_left_out():
    before, after = table([0, 1], [0, 0]), table([0], [0])
    assert gain.compare(before, after, touched=set())["photos"] == 1
    with pytest.raises(ValueError, match="no photo is left"):
        gain.compare(before, after, touched={"0"})


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """Data and output with a toy run trained on labels that cleaning has corrected for one person in three."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toys.prepare(data, output)
    truth = toys.table().set_index("path")["label"]
    given = photos.read_photos(output / "tables" / "photos.csv")
    is_wrong = given["person"].isin([f"{person:03d}" for person in range(0, toys.PEOPLE, 3)])
    given.loc[is_wrong, "label"] = (given["label"][is_wrong] + 1) % 18
    files.write_csv(given, output / "tables" / "photos.csv")
    train = photos.read_labeled(output)
    splits.write_splits(toys.splits(train), output)
    kept = train.assign(path=str(data / "train/images") + "/" + train["path"])
    kept["class"] = truth[train["path"]].to_numpy()
    clean_labels.write(kept, kept.head(0), output)
    settings = config.Run(**{**toys.SETTINGS, "folds": ()})
    opened = dataset.open_photos(data, output, train, toys.FRAME)
    result = runs.train_run(settings, clean_labels.read_clean_splits(output), opened, output)
    runs.write_scores(result)
    return data, output


def test_one_command_trains_on_the_given_labels_with_the_same_folds_and_says_what_cleaning_gave(cleaned, tmp_path):
    data, output = (shutil.copytree(folder, tmp_path / folder.name) for folder in cleaned)
    command = [sys.executable, "-m", "mask_lib.training.gain", str(data), str(output), "toy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=files.PROJECT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "toy: macro F1" in done.stdout and "whose label nobody changed (10 were changed or dropped)" in done.stdout
    found = files.read_json(output / "gain" / "toy.json")
    assert found["photos"] + found["touched"] == 2 * toys.PEOPLE - sum(
        splits.read_splits(output)[0]["split"] == "test_val"
    ) + len(clean_labels.touched(output) & held_out(output))
    for fold, split in splits.read_splits(output).items():
        before = pd.read_csv(output / "gain" / "runs" / "toy" / f"fold{fold}" / "oof.csv")
        val = split[split["split"] == "val"]
        assert list(before["path"]) == list(val["path"]) and list(before["label"]) == list(val["label"])
    assert files.read_json(output / "gain/runs/toy/config.json")["label_source"] == "given"


def held_out(output) -> set[str]:
    split = splits.read_splits(output)[0]
    return set(split["path"][split["split"] == "test_val"])


def test_a_run_of_other_labels_than_todays_is_refused(cleaned, tmp_path):
    data, output = (shutil.copytree(folder, tmp_path / folder.name) for folder in cleaned)
    clean_labels.clean_path(output).unlink()
    with pytest.raises(ValueError, match="other photos, labels or folds"):
        gain.measure(data, output, "toy")
    settings = files.read_json(output / "runs" / "toy" / "config.json")
    files.write_json(settings | {"label_source": "given"}, output / "runs" / "toy" / "config.json")
    with pytest.raises(ValueError, match="compare one with label_source: clean"):
        gain.measure(data, output, "toy")


@pytest.mark.parametrize(
    ("low", "high", "touched", "words"),
    [
        (0.01, 0.05, 3, "the difference is real"),
        (-0.01, 0.05, 3, "it may be chance"),
        (-0.05, -0.01, 3, "cleaning did harm"),
        (0, 0, 0, "nobody has changed a label yet"),
    ],
)
def test_the_sentence_follows_the_interval(low, high, touched, words):
    scored = {"macro_f1": 0.5}
    difference = {"macro_f1": {"difference": (low + high) / 2, "low": low, "high": high, "p": 0.5}}
    found = {"photos": 10, "people": 5, "touched": touched, "before": scored, "after": scored, "gain": difference}
    assert words in gain.summary("toy", found)
