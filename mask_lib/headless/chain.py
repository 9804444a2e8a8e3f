"""What the Snakefile asks of an experiment: the settings of each step, and the files that steps read and write."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mask_lib.base import files, labels, plain_yaml
from mask_lib.base.config import SEARCHED, WEIGHTS_BY_NAME, Run
from mask_lib.headless import cells, parameters

WHERE = "configuration"  # the head of messages about an experiment's values
# Of a training notebook: what training a fold takes beside the settings of its run.
OF_JOB = ("task", "data_dir", "output_dir", "plugins", "when_changed", "checkpoint_minutes")
OF_JOB += ("tracking_mode", "wandb_project", "wandb_entity", "wandb_tags")
HASHES, COPIES, PARTS = ("ahash", "phash"), ("duplicates", "data_leak"), ("test", "test_val")


def relative(path: files.AnyPath) -> str:
    """A path as the chain names it: relative inside the project, absolute outside."""
    return files.shown_path(files.project_path(path))


def experiment_values(config_files: Iterable[files.AnyPath], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an experiment's files, later ones first, and on top what is given. Raises ValueError for none."""
    # Read anew, since Snakemake's own reader keeps the last of two values of a name in silence.
    found = [plain_yaml.read(path) for path in config_files]
    if not (values := functools.reduce(parameters.merged, [*found, given], {})):
        raise ValueError("an experiment's values are missing; name a file: --configfile notebooks/params/demo.yml")
    return values


def refuse_braces(name: str, path: files.AnyPath) -> None:
    """Raise ValueError for a path of the parameter `name` which Snakemake would take for a pattern of many."""
    if set("{}") & set(str(path)):
        odd = f"{path} holds braces, Snakemake's mark of a wildcard"
        raise ValueError(f"{WHERE}: {name}: {odd}: rename that folder")


