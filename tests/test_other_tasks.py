"""Only `labels` knows the task: other attributes go from a photo table to a submission, another edge is followed."""

import re
from pathlib import Path

import kernelless
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mask_lib.base import config, files, labels
from mask_lib.data import duplicates, external, hashes, layout
from mask_lib.data.photos import scan_photos
from mask_lib.data.splits import audit_splits, make_splits, write_splits
from mask_lib.plots import data_plots
from mask_lib.relabel import widget
from mask_lib.relabel.keys import key_meanings
from mask_lib.training import targets

HELMET = (
    labels.Attribute("helmet", ("yes", "no"), "ab"),
    labels.Attribute("vest", ("none", "orange", "yellow"), "cde", of_person=True),
)
FLOWER = (labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),)
TASKS = {"helmet": (HELMET, 4), "flower": (FLOWER, 1)}  # the attributes, and the photos of a person or object
SIDE = 24  # pixels
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 230))
TRAINING = {
    "architecture": "test_resnet",
    "weights": "none",
    "image_width": SIDE,
    "image_height": SIDE,
    "epochs": 8,
    "batch_size": 8,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "augmentation": "flip",
    "compare_with_baseline": False,
    "tracking_mode": "disabled",
}
BACKBONE = {"features_width": 64, "features_height": 64}


def paint(label: int, path: Path, generator: np.random.Generator) -> None:
    """A photo with a stripe for each attribute, whose colour tells the value, and noise."""
    photo = generator.integers(0, 40, (SIDE, SIDE, 3))
    stripes = np.array_split(np.arange(SIDE), len(labels.shape()))
    for rows, value in zip(stripes, labels.decode(label), strict=True):
        photo[rows] += (0.8 * np.array(COLOURS[value])).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(path)


def written(label: int) -> list[str]:
    """What a photo table holds of a class, an attribute a column."""
    return [one.table_words[value] for one, value in zip(labels.attributes(), labels.decode(label), strict=True)]


def photo_table(people: int, each: int) -> pd.DataFrame:
    """Photos of people whose classes take turns; what is no person's attribute changes from photo to photo."""
    rows = []
    for person in range(people):
        for number in range(each):
            label = person % labels.class_count()
            change = {name: (number + person) % labels.attribute(name).size for name in labels.names(of_person=False)}
            label = labels.with_values(label, change if each > 1 else {})
            rows.append((f"{person:03d}/{number}.png", f"{person:03d}", *written(label), label, "train"))
    return pd.DataFrame(rows, columns=["path", "person", *labels.names(), "label", "split"])


