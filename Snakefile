"""The chain from a folder of photos to a submission: snakemake --cores all --configfile notebooks/params/NAME.yml

Each step is a notebook, run by mask_lib.headless with what the configuration says of its parameters, but folds that
are trained side by side are jobs of their own. mask_lib.headless.chain works out the steps' settings and files. A step
runs again when its parameters, its task, the cells of its notebook or its input files change; outputs saved in one by
Jupyter do not count. `--config epochs=3` changes one value for once.

On N GPUs: `--resources gpu=N`; so many jobs share the cores, each on a GPU of its own. On a cluster: `--executor slurm
--jobs 8`, with `--set-threads` and `--set-resources` as its nodes ask (`train_fold:gpu=0` for one without a GPU).
"""

import json
import os
import re
import sys

from mask_lib.base import files, labels
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


def given(name):
    """What the command line gives of a resource, as --resources gpu=4 does; None for nothing."""
    return getattr(workflow.global_resources.get(name), "value", None)


def cores(on_gpu=False):
    """Every core for one step at a time, so that runs do not fight over them; on GPUs as many as there are jobs."""
    every = given("_cores") or 1  # --summary, --unlock and such need no --cores, for they run nothing
    return max(1, every // (given("gpu") or 1)) if on_gpu else every


# Whether folds are trained side by side. Else a run's notebook trains them one after another: torch starts but once.
ASKED = given("gpu"), given("_nodes"), "train_fold" in workflow.resource_settings.overwrite_threads
APART = workflow.remote_exec or any(ASKED) or max(CHAIN.processes.values()) > 1
os.environ |= runner.quicker()  # for the steps that are no notebooks
PYTHON, OUTPUT, CLEAN = sys.executable, CHAIN.output, f"{CHAIN.output}/tables/clean.csv"
CLEANED, HOME = [*CHAIN.tables, CLEAN], files.project_path(OUTPUT)
TASK = files.digest(repr(labels.task()))  # of what its file says, comments left out
HEADLESS = "{PYTHON:q} -m mask_lib.headless --report={output.report:q} --values={params.settings:q}"
HEADLESS += " -- {input.notebook:q} {output.notebook:q}"
ON_GPU = HEADLESS.replace(" --report", " --gpu --report")


def written(step):
    """The executed notebook of a step and its report."""
    return {"notebook": f"{OUTPUT}/notebooks/{step}.ipynb", "report": f"{OUTPUT}/reports/{step}.html"}


def step(notebook, settings=None, by_run=None):
    """What a step runs again for: its settings, or those of each run, the task and the cells of its notebook."""
    settings = (lambda wildcards: json.dumps(by_run[wildcards.run])) if by_run else json.dumps(settings)
    return {"settings": settings, "cells": cells.digest(CHAIN.source(notebook)), "task": TASK}


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
        CHAIN.tables,
        f"{OUTPUT}/tables/problems.csv",
        **written("00_prepare_data"),
    params: **step("00_prepare_data", CHAIN.prepare)
    threads: cores()
    shell: HEADLESS


# Its suspects come from a run, if there is one; that is no input, for each run is trained on what this step writes.
rule clean:
    input:
        CHAIN.tables,
        CHAIN.decisions,
        notebook=ancient(CHAIN.source("01_label_cleaning")),
    output:
        CLEAN,
        f"{OUTPUT}/tables/dropped.csv",
        f"{OUTPUT}/review/suspects.csv",
        **written("01_label_cleaning"),
    params: **step("01_label_cleaning", CHAIN.clean)
    threads: cores()
    shell: HEADLESS


# snakemake search --cores all --configfile notebooks/params/NAME.yml
rule search:
    input:
        CLEANED,
        notebook=ancient(CHAIN.source("02_search_augmentation")),
    output:
        CHAIN.found,
        f"{OUTPUT}/search/trials.csv",
        **written("02_search_augmentation"),
    params: **step("02_search_augmentation", CHAIN.search)
    threads: cores(on_gpu=True)
    resources: gpu=1
    shell: ON_GPU


# Checkpoints are no outputs, because Snakemake deletes those before a step runs again, and training resumes from them.
rule train_fold:
    input:
        CLEANED,
        lambda wildcards: CHAIN.named_by(wildcards.run),
    output: f"{OUTPUT}/runs/{{run}}/fold{{fold,[0-9]+}}/oof.csv"
    params: settings=lambda wildcards: json.dumps(CHAIN.fold_settings(wildcards.run)), task=TASK
    threads: lambda wildcards: cores(on_gpu=True) * CHAIN.processes[wildcards.run]
    resources:
        gpu=lambda wildcards: CHAIN.processes[wildcards.run],
        processes=lambda wildcards: CHAIN.processes[wildcards.run],
    shell:
        "{PYTHON:q} -m mask_lib.training --gpu --processes {resources.processes} --threads {threads}"
        " --fold {wildcards.fold} --values={params.settings:q}"


# Joins the folds, or trains them first. A rule for each notebook that trains, since its name is part of its output's.
for notebook in sorted(set(CHAIN.runs.values())):

    rule:
        name: f"train_{notebook}"
        input:
            CLEANED,
            lambda job: (CHAIN.trained if APART else CHAIN.named_by)(job.run) + CHAIN.compared_with(job.run),
            notebook=ancient(CHAIN.source(notebook)),
        output:
            scores=f"{OUTPUT}/runs/{{run}}/scores.json",
            **written(f"{notebook}.{{run}}"),
        wildcard_constraints: run="|".join(re.escape(run) for run in CHAIN.runs if CHAIN.runs[run] == notebook)
        params: **step(notebook, by_run=CHAIN.train)
        threads: cores(on_gpu=True)
        resources: gpu=1
        shell: ON_GPU


# Which averages are better than the weights of training, and so what the steps after this use.
rule average:
    input:
        CLEANED,
        scores=f"{OUTPUT}/runs/{{run}}/scores.json",
        notebook=ancient(CHAIN.source("05_average_weights")),
    output:
        f"{OUTPUT}/runs/{{run}}/averaging.json",
        **written("05_average_weights.{run}"),
    params: **step("05_average_weights", by_run=CHAIN.average)
    wildcard_constraints: run="|".join(map(re.escape, CHAIN.average)) or "/"  # no name
    threads: cores(on_gpu=True)
    resources: gpu=1
    shell: ON_GPU


rule pseudo_labels:
    input:
        CLEANED,
        lambda wildcards: CHAIN.weights_of(wildcards.run),
    output: f"{OUTPUT}/tables/pseudo.{{run}}.csv"
    params: options=lambda wildcards: CHAIN.pseudo_label_options[wildcards.run], task=TASK
    threads: cores(on_gpu=True)
    resources: gpu=1
    shell:
        "{PYTHON:q} -m mask_lib.ensemble.self_training --gpu {params.options} {CHAIN.data:q} {HOME:q} {wildcards.run:q}"


rule infer:
    input:
        CLEANED,
        lambda wildcards: CHAIN.weights_of(wildcards.run),
        notebook=ancient(CHAIN.source("06_inference")),
    output:
        [f"{OUTPUT}/inferences/{{run}}.{part}.csv" for part in ("test", "test_val")],
        **written("06_inference.{run}"),
    params: **step("06_inference", by_run=CHAIN.infer)
    threads: cores(on_gpu=True)
    resources: gpu=1
    shell: ON_GPU


rule ensemble:
    input:
        CHAIN.predictions,
        [path for run in CHAIN.runs for path in CHAIN.weights_of(run)],
        CLEANED,
        notebook=ancient(CHAIN.source("07_ensemble")),
    output:
        f"{OUTPUT}/submissions/submission.csv",
        f"{OUTPUT}/submissions/submission.csv.leak.csv",
        **written("07_ensemble"),
    params: **step("07_ensemble", CHAIN.ensemble)
    shell: HEADLESS


rule compare:
    input:
        [path for run in CHAIN.runs for path in CHAIN.weights_of(run)],
        notebook=ancient(CHAIN.source("08_compare_runs")),
    output:
        f"{OUTPUT}/comparison/settings.csv",
        f"{OUTPUT}/comparison/scores.csv",
        **written("08_compare_runs"),
    params: **step("08_compare_runs", CHAIN.compare)
    shell: HEADLESS
