"""Only a task's file knows the task: another one goes from photos to a submission with no edit of the package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kernelless
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score

from mask_lib.base import config, files, labels, tasks
from mask_lib.data.photos import scan_photos
from mask_lib.ensemble import pack, predict
from mask_lib.headless import cells
from mask_lib.plots import data_plots
from mask_lib.relabel import widget
from mask_lib.relabel.keys import key_meanings
from mask_lib.sample import paint
from mask_lib.training import __main__ as training
from mask_lib.training import loss

TRAINING = {"architecture": "test_resnet", "weights": "none", "image_width": 32, "image_height": 32, "epochs": 3}
TRAINING |= {"batch_size": 32, "optimizer": "adamw", "learning_rate": 0.01, "schedule": "one_cycle"}
TRAINING |= {"augmentation": "none", "compare_with_baseline": False, "tracking_mode": "disabled"}
BACKBONE = {"features_width": 64, "features_height": 64}
NO_COPIES = {"ahash_distance": 0, "phash_distance": 0, "measure_optimism": False}
DIGITS = "\n  ".join(["- name: digit", f"  values: {[str(digit) for digit in range(10)]}"])
FRUIT = "- {name: fruit, values: [apple, plum, fig], keys: apf}"


def digits(folder: Path, most: int, place: Callable[[int, int, bool], str], count: int | None = None) -> pd.DataFrame:
    """Of `count` digits of scikit-learn's those below `most` as PNG, a quarter to be answered; columns path, digit.

    place: path in the data folder of a digit's photo by its number, the digit, and whether it is to be answered.
    """
    data, rows = load_digits(), []
    for number, (image, digit) in enumerate(zip(data.images[:count], data.target[:count], strict=True)):
        path = folder / place(number, digit, number % 4 == 0)
        if digit < most:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC).save(path)
            rows.append((str(path), digit))
    return pd.DataFrame(rows, columns=["path", "digit"])


def write_task(folder: Path, attributes: str, photos: str) -> dict[str, str]:
    """A task's file beside its data; the parameters that name them."""
    folder.mkdir(exist_ok=True)
    (folder / "task.yml").write_text(f"photos: {photos}\nattributes:\n  {attributes}\n", encoding="utf-8")
    where = {"task": folder / "task.yml", "data_dir": folder / "data", "output_dir": folder / "out"}
    return {name: str(path) for name, path in where.items()}


