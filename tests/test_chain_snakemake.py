"""The Snakefile around toy notebooks that only write the files of the contract."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from mask_lib import files

STEPS = ("00_prepare_data", "03_one_model", "06_inference", "07_ensemble")
COMMON = 'output_dir = "outputs/toy"\ndata_dir = "data/sample"\n'
NOTEBOOKS = {
    "00_prepare_data": (
        COMMON + "fold_count = 5\nseed = 0",
        "tables = Path(output_dir, 'tables')\n"
        "tables.mkdir(parents=True, exist_ok=True)\n"
        "names = ['photos', 'problems', *(f'split.stratified.{fold}' for fold in range(fold_count))]\n"
        "[(tables / f'{name}.csv').write_text(f'seed {seed}') for name in names]",
    ),
    "03_one_model": (
        COMMON + 'run = "one_model"\nepochs = 2\nlearning_rate = 0.1\nwhen_changed = "refuse"',
        "folder = Path(output_dir, 'runs', run)\n"
        "(folder / 'fold0').mkdir(parents=True, exist_ok=True)\n"
        "with open(folder / 'fold0' / 'checkpoint', 'a') as log: log.write('trained ')\n"
        "scores = {'run': run, 'epochs': epochs, 'rate': learning_rate, 'when_changed': when_changed}\n"
        "(folder / 'scores.json').write_text(json.dumps(scores))",
    ),
    "06_inference": (
        COMMON + 'run = "one_model"\nnum_tta = 1',
        "folder = Path(output_dir, 'inferences')\n"
        "folder.mkdir(exist_ok=True)\n"
        "scores = Path(output_dir, 'runs', run, 'scores.json').read_text()\n"
        "[(folder / f'{run}.{part}.csv').write_text(f'{scores} {num_tta}') for part in ('test', 'test_val')]",
    ),
    "07_ensemble": (
        COMMON + "test_filenames = []\ntest_val_filenames = []\nweights = []",
        "assert -1 not in weights, 'a weight is negative'\n"
        "folder = Path(output_dir, 'submissions')\n"
        "folder.mkdir(exist_ok=True)\n"
        "parts = [Path(path).read_text() for path in test_filenames + test_val_filenames]\n"
        "(folder / 'submission.csv').write_text(f'{weights} ' + ' '.join(parts))",
    ),
}


def write_toy_notebook(path: Path, parameters: str, work: str) -> None:
    """A notebook of three code cells: parameters, imports, and the step's work."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [tagged, *map(nbformat.v4.new_code_cell, ("import json\nfrom pathlib import Path", work))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the real Snakefile, the toy notebooks and an experiment's file."""
    shutil.copy(files.PROJECT / "Snakefile", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        write_toy_notebook(tmp_path / "notebooks" / f"{name}.ipynb", *cells)
    values = {"output_dir": str(tmp_path / "results"), "data_dir": str(tmp_path / "data"), "fold_count": 2}
    (tmp_path / "toy.yml").write_text(yaml.safe_dump(values))
    return tmp_path


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the chain, with its output and errors as one text in `stdout`."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(files.PROJECT)}
    return subprocess.run(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )


def run_chain(project: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run the chain; what came of it, and the steps that ran to their end, in order of their numbers."""
    notebooks = project / "results" / "notebooks"
    before = {path: path.stat().st_mtime_ns for path in notebooks.glob("*.ipynb")}
    done = snakemake(project, *arguments)
    ran = [path.name for path in notebooks.glob("*.ipynb") if path.stat().st_mtime_ns != before.get(path)]
    ended = [name for name in ran if not name.endswith(".failed.ipynb")]
    return done, [step for step in STEPS if any(name.startswith(step) for name in ended)]


def test_the_chain_runs_what_a_change_asks_for_and_nothing_else(project: Path):
    toy = ("--configfile", "toy.yml")
    results = project / "results"
    done, steps = run_chain(project, *toy)
    assert done.returncode == 0, done.stdout
    assert steps == list(STEPS)
    submission = (results / "submissions/submission.csv").read_text()
    assert submission.count('"run": "one_model"') == 2  # test and test_val
    assert '"when_changed": "restart"' in submission
    assert {path.name for path in (results / "reports").iterdir()} == {
        "00_prepare_data.html",
        "03_one_model.one_model.html",
        "06_inference.one_model.html",
        "07_ensemble.html",
    }

    # Jupyter saves outputs into a notebook: its cells are the same, so there is nothing to do.
    notebook = nbformat.read(project / "notebooks/07_ensemble.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen by a person")]
    nbformat.write(notebook, project / "notebooks/07_ensemble.ipynb")
    done, steps = run_chain(project, *toy)
    assert (done.returncode, steps) == (0, []), done.stdout

    # A change of training, and a weight at which the last step stops.
    values = yaml.safe_load((project / "toy.yml").read_text())
    (project / "toy.yml").write_text(yaml.safe_dump(values | {"weights": [-1]}))
    broken, steps = run_chain(project, *toy, "--config", "epochs=3")
    assert broken.returncode != 0
    assert steps == ["03_one_model", "06_inference"]
    assert "AssertionError: a weight is negative" in broken.stdout
    assert "cell 3 of 3" in broken.stdout
    assert (results / "notebooks/07_ensemble.failed.ipynb").exists()
    assert (results / "runs/one_model/fold0/checkpoint").read_text().split() == ["trained", "trained"]

    (project / "toy.yml").write_text(yaml.safe_dump(values | {"weights": [1.0]}))
    done, steps = run_chain(project, *toy, "--config", "epochs=3")
    assert (done.returncode, steps) == (0, ["07_ensemble"]), done.stdout
    assert '"epochs": 3' in (results / "submissions/submission.csv").read_text()
    assert not (results / "notebooks/07_ensemble.failed.ipynb").exists()


def test_each_run_is_a_job_with_its_own_values_and_notebook(project: Path):
    shutil.copy(project / "notebooks/03_one_model.ipynb", project / "notebooks/04_three_model.ipynb")
    values = yaml.safe_load((project / "toy.yml").read_text())
    runs = {"short": {"epochs": 1}, "heads": {"notebook": "04_three_model", "num_tta": 4}}
    (project / "toy.yml").write_text(yaml.safe_dump(values | {"epochs": 5, "runs": runs}))
    plan = snakemake(project, "--configfile", "toy.yml", "--dry-run", "--printshellcmds")
    assert plan.returncode == 0, plan.stdout
    commands = [line for line in plan.stdout.splitlines() if "-m mask_lib.headless" in line]
    by_output = {Path(line.split(" --report ")[0].split()[-1]).stem: line for line in commands}
    assert set(by_output) == {
        "00_prepare_data",
        "03_one_model.short",
        "04_three_model.heads",
        "06_inference.short",
        "06_inference.heads",
        "07_ensemble",
    }
    assert '"epochs": 1' in by_output["03_one_model.short"]
    assert '"epochs": 5' in by_output["04_three_model.heads"]
    assert '"num_tta": 4' in by_output["06_inference.heads"]
    assert "num_tta" not in by_output["06_inference.short"]
    for run in runs:
        assert f"inferences/{run}.test.csv" in by_output["07_ensemble"]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ([], "--configfile notebooks/params/demo.yml"),
        (["--configfile", "toy.yml", "--config", "epoch=3"], "did you mean epochs?"),
    ],
)
def test_a_wrong_configuration_is_refused_before_any_step(project: Path, arguments: list[str], advice: str):
    refused = snakemake(project, *arguments)
    assert refused.returncode != 0
    assert advice in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not (project / "results").exists()
