"""The chain from a folder of photos to a submission: snakemake --cores all --configfile notebooks/params/NAME.yml

Each step is a notebook, run by mask_lib.headless with what the configuration says of its parameters.
A step runs again when its parameters, the cells of its notebook or its input files change; outputs
saved in a notebook by Jupyter do not count. `--config epochs=3` changes one value for once.

On a cluster: `--executor slurm --jobs 8`, with `--set-threads` and `--set-resources` as its nodes ask
(`train_03_one_model:gpu=0` for a node without a GPU).
"""

import json
import os
import sys
from pathlib import Path

from mask_lib.augment import search as policy_search_files
from mask_lib.base import files
from mask_lib.base.config import WEIGHTS_BY_NAME
from mask_lib.data import archives
from mask_lib.headless import cells, parameters, runner
from snakemake.exceptions import WorkflowError


workdir: files.PROJECT


if not config:
    raise WorkflowError("An experiment's values are missing; name a file: --configfile notebooks/params/demo.yml")
config = json.loads(json.dumps(config))  # plain dicts, as the type checks expect


def relative(path):
    """A path as the chain names it: relative inside the project, absolute outside."""
    return files.shown_path(files.project_path(path))


def source(notebook):
    """The notebook of a step."""
    return relative(Path(workflow.basedir, "notebooks", f"{notebook}.ipynb"))


def settings(notebook, run=None, **chain):
    """What a step runs with where that differs from its notebook's defaults.

    chain: values that the chain knows better than the notebook; the configuration still goes first,
    and what `--config` gives goes before all, a run's own settings too.
    """
    try:
        declared = cells.declared_parameters(source(notebook))
        values = {name: value for name, value in chain.items() if name in declared} | config
        given = {name: value for name, value in workflow.config_settings.config.items() if name in declared}
        return parameters.choose(source(notebook), values, given | ({"run": run} if run else {}), "configuration")
    except ValueError as error:
        raise WorkflowError(str(error))


def held(notebook, run, **values):
    """What a step of one run is run with, where the chain allows but these values, whatever the configuration says."""
    declared = cells.declared_parameters(source(notebook))
    return settings(notebook, run) | {name: value for name, value in values.items() if name in declared}


def setting(notebook, name):
    """One value that a step runs with."""
    return (cells.declared_parameters(source(notebook)) | settings(notebook))[name]


def all_cores():
    """Every core for one step at a time, so that runs do not fight over them."""
    try:
        return workflow.cores
    except WorkflowError:  # --summary, --unlock and such need no --cores, for they run nothing
        return 1


def averages(values):
    """Whether a run's training leaves weights to average, or a moving average to judge."""
    return bool(values.get("keep_epochs") or values.get("ema_decay"))


def reads_clean_labels(values):
    """Whether cleaning could have helped a run, which it cannot where the labels are the given ones or a network's."""
    return values.get("label_source", "clean") == "clean" and not values.get("pseudo_labels")


def weights_of(run):
    """The files that tell when the weights of a run stand: its training's scores, and what was picked of averages."""
    return [f"{OUTPUT}/runs/{run}/scores.json", *([f"{OUTPUT}/runs/{run}/averaging.json"] if run in AVERAGE else [])]


def named_by(run):
    """Files that a run's settings name: another run's pseudo-labels or scores, a policy, weights to start from.

    Without those that are missing and that no rule makes: for want of them Snakemake takes what the step once
    wrote as it is, in silence, while the notebook says what is missing.
    """
    teacher, other, policy = (TRAIN[run].get(name) or "" for name in ("pseudo_labels", "compare_with", "augmentation"))
    made = [f"{OUTPUT}/tables/pseudo.{teacher}.csv"] if teacher in RUNS else []
    made += weights_of(other) if other in RUNS else []
    is_made = policy.endswith(".json") and relative(policy) == f"{OUTPUT}/search/best_policy.json"
    is_there = policy.endswith(".json") and files.project_path(policy).is_file()
    made += FOUND if policy == policy_search_files.SEARCHED else []
    return [*made, *([relative(policy)] if is_made or is_there else []), *first_weights(run)]


def first_weights(run):
    """The file of weights that a run starts from; an earlier run's is no output, so what tells when it stands."""
    weights = TRAIN[run].get("weights", "none")
    if weights in WEIGHTS_BY_NAME:
        return []
    path = files.project_path(weights)
    earlier = [name for name in RUNS if path.is_relative_to(files.project_path(f"{OUTPUT}/runs/{name}"))]
    if earlier:
        return weights_of(earlier[0])
    return [relative(path)] if path.is_file() else []


def teaching(run):
    """How the pseudo-labels of a run are chosen, as options of mask_lib.ensemble.self_training; none where nothing is said."""
    given = {name: value for name, value in workflow.config_settings.config.items() if name in parameters.TEACHING}
    values = parameters.teaching(config, run, given, "configuration")
    said = {name: value for name, value in values.items() if value != parameters.TEACHING[name]}
    options = {name.removeprefix("pseudo_").replace("_", "-"): value for name, value in said.items()}
    return [f"--{name}={value}" for name, value in options.items()]


