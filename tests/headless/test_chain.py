"""The settings and files of each step, of toy notebooks that declare what the real ones do."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import CHECKOUT, write_toy_chain

from mask_lib.base import files
from mask_lib.data import archives
from mask_lib.headless.chain import Chain

RUNS = "results/runs"
TEACHER = [f"{RUNS}/teacher/scores.json", f"{RUNS}/teacher/averaging.json"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set's lists and toy notebooks, for which paths count from it."""
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    write_toy_chain(tmp_path)
    return tmp_path


def chain_of(project: Path, given: dict[str, Any] | None = None, **values: Any) -> Chain:
    """The chain of an experiment with these values."""
    path = project / "toy.yml"
    path.write_text(yaml.safe_dump({"output_dir": "results", "data_dir": "data", "fold_count": 2, **values}))
    return Chain([path], given or {}, project, archives.folders_with_data)


def test_steps_of_one_run(project: Path):
    chain = chain_of(project, epochs=3)
    assert chain.runs == {"one_model": "03_one_model"}
    common = {"data_dir": "data", "output_dir": "results", "epochs": 3}
    assert chain.train == {"one_model": common | {"run": "one_model", "when_changed": "restart"}}
    assert chain.average == {} and chain.infer["one_model"]["run"] == "one_model"
    assert chain.lists == ["data/train/train.csv", "data/eval/info.csv"]
    assert {"results/tables/photos.csv", "results/tables/split.stratified.small.1.csv"} < set(chain.tables)
    assert not any("stratified.2" in path for path in chain.tables)
    assert chain.predictions == ["results/inferences/one_model.test.csv", "results/inferences/one_model.test_val.csv"]
    assert chain.found == ["results/search/best_policy.json", "results/search/verdict.json"]
    assert chain.named_by("one_model") == chain.decisions == []


def test_a_run_says_how_many_processes_share_its_batches(project: Path):
    chain = chain_of(project, processes=2, runs={"a": {}, "b": {"processes": 4}})
    assert chain.processes == {"a": 2, "b": 4}
    assert "processes" not in chain.fold_settings("b")  # no fold is trained again for it
    with pytest.raises(ValueError, match="processes = 0: it must be at least 1"):
        chain_of(project, processes=0)


def test_what_the_chain_must_hold_is_held(project: Path):
    runs = {"kept": {"keep_epochs": 2}, "smooth": {"ema_decay": 0.9}, "plain": {}}
    chain = chain_of(project, soup_of=["kept"], split="test", runs=runs)
    assert {run: values["soup_of"] for run, values in chain.average.items()} == {"kept": [], "smooth": []}
    assert {values["split"] for values in chain.infer.values()} == {"both"}
    assert chain.weights_of("plain") == [f"{RUNS}/plain/scores.json"]
    assert chain.weights_of("kept") == [f"{RUNS}/kept/scores.json", f"{RUNS}/kept/averaging.json"]


@pytest.mark.parametrize(
    ("student", "waits_for"),
    [
        ({"pseudo_labels": "teacher"}, ["results/tables/pseudo.teacher.csv"]),
        ({"compare_with": "teacher"}, []),
        ({"weights": "results/runs/teacher/fold0/checkpoint/best.safetensors"}, TEACHER),
        ({"weights": "there.safetensors"}, ["there.safetensors"]),
        ({"weights": "imagenet"}, []),
        ({"augmentation": "there.json"}, ["there.json"]),
        ({"augmentation": "results/search/best_policy.json"}, ["results/search/best_policy.json"]),
        ({"augmentation": "searched"}, ["results/search/best_policy.json", "results/search/verdict.json"]),
        # Nobody makes these: the notebook says so, where Snakemake would find nothing to do.
        ({"pseudo_labels": "nobody", "compare_with": "nobody", "augmentation": "no.json", "weights": "no.bin"}, []),
    ],
)
def test_a_run_waits_for_what_its_settings_name(project: Path, student: dict, waits_for: list[str]):
    for name in ("there.safetensors", "there.json"):
        (project / name).touch()
    chain = chain_of(project, runs={"student": student, "teacher": {"keep_epochs": 1}})
    assert chain.named_by("student") == waits_for
    assert chain.compared_with("student") == (TEACHER if student.get("compare_with") == "teacher" else [])


