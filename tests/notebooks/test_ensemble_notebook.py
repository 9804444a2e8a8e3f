"""07_ensemble from its first cell to its last, on runs of this experiment and on files from elsewhere."""

from pathlib import Path

import kernelless
import numpy as np
import pandas as pd
import past_runs
import pytest
import simulated
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from mask_lib.base import files
from mask_lib.data import layout, splits
from mask_lib.ensemble import expected_score
from mask_lib.ensemble.leaks import CONFLICT, LEAK_COLUMNS, UNKNOWN
from mask_lib.plots import galleries

IDS = [f"{number:040x}.jpg" for number in range(30)]


def write_predictions(output: Path, stem: str, seed: int, known: int | None = None) -> pd.DataFrame:
    """Guesses in `<stem>test.csv`, given back, and `<stem>test_val.csv`; known: how many photos held out there are."""
    split, guesses = splits.read_splits(output)[0], {}
    held_out = split.loc[split["split"] == splits.TEST_VAL, ["path", "label"]].reset_index(drop=True)[:known]
    for name, keys in (("test", pd.DataFrame({"ImageID": IDS})), ("test_val", held_out)):
        values = np.random.default_rng(seed).dirichlet(np.ones(18), len(keys))
        guesses[name] = keys.join(pd.DataFrame(values, columns=simulated.COLUMNS))
        files.write_csv(guesses[name], f"{stem}{name}.csv")
    return guesses["test"]


@pytest.fixture
def project(tmp_path) -> Path:
    """A project whose first 26 evaluation photos copy one training photo, and two more whose copies decide nothing."""
    data, output = tmp_path / "data", tmp_path / "output"
    known, table = past_runs.prepare(output), output / "tables" / "photos.csv"
    evaluated = pd.DataFrame({"path": IDS, "split": "eval"})
    files.write_csv(pd.concat([pd.read_csv(table, dtype="str"), evaluated], ignore_index=True), table)
    files.write_csv(pd.DataFrame({"ImageID": IDS, "ans": 0}), data / "eval" / "info.csv")
    files.write_csv(pd.DataFrame(columns=layout.TRAIN_COLUMNS), data / "train" / "train.csv")
    for path in (*(f"eval/images/{name}" for name in IDS), *(f"train/images/{path}" for path in known["path"][:8])):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 16), "grey").save(data / path)
    copies = [(name, known["path"][0], 0, 1) for name in IDS[:26]]
    undecided = [(IDS[26], known["path"][0], 0, 2), (IDS[26], known["path"][4], 0, 2), (IDS[27], "dropped.jpg", 0, 0)]
    leaks = pd.DataFrame([*copies, *undecided], columns=LEAK_COLUMNS)
    files.write_csv(leaks, output / "tables" / "data_leak.phash.csv")
    return tmp_path


def executed(shell: InteractiveShell, project: Path, **given) -> dict:
    """The names that the cells leave."""
    folders = {"data_dir": str(project / "data"), "output_dir": str(project / "output")}
    return kernelless.executed(shell, "07_ensemble", **folders | given)[0]


def read(project: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(project / "output" / "submissions" / name)


def test_files_of_any_name_with_weights_become_a_submission(project, shell, monkeypatch):
    monkeypatch.setattr(shell, "display_pub", CapturingDisplayPublisher())
    output = project / "output"
    first, second = (write_predictions(output, f"{project}/{home}/", seed) for seed, home in enumerate("xy"))
    files.write_json({}, output / "submissions" / expected_score.FILE)  # of an older submission
    names = {f"{which}_filenames": [f"{project}/{home}/{which}.csv" for home in "xy"] for which in ("test", "test_val")}
    executed(shell, project, **names, weights=[1.0, 3.0])
    mean = (first[simulated.COLUMNS] + 3 * second[simulated.COLUMNS]).to_numpy()
    assert read(project, "submission.csv")["ans"].tolist() == mean.argmax(axis=1).tolist()
    report = " ".join(shown["data"].get("text/markdown", "") for shown in shell.display_pub.outputs)
    assert "answers by x/test (25%), y/test (75%)" in " ".join(report.split()) and "no score is promised" in report
    assert not (output / "submissions" / expected_score.FILE).exists()


def test_runs_are_scored_out_of_fold_and_promise_a_score_without_held_out_people(project, shell, capsys):
    output = project / "output"
    for seed, run in enumerate(("deep", "wide")):
        past_runs.write_run(output, run, right=0.8, seed=seed)
        write_predictions(output, f"{output}/inferences/{run}.", seed, known=0)
    names = executed(shell, project)
    assert set(names["known"]) == {"out of fold"}
    assert list(names["known"]["out of fold"]) == ["deep", "wide", "ensemble"]
    saved = files.read_json(output / "submissions" / expected_score.FILE)
    assert saved["metrics"]["macro_f1"]["value"] == names["estimate"].score.value
    assert output / "submissions" / expected_score.FILE in names["written"]
    printed = capsys.readouterr().out
    assert "out of fold" in printed and names["vote"].reason == "Nobody voted."


def test_every_override_is_listed_whether_it_decides_or_a_gallery_shows_it(project, shell, capsys, monkeypatch):
    output, titles = project / "output", []
    monkeypatch.setattr(galleries, "photo_grid", lambda *given, title, **more: titles.append(title))
    past_runs.write_run(output, "deep")
    write_predictions(output, f"{output}/inferences/deep.", 0)
    with pd.option_context("display.max_columns", None, "display.width", 300, "display.max_rows", None):
        executed(shell, project)
    table = read(project, "overrides.csv")
    assert table["applied"].sum() == 26 and len(table) == 29
    assert set(table["why"][~table["applied"]]) == {CONFLICT, UNKNOWN}
    printed = capsys.readouterr().out
    assert IDS[26] in printed and "dropped.jpg" in printed
    assert titles == ["24 of 26 answers taken from a copy; overrides.csv lists all"]
