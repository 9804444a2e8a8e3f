"""The Snakefile around toy notebooks that only write the files of the contract.

The chain runs once; each test gets a copy of what it left, and most ask by a dry run what would run again.
"""

import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from tiny_project import CHECKOUT, snakemake, write_toy_chain

TOGETHER = ("--configfile", "toy.yml")
TOY = (*TOGETHER, "--resources", "gpu=1")  # a job for each fold
VALUES = {"output_dir": "results", "data_dir": "data", "fold_count": 2, "runs": {"one_model": {"keep_epochs": 2}}}
AFTER_TRAINING = {"train_03_one_model", "average", "infer", "ensemble", "compare"}  # of the folds


def write_values(project: Path, **values) -> None:
    """The experiment's file, with `values` beside those every toy chain has."""
    (project / "toy.yml").write_text(yaml.safe_dump(VALUES | values))


def planned(project: Path, *arguments: str, given: tuple[str, ...] = TOY) -> set[str]:
    """The rules that a dry run would run."""
    plan = snakemake(project, *given, "--dry-run", "--quiet", "rules", *arguments)
    assert plan.returncode == 0, plan.stdout
    table = plan.stdout.partition("Job stats:")[2].partition("total")[0].splitlines()
    return {line.split()[0] for line in table if line and line.split()[-1].isdigit()} - {"all"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the real Snakefile, toy notebooks and an experiment's file, after its chain has run."""
    project = tmp_path_factory.mktemp("chain") / "project"
    write_toy_chain(project)
    write_values(project)
    done = snakemake(project, *TOY)
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, with its times and Snakemake's records."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_the_chain_leaves_a_submission_and_a_report_of_every_step(finished: Path):
    submission = (finished / "results/submissions/submission.csv").read_text()
    assert submission.count('"run": "one_model"') == 2  # test and test_val
    assert '"when_changed": "restart"' in submission
    steps = {"00_prepare_data", "01_label_cleaning", "07_ensemble", "08_compare_runs"}
    steps |= {f"{step}.one_model" for step in ("03_one_model", "05_average_weights", "06_inference")}
    assert {path.stem for path in (finished / "results" / "reports").glob("*.html")} == steps
    averaged = (finished / "results/runs/one_model/averaging.json").stat().st_mtime_ns
    assert (finished / "results/inferences/one_model.test.csv").stat().st_mtime_ns > averaged


def test_a_finished_chain_has_nothing_to_do_even_if_jupyter_saved_outputs_into_a_notebook(project: Path):
    notebook = nbformat.read(project / "notebooks/07_ensemble.ipynb", as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="seen by a person")]
    notebook.cells[2].execution_count, notebook.metadata["title"] = 7, "new"
    nbformat.write(notebook, project / "notebooks/07_ensemble.ipynb")
    assert planned(project) == set()


def test_a_changed_value_runs_its_step_again_and_those_after_it(project: Path):
    write_values(project, notebooks={"03_one_model": {"epochs": 3}})
    assert planned(project) == {"train_fold"} | AFTER_TRAINING


def test_another_task_runs_everything_again_and_a_comment_in_its_file_nothing(project: Path):
    shutil.copytree(CHECKOUT / "tasks", project / "tasks")
    path = project / "tasks" / "mask.yml"
    path.write_text(f"# A comment.\n{path.read_text()}")
    assert planned(project) == set()
    path.write_text(path.read_text().replace("[30, 60]", "[30, 58]"))
    assert planned(project) == {"prepare", "clean", "train_fold"} | AFTER_TRAINING


def test_what_training_does_not_hear_of_leaves_finished_folds_and_another_fold_is_trained_alone(project: Path):
    write_values(project, notebooks={"03_one_model": {"shown": 3, "folds": [1]}})
    assert planned(project) == AFTER_TRAINING
    write_values(project, folds=[1, 2], fold_count=2)
    plan = snakemake(project, *TOY, "--dry-run")
    assert plan.stdout.count("rule train_fold:") == 1 and "one_model/fold2/oof.csv" in plan.stdout


def test_so_many_folds_run_side_by_side_as_there_are_gpus_and_share_the_cores(project: Path):
    write_values(project, fold_count=4)
    (project / "together").write_text("4")
    folds = [f"results/runs/one_model/fold{fold}/oof.csv" for fold in range(4)]
    shutil.rmtree(project / "results" / "runs")
    done = snakemake(project, *TOGETHER, "--cores", "8", "--resources", "gpu=4", "--", *folds)
    assert done.returncode == 0, done.stdout
    told = [(project / path).read_text() for path in folds]
    assert all(text.startswith("2 True 1 {") and '"when_changed": "restart"' in text for text in told)
    assert not any('"shown"' in text or '"folds"' in text for text in told)
    (project / "together").unlink()
    plan = snakemake(project, *TOGETHER, "--cores", "8", "--dry-run", "--forcerun", "train_fold", "--", *folds)
    assert plan.stdout.count("threads: 8") == 4  # one at a time