def test_a_job_trains_each_fold_that_a_run_asks_for_with_what_training_hears_of(project: Path):
    runs = {"all": {"shown": 3}, "some": {"folds": [1], "epochs": 9}}
    chain = chain_of(project, runs=runs)
    assert chain.folds == {"all": [0, 1], "some": [1]}
    assert chain.trained("all") == [f"{RUNS}/all/fold{fold}/oof.csv" for fold in (0, 1)]
    heard = chain.fold_settings("some")
    assert heard["epochs"] == 9 and heard["when_changed"] == "restart" and heard["weights"] == "none"  # by default
    assert not {"folds", "shown", "compare_with"} & set(heard)
    with pytest.raises(ValueError, match="folds = "):
        chain_of(project, folds=[0, 0])


def test_a_task_of_its_own_is_known_to_every_step(project: Path):
    (project / "data" / "train" / "labels.csv").touch()
    chain = chain_of(project, task="tasks/helmet.yml")
    assert chain.lists == ["data/train/labels.csv", "data/eval/info.csv"]
    assert chain.pseudo_label_options == {"one_model": ["--task=tasks/helmet.yml"]}
    with pytest.raises(ValueError, match="run a: no parameter is called 'task'"):  # one experiment, one task
        chain_of(project, runs={"a": {"task": "tasks/helmet.yml"}})
    with pytest.raises(FileNotFoundError, match=r"no file tasks/hat\.yml"):
        chain_of(project, task="tasks/hat.yml")


def test_a_search_without_a_verdict_leaves_none(project: Path):
    chain = chain_of(project, verdict_seeds=0, augmentation="searched")
    assert chain.named_by("one_model") == chain.found == ["results/search/best_policy.json"]


def test_how_sure_a_teacher_must_be_is_said_by_the_experiment_its_run_or_once(project: Path):
    runs = {"teacher": {"pseudo_threshold": 0.7, "pseudo_class_share": 0.2}, "other": {}}
    chain = chain_of(project, {"pseudo_class_share": 0.1}, pseudo_threshold=0.6, plugins=["mine"], runs=runs)
    assert chain.pseudo_label_options == {
        "teacher": ["--threshold=0.7", "--class-share=0.1", "--plugin=mine"],
        "other": ["--threshold=0.6", "--class-share=0.1", "--plugin=mine"],
    }
    assert chain_of(project, pseudo_threshold=1).pseudo_label_options == {"one_model": ["--threshold=1.0"]}
    assert chain_of(project).pseudo_label_options == {"one_model": []}


def test_an_archive_of_the_photos_stands_for_them_and_decisions_of_all_annotators_are_read(project: Path):
    for path in ("photos.zip", "results/review/decisions.zoe.jsonl", "results/review/decisions.ann.jsonl"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).touch()
    chain = chain_of(project, {"data_dir": "photos.zip"})
    assert chain.lists == ["photos.zip"]
    assert chain.decisions == [f"results/review/decisions.{name}.jsonl" for name in ("ann", "zoe")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "configuration: no parameter is called 'epoch'; did you mean epochs"),
        ({"pseudo_threshold": 1.5}, r"configuration: pseudo_threshold = 1\.5: it must be at most 1"),
        ({"plugins": "mine"}, "configuration: plugins = 'mine' is text, not a list"),
        ({"notebooks": {"08_compare_runs": {"run": 3}}}, "08_compare_runs: no parameter is called 'run'"),
    ],
)
def test_what_is_wrong_is_said_before_any_step(project: Path, values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        chain_of(project, **values)


def test_files_are_joined_and_one_is_needed(project: Path):
    first, second = project / "a.yml", project / "b.yml"
    first.write_text("epochs: 3\nruns: {a: {learning_rate: 1.0e-3}}\n")
    second.write_text("epochs: 4\nruns: {a: {keep_epochs: 1}}\n")
    chain = Chain([first, second], {}, project, archives.folders_with_data)
    joined = {"epochs": 4, "learning_rate": 0.001, "keep_epochs": 1}
    assert {name: chain.train["a"][name] for name in joined} == joined
    with pytest.raises(ValueError, match=r"name a file: --configfile notebooks/params/demo\.yml"):
        Chain([], {}, project, archives.folders_with_data)


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("notebooks/params/*.yml")), ids=lambda path: path.stem)
def test_the_experiments_of_the_project_fit_its_notebooks(path: Path):
    chain = Chain([path], {}, CHECKOUT, archives.folders_with_data)
    assert set(chain.train) == set(chain.runs) and chain.output.startswith("outputs/")
    if path.stem == "border":  # runs that differ in nothing but the border of age
        ages = {run: values.pop("old_from") for run, values in chain.train.items() if values.pop("run")}
        assert ages == {"old60": 60, "old59": 59, "old58": 58, "old57": 57}
        assert all(values == chain.train["old60"] for values in chain.train.values())
    if path.stem == "demo":
        assert f"{chain.output}/runs/frozen/scores.json" in chain.compared_with("heads")