try:
    RUNS = parameters.planned_runs(config)
except ValueError as error:
    raise WorkflowError(str(error))
os.environ.update(runner.quicker())  # for the steps that are no notebooks
PYTHON = sys.executable
OUTPUT = relative(setting("00_prepare_data", "output_dir"))
DATA = files.project_path(setting("00_prepare_data", "data_dir"))
# The photos are too many to follow one by one: the tables that list them stand for them.
ROOTS = archives.folders_with_data(DATA) if DATA.is_dir() else []  # DATA, or folders inside it
LISTS = [relative(root / path) for root in ROOTS for path in ("train/train.csv", "eval/info.csv")]
LISTS = [path for path in [*LISTS, relative(DATA)] if files.project_path(path).is_file()]  # DATA itself: an archive
FOLDS = range(setting("00_prepare_data", "fold_count"))
SPLITS = [f"split.stratified.{small}{fold}" for small in ("", "small.") for fold in FOLDS]
COPIES = [f"{kind}.{of}" for kind in ("duplicates", "data_leak") for of in ("ahash", "phash")]
TABLES = [f"{OUTPUT}/tables/{name}.csv" for name in ("photos", "external", "groups", *COPIES, *SPLITS)]
CLEAN = f"{OUTPUT}/tables/clean.csv"
DECISIONS = [relative(path) for path in sorted(files.project_path(OUTPUT).glob("review/decisions.*.jsonl"))]
VERDICT = [f"{OUTPUT}/search/verdict.json"] if setting("02_search_augmentation", "verdict_seeds") else []
FOUND = [f"{OUTPUT}/search/best_policy.json", *VERDICT]
TRAIN = {run: settings(notebook, run, when_changed="restart") for run, notebook in RUNS.items()}
# A soup needs all its runs and is made by hand; a step of one run writes all that the steps after it read.
AVERAGE = {run: held("05_average_weights", run, soup_of=[]) for run, values in TRAIN.items() if averages(values)}
try:
    TEACH = {run: teaching(run) for run in RUNS}
except ValueError as error:
    raise WorkflowError(str(error))
INFER = {run: held("06_inference", run, split="both") for run in RUNS}
ENSEMBLE = settings(
    "07_ensemble",
    test_filenames=[f"{OUTPUT}/inferences/{run}.test.csv" for run in RUNS],
    test_val_filenames=[f"{OUTPUT}/inferences/{run}.test_val.csv" for run in RUNS],
)
HEADLESS = (
    "{PYTHON:q} -m mask_lib.headless {input.notebook:q} {output.notebook:q}"
    " --report {output.report:q} --values {params.settings:q}"
)


rule all:
    input:
        f"{OUTPUT}/submissions/submission.csv",
        f"{OUTPUT}/comparison/scores.csv",


# snakemake did_it_help --cores all --configfile notebooks/params/NAME.yml
rule did_it_help:
    input:
        [f"{OUTPUT}/gain/{run}.json" for run in RUNS if reads_clean_labels(TRAIN[run])],


rule prepare:
    input:
        LISTS,
        notebook=ancient(source("00_prepare_data")),
    output:
        TABLES,
        f"{OUTPUT}/tables/problems.csv",
        notebook=f"{OUTPUT}/notebooks/00_prepare_data.ipynb",
        report=f"{OUTPUT}/reports/00_prepare_data.html",
    params:
        settings=json.dumps(settings("00_prepare_data")),
        cells=cells.digest(source("00_prepare_data")),
    threads: all_cores()
    shell:
        HEADLESS


# Its suspects come from a run, if there is one; that is no input, for each run is trained on what this step writes.
rule clean:
    input:
        TABLES,
        DECISIONS,
        notebook=ancient(source("01_label_cleaning")),
    output:
        CLEAN,
        f"{OUTPUT}/tables/dropped.csv",
        f"{OUTPUT}/review/suspects.csv",
        notebook=f"{OUTPUT}/notebooks/01_label_cleaning.ipynb",
        report=f"{OUTPUT}/reports/01_label_cleaning.html",
    params:
        settings=json.dumps(settings("01_label_cleaning")),
        cells=cells.digest(source("01_label_cleaning")),
    threads: all_cores()
    shell:
        HEADLESS


# snakemake search --cores all --configfile notebooks/params/NAME.yml
rule search:
    input:
        TABLES,
        CLEAN,
        notebook=ancient(source("02_search_augmentation")),
    output:
        FOUND,
        f"{OUTPUT}/search/trials.csv",
        notebook=f"{OUTPUT}/notebooks/02_search_augmentation.ipynb",
        report=f"{OUTPUT}/reports/02_search_augmentation.html",
    params:
        settings=json.dumps(settings("02_search_augmentation", when_changed="restart")),
        cells=cells.digest(source("02_search_augmentation")),
    threads: all_cores()
    resources:
        gpu=1,
    shell:
        HEADLESS


