"""What tests run notebooks on: toy notebooks of a line or two, and the real chain on a tiny painted set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from mask_lib.base import files

CHECKOUT = Path(files.__file__).parents[2]
PARAMETERS = 'name = "a"\nepochs = 2\nlearning_rate = 0.1\nresume = False\nfolds = [0]\nanything = None'
# Notebooks that only write the files of the contract: parameters, and work.
COMMON = 'output_dir = "outputs/toy"\ndata_dir = "data/sample"\n'
TOY_NOTEBOOKS = {
    "00_prepare_data": (
        COMMON + "fold_count = 5\nseed = 0",
        "tables = Path(output_dir, 'tables')\n"
        "tables.mkdir(parents=True, exist_ok=True)\n"
        "names = ['photos', 'problems', 'external', 'groups']\n"
        "names += [f'{kind}.{of}hash' for kind in ('duplicates', 'data_leak') for of in 'ap']\n"
        "names += [f'split.stratified.{kind}{fold}' for kind in ('', 'small.') for fold in range(fold_count)]\n"
        "[(tables / f'{name}.csv').write_text(f'seed {seed}') for name in names]",
    ),
    "01_label_cleaning": (
        COMMON + 'annotator = "me"',
        "tables, review = Path(output_dir, 'tables'), Path(output_dir, 'review')\n"
        "review.mkdir(exist_ok=True)\n"
        "decided = [path.read_text() for path in sorted(review.glob('decisions.*.jsonl'))]\n"
        "(tables / 'clean.csv').write_text(' '.join(decided))\n"
        "(tables / 'dropped.csv').touch()\n"
        "(review / 'suspects.csv').touch()",
    ),
    "02_search_augmentation": (
        COMMON + "policy_count = 12\nverdict_seeds = 3",
        "folder = Path(output_dir, 'search')\n"
        "folder.mkdir(exist_ok=True)\n"
        "names = ['best_policy.json', 'trials.csv'] + ['verdict.json'] * (verdict_seeds > 0)\n"
        "[(folder / name).touch() for name in names]",
    ),
    "03_one_model": (
        COMMON
        + 'run = "one_model"\nepochs = 2\nlearning_rate = 0.1\nkeep_epochs = 0\n'
        + 'ema_decay = 0.0\npseudo_labels = ""\ncompare_with = ""\naugmentation = "flip"\nweights = "none"\n'
        + 'when_changed = "refuse"\nfolds = []\nshown = 7',
        "folder = Path(output_dir, 'runs', run)\n"
        "scores = {'run': run, 'epochs': epochs, 'rate': learning_rate, 'when_changed': when_changed}\n"
        "(folder / 'scores.json').write_text(json.dumps(scores))",
    ),
    "05_average_weights": (
        COMMON + 'run = ""\nsoup_of = []',
        "(Path(output_dir, 'runs', run, 'averaging.json')).write_text('averaged')",
    ),
    "06_inference": (
        COMMON + 'run = "one_model"\nnum_tta = 1\nsplit = "test"',
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
        "(folder / 'submission.csv').write_text(f'{weights} ' + ' '.join(parts))\n"
        "(folder / 'submission.csv.leak.csv').touch()",
    ),
    "08_compare_runs": (
        COMMON + 'run_a = ""',
        "folder = Path(output_dir, 'comparison')\n"
        "folder.mkdir(exist_ok=True)\n"
        "[(folder / f'{name}.csv').touch() for name in ('settings', 'scores')]",
    ),
}

# In place of `python -m mask_lib.training`. `together` in the project: how many trainings wait until so many run.
TOY_TRAINING = """
import argparse, json, os, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--gpu", action="store_true")
for name in ("--threads", "--fold", "--values", "--processes"):
    parser.add_argument(name)
asked = parser.parse_args()
values, together = json.loads(asked.values), pathlib.Path("together")
folder = pathlib.Path(values["output_dir"], "runs", values["run"], f"fold{asked.fold}")
with open(folder / "checkpoint", "a") as log:
    log.write("trained ")