def test_without_gpus_a_runs_notebook_trains_its_folds(project: Path):
    write_values(project, notebooks={"03_one_model": {"epochs": 3}})
    assert planned(project, given=TOGETHER) == AFTER_TRAINING
    write_values(project, runs={"teacher": {}, "student": {"pseudo_labels": "teacher"}})
    assert planned(project, given=TOGETHER) == {"pseudo_labels"} | AFTER_TRAINING - {"average"}
    write_values(project, processes=2)
    forced = planned(project, "--forcerun", "train_fold", given=TOGETHER)
    assert "train_fold" in forced  # its processes share a fold: a notebook is one


def test_a_changed_cell_runs_its_step_again_and_those_after_it(project: Path):
    notebook = nbformat.read(project / "notebooks/06_inference.ipynb", as_version=4)
    notebook.cells[3].source += "\nprint('changed')"
    nbformat.write(notebook, project / "notebooks/06_inference.ipynb")
    assert planned(project) == {"infer", "ensemble"}


def test_another_list_of_photos_runs_everything_again(project: Path):
    (project / "data" / "train" / "train.csv").write_text("id\n1\n")
    assert planned(project) == {"prepare", "clean", "train_fold"} | AFTER_TRAINING


def test_a_new_decision_cleans_and_trains_again(project: Path):
    (project / "results/review/decisions.ann.jsonl").write_text("a label is wrong")
    assert planned(project) == {"clean", "train_fold"} | AFTER_TRAINING


def test_a_run_with_pseudo_labels_waits_for_its_teacher(project: Path):
    write_values(project, runs={"teacher": {}, "student": {"pseudo_labels": "teacher"}})
    plan = snakemake(project, *TOY, "--dry-run", "--printshellcmds")
    assert plan.returncode == 0, plan.stdout
    (command,) = [line for line in plan.stdout.splitlines() if "-m mask_lib.ensemble.self_training" in line]
    assert command.split()[-3:] == [str(project / "data"), str(project / "results"), "teacher"]
    order = [plan.stdout.index(name) for name in ("runs/teacher/scores.json", "pseudo.teacher.csv", "runs/student/")]
    assert order == sorted(order)


def test_the_search_is_a_target_of_its_own(project: Path):
    assert planned(project, "--", "search") == {"search"}


def test_a_chain_that_stops_keeps_what_was_done_and_goes_on_from_there(project: Path):
    results = project / "results"
    prepared = (results / "notebooks/00_prepare_data.ipynb").stat().st_mtime_ns
    write_values(project, notebooks={"07_ensemble": {"weights": [-1]}})
    broken = snakemake(project, *TOY, "--config", "epochs=3")
    assert broken.returncode != 0
    assert "AssertionError: a weight is negative" in broken.stdout
    assert "cell 4 of 4" in broken.stdout
    assert (results / "notebooks/07_ensemble.failed.ipynb").exists()
    assert (results / "notebooks/00_prepare_data.ipynb").stat().st_mtime_ns == prepared
    assert '"epochs": 3' in (results / "inferences/one_model.test.csv").read_text()
    assert [(results / f"runs/one_model/fold{k}/checkpoint").read_text() for k in (0, 1)] == ["trained trained "] * 2

    write_values(project, notebooks={"07_ensemble": {"weights": [1.0]}})
    assert {"ensemble"} <= planned(project, "--config", "epochs=3") <= {"ensemble", "compare"}


def test_each_run_is_a_job_with_its_own_values_and_notebook(project: Path):
    shutil.copy(project / "notebooks/03_one_model.ipynb", project / "notebooks/04_three_model.ipynb")
    runs = {"short": {"epochs": 1}, "heads": {"notebook": "04_three_model", "num_tta": 4}}
    write_values(project, epochs=5, runs=runs)
    plan = snakemake(project, *TOY, "--dry-run", "--forceall", "--printshellcmds")
    assert plan.returncode == 0, plan.stdout
    commands = [line for line in plan.stdout.splitlines() if "-m mask_lib.headless" in line]
    by_output = {Path(line.split(" --report ")[0].split()[-1]).stem: line for line in commands}
    of_runs = {"03_one_model.short", "04_three_model.heads", "06_inference.short", "06_inference.heads"}
    assert set(by_output) == of_runs | {"00_prepare_data", "01_label_cleaning", "07_ensemble", "08_compare_runs"}
    assert '"epochs": 1' in by_output["03_one_model.short"]
    assert '"epochs": 5' in by_output["04_three_model.heads"]
    assert '"num_tta": 4' in by_output["06_inference.heads"]
    assert "num_tta" not in by_output["06_inference.short"]
    for run in runs:
        assert f"inferences/{run}.test.csv" in by_output["07_ensemble"]


def test_a_wrong_configuration_is_refused_before_any_step(project: Path):
    refused = snakemake(project, *TOY, "--config", "epoch=3")
    assert refused.returncode != 0
    assert "did you mean epochs or" in refused.stdout
    assert "Traceback" not in refused.stdout