class Chain:
    """An experiment's steps. Settings are by run where a step is one of a run; paths are as `relative` gives them.

    config_files, given: of `--configfile` and `--config`, which goes before all. folder: the Snakefile's. find_folders:
    gives the folders with data in one. Raises ValueError for whatever is wrong with the values.
    """

    def __init__(
        self, config_files: Iterable[files.AnyPath], given: Mapping, folder: files.AnyPath, find_folders: Callable
    ) -> None:
        self.given, self.folder = dict(given), Path(folder)
        self.values = experiment_values(config_files, given)
        self.task = parameters.held_to_type("task", self.values.get("task", labels.DEFAULT), "", WHERE)
        labels.use(self.task)
        self.runs = parameters.planned_runs(self.values)  # the name of the notebook that trains it, by run
        self.prepare = self.settings("00_prepare_data")
        self.clean = self.settings("01_label_cleaning")
        self.search = self.settings("02_search_augmentation", when_changed="restart")
        self.compare = self.settings("08_compare_runs")
        prepare = self.declared("00_prepare_data") | self.prepare
        self.output = relative(prepare["output_dir"])
        self.data = files.project_path(prepare["data_dir"])
        # The tables that stand for the photos, too many to follow, and the data themselves if they are an archive.
        folders = find_folders(self.data) if self.data.is_dir() else []
        lists = [folder / path for folder in folders for path in labels.task().photos.lists]
        self.lists = [relative(path) for path in [*lists, self.data] if path.is_file()]
        self.tables = self.tables_of(prepare["fold_count"])
        self.decisions = sorted(map(relative, files.project_path(self.output).glob("review/decisions.*.jsonl")))
        has_verdict = (self.declared("02_search_augmentation") | self.search)["verdict_seeds"]
        found = ["best_policy.json", *(["verdict.json"] if has_verdict else [])]  # by the search of a policy
        self.found = [f"{self.output}/search/{name}" for name in found]
        self.train = {run: self.settings(notebook, run, when_changed="restart") for run, notebook in self.runs.items()}
        self.processes = {run: self.value_of(run, "processes", 1) for run in self.runs}
        self.folds = {run: self.folds_of(run, prepare["fold_count"]) for run in self.runs}
        # Training left weights to average, or a moving average to score. A soup needs all its runs: it is made by hand.
        averaged = [run for run, values in self.train.items() if values.get("keep_epochs") or values.get("ema_decay")]
        self.average = {run: self.settings("05_average_weights", run) | {"soup_of": []} for run in averaged}
        self.infer = {run: self.settings("06_inference", run) | {"split": "both"} for run in self.runs}
        self.pseudo_label_options = {run: self.options_of(run) for run in self.runs}
        inferences = {part: [f"{self.output}/inferences/{run}.{part}.csv" for run in self.runs] for part in PARTS}
        predictions = {f"{part}_filenames": paths for part, paths in inferences.items()}
        self.ensemble = self.settings("07_ensemble", **predictions)
        self.predictions = [relative(path) for name in predictions for path in self.ensemble.get(name, [])]
        folders = ("data_dir", self.data), ("output_dir", self.output)
        for name, path in (*folders, *(("test_filenames", path) for path in self.predictions)):
            refuse_braces(name, path)

    def source(self, notebook: str) -> str:
        """The notebook of a step, as the chain names it."""
        return relative(self.folder / "notebooks" / f"{notebook}.ipynb")

    def declared(self, notebook: str) -> dict[str, Any]:
        """The parameters of a step's notebook, with their defaults."""
        return cells.declared_parameters(files.project_path(self.source(notebook)))

    def settings(self, notebook: str, run: str | None = None, **known: Any) -> dict[str, Any]:
        """What a step is run with beside its notebook's defaults, of which the chain knows better those in `known`."""
        declared, path = self.declared(notebook), files.project_path(self.source(notebook))
        values = {name: value for name, value in known.items() if name in declared} | self.values
        given = {name: value for name, value in self.given.items() if name in declared}
        return parameters.choose(path, values, given | ({"run": run} if run else {}), WHERE)

    def value_of(self, run: str, name: str, default: Any) -> Any:
        """What is said for a run of something that its notebook does not declare, of the type of its default."""
        values = self.values | parameters.run_overrides(self.values).get(run, {}) | self.given
        return parameters.held_to_type(name, values.get(name, default), default, WHERE)

    def tables_of(self, fold_count: int) -> list[str]:
        """What 00_prepare_data writes and later steps read."""
        splits = [f"split.stratified.{small}{fold}" for small in ("", "small.") for fold in range(fold_count)]
        copies = [f"{kind}.{of}" for kind in COPIES for of in HASHES]
        return [f"{self.output}/tables/{name}.csv" for name in ("photos", "external", "groups", *copies, *splits)]

    def folds_of(self, run: str, fold_count: int) -> list[int]:
        """The folds that a run asks for, by default all."""
        asked = (self.declared(self.runs[run]) | self.train[run]).get("folds", [])
        return list(Run(folds=asked).folds) or list(range(fold_count))

    def fold_settings(self, run: str) -> dict[str, Any]:
        """What `mask_lib.training` is run with for any fold of a run: nothing that its result does not hear of."""
        heard = {*Run.model_fields, *OF_JOB} - {"folds"}
        values = self.declared(self.runs[run]) | self.train[run]
        return {name: value for name, value in values.items() if name in heard}

    def trained(self, run: str) -> list[str]:
        """The files that tell that all folds of a run are trained."""
        return [f"{self.output}/runs/{run}/fold{fold}/oof.csv" for fold in self.folds[run]]

    def weights_of(self, run: str) -> list[str]:
        """The files that tell when the weights of a run are final: its scores, and what was picked of averages."""
        names = ["scores.json", *(["averaging.json"] if run in self.average else [])]
        return [f"{self.output}/runs/{run}/{name}" for name in names]

    def compared_with(self, run: str) -> list[str]:
        """What tells that the run which another one is compared with is final, if the chain has that run."""
        other = self.train[run].get("compare_with")
        return self.weights_of(other) if other in self.runs else []

    def named_by(self, run: str) -> list[str]:
        """Files that a run's settings name for its training: another run's pseudo-labels, a policy, first weights.

        Without missing ones that no rule makes: the notebook says so, where Snakemake would find nothing to do.
        """
        names = ("pseudo_labels", "augmentation", "weights")
        other, augmentation, weights = (self.train[run].get(name) or "" for name in names)
        pseudo = [f"{self.output}/tables/pseudo.{other}.csv"] if other in self.runs else []
        policies = [relative(augmentation)] if augmentation.endswith(".json") else []
        there = [path for path in policies if path in self.found or files.project_path(path).is_file()]
        searched = self.found if augmentation == SEARCHED else []
        return [*pseudo, *there, *searched, *self.first_weights(weights)]

    def first_weights(self, weights: str) -> list[str]:
        """The file of weights that a run starts from; an earlier run's is no output, so what tells when it is final."""
        path = files.project_path(weights)
        if not weights or weights in WEIGHTS_BY_NAME:
            return []
        earlier = [run for run in self.runs if path.is_relative_to(files.project_path(f"{self.output}/runs/{run}"))]
        return self.weights_of(earlier[0]) if earlier else [relative(path)] if path.is_file() else []

    def options_of(self, run: str) -> list[str]:
        """How `mask_lib.ensemble.self_training` chooses the pseudo-labels of a run, where defaults are not meant."""
        defaults = parameters.PSEUDO_LABEL_OPTIONS
        chosen = {name: self.value_of(run, name, default) for name, default in defaults.items()}
        changed = {name: value for name, value in chosen.items() if value != defaults[name]}
        options = [f"--{name.removeprefix('pseudo_').replace('_', '-')}={value}" for name, value in changed.items()]
        plugins = parameters.held_to_type("plugins", self.values.get("plugins", []), [""], WHERE)
        options += [f"--task={self.task}"] if self.task != labels.DEFAULT else []
        return [*options, *(f"--plugin={name}" for name in plugins)]
