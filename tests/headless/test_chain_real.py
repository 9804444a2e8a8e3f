"""The real Snakefile and notebooks on a tiny painted set: every promised file, and a chain that is killed."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import slurm
import yaml
from amount import amount
from tiny_project import environment, paint, run_headless, snakemake, snakemake_command

from mask_lib.base import files, labels
from mask_lib.data.photos import read_labeled
from mask_lib.models import checkpoint
from mask_lib.relabel import decision_log

CLASSES = labels.probability_columns()
FOLDS = (0, 1)
HASHES = ("ahash", "phash")
RUN = {
    "architecture": "test_resnet",
    "weights": "none",
    "image_width": 48,
    "image_height": 64,
    "epochs": 1,
    "keep_epochs": 1,
    "compare_with_baseline": False,
    "tracking_mode": "disabled",
}
EXPERIMENT = {
    "data_dir": "data/sample",
    "output_dir": "outputs/tiny",
    "fold_count": len(FOLDS),
    "test_val_share": 0.15,
    "features_width": 48,
    "features_height": 64,
    "notebooks": {"07_ensemble": {"weights": [1.0]}},  # `weights` means another thing in training
    "runs": {"tiny": RUN},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a painted set, and what the chain made of it."""
    project = tmp_path_factory.mktemp("real")
    paint(project)
    (project / "tiny.yml").write_text(yaml.safe_dump(EXPERIMENT))
    done = snakemake(project, "--configfile", "tiny.yml", timeout=1200)
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def output(project: Path) -> Path:
    """Where the chain wrote."""
    return project / "outputs" / "tiny"


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("tables/photos.csv", ["path", "person", "mask", "gender", "age", "label", "split"]),
        ("tables/problems.csv", ["path", "problem", "detail"]),
        *((f"tables/split.stratified.{fold}.csv", ["path", "person", "label", "split"]) for fold in FOLDS),
        *((f"tables/split.stratified.small.{fold}.csv", ["path", "person", "label", "split"]) for fold in FOLDS),
        *((f"tables/duplicates.{of}.csv", ["hash", "path", "person", "label", "set", "distance"]) for of in HASHES),
        *((f"tables/data_leak.{of}.csv", ["ImageID", "path", "label", "distance"]) for of in HASHES),
        ("tables/clean.csv", ["path", "class"]),
        ("review/suspects.csv", ["path", "field", "current", "suggested", "score", "why"]),
        *((f"runs/tiny/fold{fold}/oof.csv", ["path", "label", *CLASSES]) for fold in FOLDS),
        ("inferences/tiny.test.csv", ["ImageID", *CLASSES]),
        ("inferences/tiny.test_val.csv", ["path", "label", *CLASSES]),
        ("submissions/submission.csv", ["ImageID", "ans"]),
        ("submissions/submission.csv.leak.csv", ["ImageID", "ans"]),
    ],
)
def test_each_table_has_the_promised_columns_and_some_rows(output: Path, path: str, columns: list[str]):
    table = pd.read_csv(output / path)
    assert list(table.columns) == columns
    assert len(table)
    if CLASSES[0] in table:
        assert table[CLASSES].sum(axis=1).between(0.999, 1.001).all()


def test_a_run_leaves_settings_scores_histories_and_checkpoints(output: Path):
    folder = output / "runs" / "tiny"
    settings = files.read_json(folder / "config.json")
    assert all(settings[name] == RUN[name] for name in RUN.keys() & settings.keys())
    score = files.read_json(folder / "scores.json")["out_of_fold"]["macro_f1"]
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    for fold in FOLDS:
        history = pd.read_csv(folder / f"fold{fold}" / "history.csv")
        assert list(history["epoch"]) == [1]
        assert {"train_loss", "val_loss", "val_macro_f1", "seconds", "photos_per_second"} <= set(history.columns)
        names = {path.name for path in (folder / f"fold{fold}" / "checkpoint").iterdir()}
        assert {"last.safetensors", "best.safetensors", "epoch001.safetensors", "swa.safetensors"} <= names


def test_the_submission_answers_every_id_in_its_order(project: Path, output: Path):
    asked = pd.read_csv(project / "data" / "sample" / "eval" / "info.csv")["ImageID"]
    submission = pd.read_csv(output / "submissions" / "submission.csv")
    assert list(submission["ImageID"]) == list(asked)
    assert list(pd.read_csv(output / "inferences" / "tiny.test.csv")["ImageID"]) == list(asked)
    assert submission["ans"].between(0, 17).all()
    answers = pd.read_csv(output / "inferences" / "tiny.test.csv")[CLASSES].to_numpy().argmax(axis=1)
    assert list(submission["ans"]) == list(answers)


