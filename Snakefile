"""The chain from a folder of photos to a submission: snakemake --cores all --configfile notebooks/params/NAME.yml

Each step is a notebook, run by mask_lib.headless with what the configuration says of its parameters;
mask_lib.headless.chain works out the steps' settings and files. A step runs again when its parameters, the
cells of its notebook or its input files change; outputs saved in a notebook by Jupyter do not count.
`--config epochs=3` changes one value for once.

On a cluster: `--executor slurm --jobs 8`, with `--set-threads` and `--set-resources` as its nodes ask
(`train_03_one_model:gpu=0` for a node without a GPU).
"""

import json
import os
import re
import sys

from mask_lib.base import files
from mask_lib.data import archives
from mask_lib.headless import cells, runner
from mask_lib.headless.chain import Chain
from snakemake.exceptions import WorkflowError

workdir: files.PROJECT


try:
    command_line = workflow.config_settings
    CHAIN = Chain(command_line.configfiles, command_line.config, workflow.basedir, archives.folders_with_data)
except (ValueError, OSError) as error:
    raise WorkflowError(str(error))


def all_cores():
    """Every core for one step at a time, so that runs do not fight over them."""
    try:
        return workflow.cores
    except WorkflowError:  # --summary, --unlock and such need no --cores, for they run nothing
        return 1


os.environ.update(runner.quicker())  # for the steps that are no notebooks
PYTHON, OUTPUT, TABLES, CLEAN = sys.executable, CHAIN.output, CHAIN.tables, f"{CHAIN.output}/tables/clean.csv"
HEADLESS = (
    "{PYTHON:q} -m mask_lib.headless --report={output.report:q} --values={params.settings:q}"
    " -- {input.notebook:q} {output.notebook:q}"
)


wildcard_constraints: run="|".join(map(re.escape, CHAIN.runs))


rule all:
    input:
        f"{OUTPUT}/submissions/submission.csv",
        f"{OUTPUT}/comparison/scores.csv",


rule prepare:
    input:
        CHAIN.lists,
        notebook=ancient(CHAIN.source("00_prepare_data")),
    output:
        TABLES,
        f"{OUTPUT}/tables/problems.csv",
        notebook=f"{OUTPUT}/notebooks/00_prepare_data.ipynb",
        report=f"{OUTPUT}/reports/00_prepare_data.html",
    params:
        settings=json.dumps(CHAIN.prepare),
        cells=cells.digest(CHAIN.source("00_prepare_data")),
    threads: all_cores()
    shell: HEADLESS


# Its suspects come from a run, if there is one; that is no input, for each run is trained on what this step writes.
rule clean:
    input:
        TABLES,
        CHAIN.decisions,
        notebook=ancient(CHAIN.source("01_label_cleaning")),
    output:
        CLEAN,
        f"{OUTPUT}/tables/dropped.csv",
        f"{OUTPUT}/review/suspects.csv",
        notebook=f"{OUTPUT}/notebooks/01_label_cleaning.ipynb",
        report=f"{OUTPUT}/reports/01_label_cleaning.html",
    params:
        settings=json.dumps(CHAIN.clean),
        cells=cells.digest(CHAIN.source("01_label_cleaning")),
    threads: all_cores()
    shell: HEADLESS


# snakemake search --cores all --configfile notebooks/params/NAME.yml
rule search:
    input:
        TABLES,
        CLEAN,
        notebook=ancient(CHAIN.source("02_search_augmentation")),
    output:
        CHAIN.found,
        f"{OUTPUT}/search/trials.csv",
        notebook=f"{OUTPUT}/notebooks/02_search_augmentation.ipynb",
        report=f"{OUTPUT}/reports/02_search_augmentation.html",
    params:
        settings=json.dumps(CHAIN.search),
        cells=cells.digest(CHAIN.source("02_search_augmentation")),
    threads: all_cores()
    resources: gpu=1
    shell: HEADLESS