def prepared(folder: Path, each: int) -> tuple[pd.Series, str]:
    """Photos, their table with one wrong label, folds; the eval photos' true classes, and the path of the wrong one."""
    generator, train = np.random.default_rng(0), photo_table(48 // each + 12, each)
    truth = pd.Series({f"{number:040x}.png": number % labels.class_count() for number in range(18)})
    for path, label in train[["path", "label"]].itertuples(index=False):
        paint(label, folder / "data" / "train" / "images" / path, generator)
    for path, label in truth.items():
        paint(label, folder / "data" / "eval" / "images" / path, generator)
    files.write_csv(pd.DataFrame({"ImageID": truth.index, "ans": 0}), folder / "data" / "eval" / "info.csv")
    files.write_csv(pd.DataFrame(columns=layout.TRAIN_COLUMNS), folder / "data" / "train" / "train.csv")
    wrong = train["path"].iloc[0]
    name = labels.names(of_person=False)[0]
    given = labels.values_of(train["label"].iloc[0])[name]
    label = labels.with_values(train["label"].iloc[0], {name: (given + 1) % labels.attribute(name).size})
    train.loc[0, ["label", *labels.names()]] = [label, *written(label)]
    photos = pd.concat([train, pd.DataFrame({"path": truth.index, "split": "eval"})], ignore_index=True)
    output = folder / "out"
    files.write_csv(photos.astype({"label": "Int64"}), output / "tables" / "photos.csv")
    external.write(external.scan([], folder / "data", photos)[0], output)
    hashed = hashes.open_hashes(output / "hashes", folder / "data", photos)
    none = duplicates.find(photos, folder / "data", hashed, {"ahash": 0, "phash": 0}).head(0)  # stripes are all alike
    duplicates.write(photos, hashed, none, output)
    splits = make_splits(train, fold_count=2, test_val_share=0.2, seed=0)
    audit_splits(splits)
    write_splits(splits, output)
    return truth, wrong


@pytest.mark.parametrize("name", TASKS)
def test_other_attributes_go_from_a_photo_table_to_a_submission(tmp_path, shell, name):
    attributes, each = TASKS[name]
    with labels.using(attributes):
        truth, wrong = prepared(tmp_path, each)
        where = {"data_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
        cleaning, _ = kernelless.executed(shell, "01_label_cleaning", **where, **BACKBONE)
        ranked = cleaning["ranked"]
        assert wrong in set(ranked["path"].head(3))
        assert set(ranked["field"]) <= {*labels.names(), "swap"}
        kernelless.executed(shell, "03_one_model", run="one", **where, **TRAINING)
        heads, _ = kernelless.executed(shell, "04_three_model", run="heads", compare_with="one", **where, **TRAINING)
        compared = heads["comparison"].difference_summary(heads["differences"])
        assert re.search("Macro F1 of (one|heads) less that of (one|heads): ", compared)
        scores = files.read_json(tmp_path / "out" / "runs" / "heads" / "scores.json")
        assert set(scores["out_of_fold"]) == {"macro_f1", "accuracy", *labels.names()}
        assert scores["out_of_fold"]["accuracy"]["value"] > 0.8
        kernelless.executed(shell, "06_inference", **where)
        kernelless.executed(shell, "07_ensemble", **where, **BACKBONE, person_voting=True)
        kernelless.executed(shell, "08_compare_runs", **where, explained_mistakes=2)
    submission = pd.read_csv(tmp_path / "out" / "submissions" / "submission.csv").set_index("ImageID")["ans"]
    assert list(submission.index) == list(truth.index)
    assert (submission == truth).mean() > 0.8


def test_another_edge_in_years_is_followed_everywhere(tmp_path, ax):
    years, data = (29, 30, 57, 58, 60), tmp_path / "data"
    folders = [f"{number:06d}_male_Asian_{age}" for number, age in enumerate(years)]
    for folder in folders:
        paint(0, data / "train" / "images" / folder / "normal.png", np.random.default_rng(len(folder)))
    paint(0, data / "eval" / "images" / "a.png", np.random.default_rng(0))
    rows = {"id": range(5), "gender": "male", "race": "Asian", "age": years, "path": folders}
    files.write_csv(pd.DataFrame(rows), data / "train" / "train.csv")
    files.write_csv(pd.DataFrame({"ImageID": ["a.png"], "ans": [0]}), data / "eval" / "info.csv")
    with labels.using(labels.mask_task((30, 58))):
        photos, _ = scan_photos(data, verify=False)
        train = photos[photos["split"] == "train"]
        groups = labels.decode_all(train["label"].to_numpy(int))["age"]
        assert [labels.attribute("age").words[group] for group in groups] == ["<30", "30-57", "30-57", "58+", "58+"]
        assert "<30 / 30-57 / 58+" in " ".join(meaning for _, meaning in key_meanings("relabel"))
        assert {words[-1] for words in widget.vocabulary()} == {"<30", "30-57", "58+"}
        run = config.Run(head="three", age_target="ordinal")
        assert run.last_edge() == max(targets.borders(run)) == 58
        with pytest.raises(ValueError, match="old_from = 59"):
            config.Run(old_from=59)
        data_plots.number_histogram(train, ax)
        assert [line.get_xdata()[0] for line in ax.lines] == [29.5, 57.5]
    assert config.Run().last_edge() == 60 and labels.describe(17) == "not worn female 60+"