def test_every_copy_planted_takes_the_right_label_and_no_other_photo_does(project: Path, output: Path):
    """Cleaning changed nothing here, so the label of an original is what its row says; one of a twin's is as good."""
    truth = files.read_json(project / "data" / "sample" / "truth.json")
    planted = {leak["ImageID"]: leak["of"] for leak in truth["faults"]["leaks"]}
    assert planted
    table = pd.read_csv(output / "submissions" / "overrides.csv")
    assert set(table["ImageID"][table["applied"]]) == set(planted)
    answers, first = (
        pd.read_csv(output / "submissions" / name).set_index("ImageID")["ans"]
        for name in ("submission.csv.leak.csv", "submission.csv")
    )
    label_of = read_labeled(output).set_index("path")["label"]
    assert {name: answers[name] for name in planted} == {name: label_of[of] for name, of in planted.items()}
    others = ~answers.index.isin(list(planted))
    assert answers[others].equals(first[others])
    report = (output / "reports" / "07_ensemble.html").read_text(encoding="utf-8")
    assert f"copies of training photos and take their label: {len(planted)}," in report


def test_every_planted_fault_is_listed_and_nothing_else(project: Path, output: Path):
    planted = files.read_json(project / "data" / "sample" / "truth.json")["faults"]
    names = {"truncated": "truncated", "empty": "empty_file", "text": "unreadable"}
    expected = {(fault["path"], names[fault["kind"]]) for fault in planted["unreadable"]}
    expected |= {(path.rpartition("/")[0], "incomplete_person") for path in planted["missing_photo"]}
    same = {"double_id": "double_id", "missing_folder": "missing_folder", "bad_age": "age_out_of_range"}
    same |= {"contradiction": "folder_contradicts_row", "junk": "junk_file", "unknown_name": "unknown_name"}
    expected |= {(path, problem) for fault, problem in same.items() for path in planted[fault]}
    problems = pd.read_csv(output / "tables" / "problems.csv")
    assert {kind for _, kind in expected} == set(names.values()) | set(same.values()) | {"incomplete_person"}
    assert set(zip(problems["path"], problems["problem"], strict=True)) == expected
    assert problems["detail"].notna().all()


def test_no_person_crosses_and_every_photo_is_judged_by_strangers(output: Path):
    validated = []
    for fold in FOLDS:
        split = pd.read_csv(output / "tables" / f"split.stratified.{fold}.csv", dtype=str)
        people = split.groupby("split")["person"].agg(set)
        assert set(people.index) == {"train", "val", "test_val"}
        assert not people["train"] & people["val"]
        assert not people["test_val"] & (people["train"] | people["val"])
        out_of_fold = pd.read_csv(output / "runs" / "tiny" / f"fold{fold}" / "oof.csv")
        assert sorted(out_of_fold["path"]) == sorted(split["path"][split["split"] == "val"])
        validated += list(out_of_fold["path"])
    held_out = pd.read_csv(output / "inferences" / "tiny.test_val.csv")["path"]
    photos = pd.read_csv(output / "tables" / "photos.csv")
    assert sorted([*validated, *held_out]) == sorted(photos["path"][photos["split"] == "train"])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("00_prepare_data", "stands on two sides of any"),
        ("01_label_cleaning", "Changed labels: 0; dropped photos: 0"),
        ("03_one_model.tiny", "On people it has never seen"),
        ("06_inference.tiny", "photos predicted by 1 run"),
        ("05_average_weights.tiny", "What is used follows from"),
        ("07_ensemble", "answers by tiny (100%"),
        ("08_compare_runs", "tiny"),
    ],
)
def test_each_report_holds_the_answer(output: Path, name: str, answer: str):
    assert (output / "notebooks" / f"{name}.ipynb").exists()
    report = (output / "reports" / f"{name}.html").read_text(encoding="utf-8")
    assert answer in " ".join(report.split())
    assert "data:image/png;base64" in report
    assert "Traceback" not in report