# A rule for each notebook that trains: which one a run takes is part of its output's name. Checkpoints are
# no outputs, because Snakemake deletes those before a step runs again, and training resumes from them.
for notebook in sorted(set(CHAIN.runs.values())):

    rule:
        name: f"train_{notebook}"
        input:
            TABLES,
            CLEAN,
            lambda wildcards: CHAIN.named_by(wildcards.run),
            notebook=ancient(CHAIN.source(notebook)),
        output:
            scores=f"{OUTPUT}/runs/{{run}}/scores.json",
            notebook=f"{OUTPUT}/notebooks/{notebook}.{{run}}.ipynb",
            report=f"{OUTPUT}/reports/{notebook}.{{run}}.html",
        wildcard_constraints: run="|".join(re.escape(run) for run in CHAIN.runs if CHAIN.runs[run] == notebook)
        params:
            settings=lambda wildcards: json.dumps(CHAIN.train[wildcards.run]),
            cells=cells.digest(CHAIN.source(notebook)),
        threads: all_cores()
        resources: gpu=1
        shell: HEADLESS


# Which averages are better than the weights of training, and so what the steps after this use.
rule average:
    input:
        TABLES,
        CLEAN,
        scores=f"{OUTPUT}/runs/{{run}}/scores.json",
        notebook=ancient(CHAIN.source("05_average_weights")),
    output:
        f"{OUTPUT}/runs/{{run}}/averaging.json",
        notebook=f"{OUTPUT}/notebooks/05_average_weights.{{run}}.ipynb",
        report=f"{OUTPUT}/reports/05_average_weights.{{run}}.html",
    params:
        settings=lambda wildcards: json.dumps(CHAIN.average[wildcards.run]),
        cells=cells.digest(CHAIN.source("05_average_weights")),
    wildcard_constraints: run="|".join(map(re.escape, CHAIN.average)) or "/"  # no name
    threads: all_cores()
    resources: gpu=1
    shell: HEADLESS


rule pseudo_labels:
    input:
        TABLES,
        CLEAN,
        lambda wildcards: CHAIN.weights_of(wildcards.run),
    output: f"{OUTPUT}/tables/pseudo.{{run}}.csv"
    params:
        data=CHAIN.data,
        output=files.project_path(OUTPUT),
        options=lambda wildcards: CHAIN.pseudo_label_options[wildcards.run],
    threads: all_cores()
    resources: gpu=1
    shell:
        "{PYTHON:q} -m mask_lib.ensemble.self_training {params.options} {params.data:q} {params.output:q} {wildcards.run:q}"


rule infer:
    input:
        TABLES,
        CLEAN,
        lambda wildcards: CHAIN.weights_of(wildcards.run),
        notebook=ancient(CHAIN.source("06_inference")),
    output:
        [f"{OUTPUT}/inferences/{{run}}.{part}.csv" for part in ("test", "test_val")],
        notebook=f"{OUTPUT}/notebooks/06_inference.{{run}}.ipynb",
        report=f"{OUTPUT}/reports/06_inference.{{run}}.html",
    params:
        settings=lambda wildcards: json.dumps(CHAIN.infer[wildcards.run]),
        cells=cells.digest(CHAIN.source("06_inference")),
    threads: all_cores()
    resources: gpu=1
    shell: HEADLESS


rule ensemble:
    input:
        CHAIN.predictions,
        [path for run in CHAIN.runs for path in CHAIN.weights_of(run)],
        TABLES,
        CLEAN,
        notebook=ancient(CHAIN.source("07_ensemble")),
    output:
        f"{OUTPUT}/submissions/submission.csv",
        f"{OUTPUT}/submissions/submission.csv.leak.csv",
        notebook=f"{OUTPUT}/notebooks/07_ensemble.ipynb",
        report=f"{OUTPUT}/reports/07_ensemble.html",
    params:
        settings=json.dumps(CHAIN.ensemble),
        cells=cells.digest(CHAIN.source("07_ensemble")),
    shell: HEADLESS


rule compare:
    input:
        [path for run in CHAIN.runs for path in CHAIN.weights_of(run)],
        notebook=ancient(CHAIN.source("08_compare_runs")),
    output:
        f"{OUTPUT}/comparison/settings.csv",
        f"{OUTPUT}/comparison/scores.csv",
        notebook=f"{OUTPUT}/notebooks/08_compare_runs.ipynb",
        report=f"{OUTPUT}/reports/08_compare_runs.html",
    params:
        settings=json.dumps(CHAIN.compare),
        cells=cells.digest(CHAIN.source("08_compare_runs")),
    shell: HEADLESS