deadline = time.monotonic() + 60
while together.exists() and len(list(folder.parent.glob("*/checkpoint"))) < int(together.read_text()):
    assert time.monotonic() < deadline, "the others do not run"
    time.sleep(0.05)
(folder / "oof.csv").write_text(f"{asked.threads} {asked.gpu} {asked.processes} {json.dumps(values)}")
"""


def write_notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS, kernel: str = "python3") -> Path:
    """A notebook with a title, a parameters cell (None: without) and one code cell for each source."""
    cells = [nbformat.v4.new_markdown_cell("# Does it run?")]
    if parameters is not None:
        cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)
    return path


def write_text(path: Path, text: str) -> Path:
    """A text file; its path."""
    path.write_text(text, encoding="utf-8")
    return path


def write_toy_chain(project: Path) -> None:
    """The lists of a data set, the toy notebooks (a title, parameters, imports and the step's work) and the Snakefile,
    whose folds a toy trains.
    """
    (project / "notebooks").mkdir(parents=True)
    snakefile = (CHECKOUT / "Snakefile").read_text()
    assert "-m mask_lib.training " in snakefile
    write_text(project / "Snakefile", snakefile.replace("-m mask_lib.training ", "toy_training.py "))
    write_text(project / "toy_training.py", TOY_TRAINING)
    for name, (declared, work) in TOY_NOTEBOOKS.items():
        sources = "import json\nfrom pathlib import Path", work
        write_notebook(project / "notebooks" / f"{name}.ipynb", *sources, parameters=declared)
    for path in ("data/train/train.csv", "data/eval/info.csv"):
        (project / path).parent.mkdir(parents=True)
        write_text(project / path, "id\n")


def environment(project: Path) -> dict[str, str]:
    """The environment of a command for which `project` is the folder that relative paths count from."""
    # A notebook draws its pictures into itself unless it is told, as these tests are, to draw nowhere.
    here = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**here, "MASK_LIB_PROJECT": str(project), "PYTHONPATH": str(CHECKOUT)}


def headless_command(name: str, written: Path, values: dict[str, Any]) -> list[str]:
    """The command that runs notebooks/`name`.ipynb into `written` with these values of its parameters."""
    given = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    options = [text for key, value in given.items() for text in ("-p", key, value)]
    notebook = CHECKOUT / "notebooks" / f"{name}.ipynb"
    return [sys.executable, "-m", "mask_lib.headless", str(notebook), str(written), *options]


def run_headless(project: Path, name: str, written: Path, values: dict[str, Any]) -> str:
    """Run that command in a project and return the text of the report, its white space single blanks."""
    command, here = headless_command(name, written, values), environment(project)
    done = subprocess.run(command, env=here, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return " ".join(written.with_suffix(".html").read_text(encoding="utf-8").split())


def snakemake_command(project: Path, *arguments: str) -> list[str]:
    """The command that runs a project's chain: by its own Snakefile, or if it has none the checkout's."""
    snakefile = project / "Snakefile" if (project / "Snakefile").exists() else CHECKOUT / "Snakefile"
    return [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--cores", "1", *arguments]


def snakemake(project: Path, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run a project's chain, output and errors as one text in `stdout`."""
    how = {"cwd": project, "env": environment(project), "text": True, "timeout": timeout}
    command = snakemake_command(project, *arguments)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)


def paint(project: Path, people: int = 24, eval_people: int = 12) -> None:
    """Paint the sample set of a project, 96 x 128 pixels a photo, by the command a person would use."""
    sizes = {"people": people, "eval-people": eval_people, "width": 96, "height": 128, "workers": 1}
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "mask_lib.sample", "data/sample", *options]
    subprocess.run(command, cwd=project, env=environment(project), check=True, timeout=120, capture_output=True)