def test_label_cleaning_without_a_screen_applies_the_decisions_that_exist(project: Path, output: Path, tmp_path: Path):
    shutil.copytree(output / "tables", tmp_path / "tables")
    train = read_labeled(tmp_path)
    wrong, dropped, changed = train["path"][[0, 5, 9]]
    log = decision_log.DecisionLog(decision_log.log_path(tmp_path, "ann"), "ann")
    digest = files.file_digest(project / "data/sample/train/images" / wrong)
    log.append([{"path": wrong, "field": "label", "old": int(train["label"][0]), "new": 17, "sha256": digest}])
    log.append([{"path": dropped, "field": "verdict", "old": None, "new": "drop"}])
    log.append([{"path": changed, "field": "label", "old": int(train["label"][9]), "new": 0, "sha256": "ab" * 32}])
    given = {"output_dir": str(tmp_path), "data_dir": "data/sample", "features_width": 48, "features_height": 64}
    report = run_headless(project, "01_label_cleaning", tmp_path / "01.ipynb", given)
    clean = pd.read_csv(tmp_path / "tables" / "clean.csv")
    images = f"{project}/data/sample/train/images/"
    expected = train.assign(label=train["label"].mask(train["path"] == wrong, 17))[train["path"] != dropped]
    assert list(clean["path"]) == [images + path for path in expected["path"]]
    assert list(clean["class"]) == list(expected["label"])
    assert "Changed labels: 1; dropped photos: 1" in report and "Not applied: 1" in report
    assert "Nobody is watching" in report and not (tmp_path / "review" / "decisions.me.jsonl").exists()


def test_on_slurm_the_chain_makes_the_same_submission(project: Path, output: Path, tmp_path: Path, monkeypatch):
    how = ["--config", "output_dir=outputs/slurm", "--executor", "slurm", "--jobs", "2", "--cores", "2"]
    how += ["--max-threads", "1", "--slurm-keep-successful-logs", "--slurm-status-command", "squeue"]
    seconds = ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    with slurm.cluster(tmp_path) as there:
        for name, value in there.items():
            monkeypatch.setenv(name, value)
        done = snakemake(project, "--configfile", "tiny.yml", *how, *seconds, timeout=2400)
    logs = sorted((project / ".snakemake" / "slurm_logs").rglob("*.log"))
    assert done.returncode == 0, "\n".join([done.stdout, *(path.read_text() for path in logs)])
    assert len(logs) == done.stdout.count("has been submitted with SLURM jobid") > 5
    for name in ("submission.csv", "submission.csv.leak.csv"):
        ours, theirs = (folder / "submissions" / name for folder in (output, output.with_name("slurm")))
        assert ours.read_bytes() == theirs.read_bytes()


TO_SUBMISSION = ("--configfile", "tiny.yml", "--rerun-incomplete", "--", "outputs/tiny/submissions/submission.csv")


def files_below(output: Path) -> set[str]:
    """What the chain writes on its way to a submission, of that which is there."""
    paths = (str(path.relative_to(output)) for path in output.rglob("[!.]*.*"))
    return {path for path in paths if "compar" not in path}


def run_until(project: Path, known: set[str], count: int) -> bool:
    """Start the chain and kill its process group once so many files are known; whether it was at work until then."""
    shutil.rmtree(project / ".snakemake" / "locks", ignore_errors=True)  # as --unlock does
    command, silent = (
        snakemake_command(project, *TO_SUBMISSION),
        {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
    )
    process = subprocess.Popen(command, start_new_session=True, env=environment(project), cwd=project, **silent)
    deadline = time.monotonic() + 600
    while process.poll() is None and len(known) < count:
        assert time.monotonic() < deadline
        with contextlib.suppress(FileNotFoundError):
            known |= files_below(project / "outputs/tiny")
        time.sleep(0.005)
    was_at_work = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return was_at_work


def finished_folds(project: Path) -> dict[Path, int]:
    """When the last checkpoint was written of each fold that is trained to its end."""
    paths = (project / "outputs/tiny/runs/tiny").glob("fold*/checkpoint/last.safetensors")
    return {path: path.stat().st_mtime_ns for path in paths if checkpoint.read_manifest(path)["place"]["epoch"] == 1}


def test_a_chain_killed_at_any_moment_and_started_again_ends_in_the_same_submission(project, output, tmp_path):
    """From its training on; with FAULTS=all from its beginning."""
    again, kills = tmp_path / "project", amount(1, 10)
    shutil.copytree(project, again)
    later = [again / "outputs/tiny" / name for name in ("runs", "inferences", "submissions")]
    for folder in later if kills == 1 else (again / "outputs", again / ".snakemake"):
        shutil.rmtree(folder)
    known, finished = files_below(again / "outputs/tiny"), {}
    for count in sorted(random.Random(0).sample(range(len(known) + 1, len(files_below(output))), kills)):
        assert run_until(again, known, count)
        assert finished.items() <= finished_folds(again).items()
        finished = finished_folds(again)
    shutil.rmtree(again / ".snakemake" / "locks", ignore_errors=True)
    done = snakemake(again, *TO_SUBMISSION, timeout=1200)
    assert done.returncode == 0, done.stdout
    assert finished.items() <= finished_folds(again).items()
    for name in ("submission.csv", "submission.csv.leak.csv"):
        assert (again / "outputs/tiny/submissions" / name).read_bytes() == (output / "submissions" / name).read_bytes()