# A rule for each notebook that trains: which one a run takes is part of its output's name. Checkpoints are
# no outputs, because Snakemake deletes those before a step runs again, and training resumes from them.
for notebook in sorted(set(RUNS.values())):

    rule:
        name:
            f"train_{notebook}"
        input:
            TABLES,
            CLEAN,
            lambda wildcards: named_by(wildcards.run),
            notebook=ancient(source(notebook)),
        output:
            scores=f"{OUTPUT}/runs/{{run}}/scores.json",
            notebook=f"{OUTPUT}/notebooks/{notebook}.{{run}}.ipynb",
            report=f"{OUTPUT}/reports/{notebook}.{{run}}.html",
        wildcard_constraints:
            run="|".join(run for run in RUNS if RUNS[run] == notebook),
        params:
            settings=lambda wildcards: json.dumps(TRAIN[wildcards.run]),
            cells=cells.digest(source(notebook)),
        threads: all_cores()
        resources:
            gpu=1,
        shell:
            HEADLESS


# It may replace the scores by those of the averaged weights, and writes averaging.json after them.
rule average:
    input:
        TABLES,
        CLEAN,
        scores=f"{OUTPUT}/runs/{{run}}/scores.json",
        notebook=ancient(source("05_average_weights")),
    output:
        f"{OUTPUT}/runs/{{run}}/averaging.json",
        notebook=f"{OUTPUT}/notebooks/05_average_weights.{{run}}.ipynb",
        report=f"{OUTPUT}/reports/05_average_weights.{{run}}.html",
    params:
        settings=lambda wildcards: json.dumps(AVERAGE[wildcards.run]),
        cells=cells.digest(source("05_average_weights")),
    wildcard_constraints:
        run="|".join(AVERAGE) or "none",
    threads: all_cores()
    resources:
        gpu=1,
    shell:
        HEADLESS


rule pseudo_labels:
    input:
        TABLES,
        CLEAN,
        lambda wildcards: weights_of(wildcards.run),
    output:
        f"{OUTPUT}/tables/pseudo.{{run}}.csv",
    params:
        data=DATA,
        output=files.project_path(OUTPUT),
        options=lambda wildcards: TEACH[wildcards.run],
    wildcard_constraints:
        run="|".join(RUNS),
    threads: all_cores()
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m mask_lib.ensemble.self_training {params.options} {params.data:q} {params.output:q} {wildcards.run:q}"


rule infer:
    input:
        TABLES,
        CLEAN,
        lambda wildcards: weights_of(wildcards.run),
        notebook=ancient(source("06_inference")),
    output:
        test=f"{OUTPUT}/inferences/{{run}}.test.csv",
        test_val=f"{OUTPUT}/inferences/{{run}}.test_val.csv",
        notebook=f"{OUTPUT}/notebooks/06_inference.{{run}}.ipynb",
        report=f"{OUTPUT}/reports/06_inference.{{run}}.html",
    wildcard_constraints:
        run="|".join(RUNS),
    params:
        settings=lambda wildcards: json.dumps(INFER[wildcards.run]),
        cells=cells.digest(source("06_inference")),
    threads: all_cores()
    resources:
        gpu=1,
    shell:
        HEADLESS


rule ensemble:
    input:
        [relative(path) for name in ("test_filenames", "test_val_filenames") for path in ENSEMBLE.get(name, [])],
        [path for run in RUNS for path in weights_of(run)],
        TABLES,
        CLEAN,
        notebook=ancient(source("07_ensemble")),
    output:
        f"{OUTPUT}/submissions/submission.csv",
        f"{OUTPUT}/submissions/submission.csv.leak.csv",
        notebook=f"{OUTPUT}/notebooks/07_ensemble.ipynb",
        report=f"{OUTPUT}/reports/07_ensemble.html",
    params:
        settings=json.dumps(ENSEMBLE),
        cells=cells.digest(source("07_ensemble")),
    shell:
        HEADLESS


rule compare:
    input:
        [path for run in RUNS for path in weights_of(run)],
        notebook=ancient(source("08_compare_runs")),
    output:
        f"{OUTPUT}/comparison/settings.csv",
        f"{OUTPUT}/comparison/scores.csv",
        notebook=f"{OUTPUT}/notebooks/08_compare_runs.ipynb",
        report=f"{OUTPUT}/reports/08_compare_runs.html",
    params:
        settings=json.dumps(settings("08_compare_runs")),
        cells=cells.digest(source("08_compare_runs")),
    shell:
        HEADLESS


rule gain:
    input:
        TABLES,
        CLEAN,
        lambda wildcards: weights_of(wildcards.run),
    output:
        f"{OUTPUT}/gain/{{run}}.json",
    params:
        data=DATA,
        output=files.project_path(OUTPUT),
    wildcard_constraints:
        run="|".join(RUNS),
    threads: all_cores()
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m mask_lib.training.gain {params.data:q} {params.output:q} {wildcards.run:q}"