def steps(shell: InteractiveShell, where: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """Runs a notebook by its name, with some values; the names that it leaves."""
    return lambda name, **given: kernelless.executed(shell, name, **where, **given)[0]


def submitted(folder: Path) -> pd.Series:
    """The answers by ImageID."""
    return pd.read_csv(folder / "out" / "submissions" / "submission.csv").set_index("ImageID")["ans"]


def test_helmets_and_vests_go_from_a_csv_to_a_submission(tmp_path, shell, capsys):
    truth = paint.paint(tmp_path / "data", 40, 10, width=64, height=96, workers=1, task="helmet")
    where = {"task": "tasks/helmet.yml", "data_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
    run = steps(shell, where)
    found = run("00_prepare_data", fold_count=2, test_val_share=0.2, **NO_COPIES)
    assert set(found["problems"]["problem"]) == {"bad_vest", "missing_photo"}
    assert found["train"].groupby("person").size().max() == 4 and labels.names() == ("helmet", "vest")
    ranked = run("01_label_cleaning", **BACKBONE)["ranked"]
    wrong = truth["faults"]["wrong_helmet"]
    assert len(set(wrong) & set(ranked["path"].head(3 * len(wrong)))) >= len(wrong) - 1
    assert set(ranked["field"]) <= {"helmet", "vest", "swap"}
    settings = TRAINING | {"image_width": 48, "image_height": 64, "batch_size": 8, "epochs": 10}
    run("03_one_model", run="one", **settings)
    run("04_three_model", run="heads", compare_with="one", **settings)
    scores = files.read_json(tmp_path / "out" / "runs" / "heads" / "scores.json")
    assert set(scores["out_of_fold"]) == {"macro_f1", "accuracy", "helmet", "vest"}
    run("06_inference")
    run("07_ensemble", **BACKBONE, person_voting=True)
    run("08_compare_runs", explained_mistakes=2)
    assert list(submitted(tmp_path).index) == sorted(truth["eval"])
    score = paint.score_submission(tmp_path / "data", tmp_path / "out" / "submissions" / "submission.csv")
    assert score["helmet"] > 0.8 and score["vest"] > 0.8
    # A command hears of the task in its values, and nothing of another task is taken for one's own.
    declared = cells.declared_parameters(kernelless.CHECKOUT / "notebooks" / "03_one_model.ipynb")
    fold = {**declared, **where, **TRAINING, "run": "job", "epochs": 1}
    labels.use("tasks/mask.yml")
    assert training.main(["--fold", "0", "--values", json.dumps(fold)]) == 0
    for path in ("train/train.csv", "eval/info.csv"):
        (tmp_path / "data" / path).touch()
    where["task"] = "tasks/mask.yml"
    assert training.main(["--fold", "1", "--values", json.dumps(fold | where)]) == 1
    assert "is of another task (helmet, vest) than the one at hand (mask, gender, age)" in capsys.readouterr().err
    for name in ("00_prepare_data", "01_label_cleaning"):
        with pytest.raises(ValueError, match="is of another task"):
            run(name)


def test_ten_digits_in_a_csv_without_groups(tmp_path, shell):
    where = write_task(tmp_path, DIGITS, "{layout: csv}")
    run, parts = steps(shell, where), {True: "eval", False: "train"}
    told = digits(tmp_path / "data", 10, lambda number, digit, asked: f"{parts[asked]}/images/{number:04d}.png")
    known = told[told["path"].str.contains("/train/")]
    known = known.assign(path=known["path"].map(lambda path: Path(path).name))
    files.write_csv(known, tmp_path / "data" / "train" / "labels.csv")
    prepared = run("00_prepare_data", **NO_COPIES, fold_count=2, test_val_share=0.0)
    assert prepared["problems"].empty and prepared["train"]["person"].nunique() == len(known) == 1347
    run("03_one_model", run="one", **TRAINING)
    run("06_inference")
    run("07_ensemble")
    truth = told[~told["path"].str.contains("/train/")]
    answers = submitted(tmp_path)
    assert list(answers.index) == [Path(path).name for path in truth["path"]]
    assert f1_score(truth["digit"], answers, average="macro") >= 0.95


def test_folders_named_by_class_go_through_every_notebook(tmp_path, shell, monkeypatch, capsys):
    where = write_task(tmp_path, FRUIT, "{layout: folders, train: known, eval: new}")
    names = ("apple", "plum", "fig")

    def place(number: int, digit: int, asked: bool) -> str:
        return f"new/{number}.png" if asked else f"known/{names[digit % 3]}/{number}.png"

    told = digits(tmp_path / "data", 3, place, count=1000)
    swapped = next(path for path in map(Path, told["path"]) if path.parent.name == "apple")
    swapped.rename(swapped.parents[1] / "fig" / swapped.name)

    run = steps(shell, where)
    run("00_prepare_data", fold_count=2, test_val_share=0.1, **BACKBONE, **NO_COPIES | {"measure_optimism": True})
    assert f"fig/{swapped.name}" in set(run("01_label_cleaning", **BACKBONE)["ranked"]["path"].head(3))
    settings = TRAINING | {"batch_size": 8, "epochs": 5}
    run("03_one_model", run="one", **settings, keep_epochs=2)
    run("04_three_model", run="heads", compare_with="one", **settings)
    run("05_average_weights", run="one", average_epochs=2)
    run("06_inference")
    assert "no attribute" in run("07_ensemble", **BACKBONE, person_voting=True)["vote"].reason
    assert run("08_compare_runs", explained_mistakes=2)["reason"] == ""
    truth = {Path(path).name: digit for path, digit in told.itertuples(index=False) if "/new/" in path}
    answers = submitted(tmp_path)
    assert (answers == answers.index.map(truth)).mean() > 0.9
    # commands take the task by an option, and say so where it is missing
    words = [where["output_dir"], str(tmp_path / "results.tar.gz")]
    monkeypatch.setattr("sys.argv", ["pack", *words])
    with pytest.raises(SystemExit, match=r"is of another task \(fruit\).*--task of a command"):
        pack.command(pack.pack, "pack", "", "output_dir", "target")
    monkeypatch.setattr("sys.argv", ["pack", *words, "--task", where["task"]])
    packed = pack.command(pack.pack, "pack", "", "output_dir", "target")
    words = [str(packed), str(tmp_path / "data" / "new"), str(tmp_path / "answers.csv")]
    monkeypatch.setattr("sys.argv", ["predict", *words, "--task", where["task"]])
    told = pack.command(predict.predict_folder, "predict", "", "results_path", "photo_dir", "target")
    assert (told.set_index("file")["label"].astype(int) == answers[told["file"]]).mean() > 0.95
    # the order of values is part of what a network learned
    (tmp_path / "task.yml").write_text((tmp_path / "task.yml").read_text().replace("apple, plum", "plum, apple"))
    with pytest.raises(ValueError, match=r"the task's values or edges have changed since"):
        run("06_inference", run="one")


def test_another_edge_in_years_is_followed_everywhere(tmp_path, ax):
    years, data = (29, 30, 57, 58, 60), tmp_path / "data"
    folders = [f"{number:06d}_male_Asian_{age}" for number, age in enumerate(years)]
    for path in [*(f"train/images/{folder}/normal.png" for folder in folders), "eval/images/a.png"]:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(data / path)
    rows = {"id": range(5), "gender": "male", "race": "Asian", "age": years, "path": folders}
    files.write_csv(pd.DataFrame(rows), data / "train" / "train.csv")
    files.write_csv(pd.DataFrame({"ImageID": ["a.png"], "ans": [0]}), data / "eval" / "info.csv")
    older = tasks.find("tasks/mask.yml").read_text(encoding="utf-8").replace("[30, 60]", "[30, 58]")
    (tmp_path / "task.yml").write_text(older, encoding="utf-8")
    labels.use(tmp_path / "task.yml")
    photos, _ = scan_photos(data)
    train = photos[photos["split"] == "train"]
    groups = labels.decode_all(train["label"].to_numpy(int))["age"]
    assert [labels.attribute("age").words[group] for group in groups] == ["<30", "30-57", "30-57", "58+", "58+"]
    assert "<30 / 30-57 / 58+" in " ".join(meaning for _, meaning in key_meanings("relabel"))
    shown = widget.screen(train, data, tmp_path, "me", None).answer({"type": "hello", "sequence": 1, "path": None})
    assert {words[-1] for words in shown["vocabulary"]} == {"<30", "30-57", "58+"}
    run = config.Run(head="three", age_target="ordinal")
    assert run.last_edge() == max(loss.borders(run)) == 58
    with pytest.raises(ValueError, match="old_from = 59"):
        config.Run(old_from=59)
    data_plots.number_histogram(train, ax)
    assert [line.get_xdata()[0] for line in ax.lines] == [29.5, 57.5]
    labels.use()
    assert config.Run().last_edge() == 60 and labels.describe(17) == "not worn female 60+"
