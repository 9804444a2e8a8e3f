"""What a notebook is run with: its parameters cell, an experiment's files of values, the command line.

    epochs: 4                                    # for every notebook that declares `epochs`
    notebooks: {07_ensemble: {weights: [1, 2]}}  # for that notebook alone
    runs: {deep: {epochs: 9}}                    # what the run `deep` changes

Each of these goes before those above it, and a value given on the command line before all.
"""

import contextlib
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mask_lib.base import checks, config, files, plain_yaml
from mask_lib.headless import cells

# Of a run that others take pseudo-labels from: options of mask_lib.ensemble.self_training.
PSEUDO_LABEL_OPTIONS = {"pseudo_threshold": 0.9, "pseudo_class_share": 1.0}
CHAIN = {*PSEUDO_LABEL_OPTIONS, "plugins", "processes", "task"}  # what steps of the chain read that are no notebooks
Values = Mapping[str, Any]
Declared = Mapping[str, Values]  # names and defaults of parameters, by notebook


def merged(first: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Two files' values in one, mappings joined and `later` winning: as Snakemake joins configuration files."""
    both = dict(first)
    for name, value in later.items():
        old = first.get(name)
        both[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def planned_runs(values: Values) -> dict[str, str]:
    """The notebook that trains each run, or the one of the parameter `run`. ValueError for what is no file name."""
    notebook = "03_one_model"
    single = {"run": "one_model", **values, **section(values, notebook)}["run"]
    runs = run_overrides(values) or {checks.safe_name("run", single): {}}
    return {checks.safe_name("run", run): _trained_by(changes, notebook) for run, changes in runs.items()}


def _trained_by(changes: Values, default: str = "") -> str:
    """The name of the notebook that trains a run which makes these changes."""
    return checks.safe_name("notebook", changes.get("notebook", default)).removesuffix(".ipynb")


def run_overrides(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The `runs` section: per run what it changes. Raises ValueError if it has another shape."""
    runs = values.get("runs") or {}
    if not (isinstance(runs, Mapping) and all(isinstance(changes, Mapping | None) for changes in runs.values())):
        raise ValueError("`runs` maps a run's name to a mapping of what it changes: `runs: {deep: {epochs: 9}}`")
    return {run: dict(changes or {}) for run, changes in runs.items()}


def section(values: Mapping[str, Any], stem: str) -> dict[str, Any]:
    """What `values` hold for the notebook `stem` alone. Raises ValueError if that is no mapping."""
    sections = values.get("notebooks") or {}
    found = sections.get(stem) or {} if isinstance(sections, Mapping) else sections
    if not isinstance(found, Mapping):
        example = f"`notebooks: {{{stem}: {{seed: 1}}}}`"
        raise ValueError(f"`notebooks` maps a notebook's name to its values: {example}, not {found!r}")
    return dict(found)


def resolve(notebook: files.AnyPath, files_given: Sequence[files.AnyPath] = (), given: Values | None = None) -> dict:
    """The parameters of one notebook from YAML files, later ones first, and on top `given`; errors as of `choose`."""
    found = [plain_yaml.read(path) for path in files_given]
    for path, values in zip(files_given, found, strict=True):
        _chosen(notebook, values, given, str(path))
    where = ", ".join(map(str, files_given)) or "parameters"
    return choose(notebook, functools.reduce(merged, found, {}), given, where)


def choose(notebook: files.AnyPath, values: Values, given: Values | None = None, where: str = "parameters") -> dict:
    """What one notebook is to be run with, in types that match its declared defaults.

    values: an experiment's, shared by all notebooks of a folder. given: for this notebook alone; text is read as the
    declared type asks. Raises ValueError for a name that no notebook declares, or not the one that it is meant for, a
    value of another type than the default's, and a run that `values` do not describe, unless it is default or there.
    """
    chosen = _chosen(notebook, values, given, where)
    declared, runs = cells.declared_parameters(notebook), run_overrides(values)
    run = (declared | chosen).get("run")
    if run:
        checks.safe_name("run", run)
    if not run or not runs or run in runs:
        return chosen
    if "run" not in chosen:  # the file's settings of runs would be passed over in silence
        raise ValueError(f"{where} describes the runs {', '.join(runs)}: choose one with -p run {next(iter(runs))}")
    is_there = files.project_path((declared | chosen).get("output_dir", "")) / "runs" / run  # such as a soup's folder
    if run != declared["run"] and not is_there.is_dir():
        advice = checks.did_you_mean(run, runs) or f"; there are {', '.join(runs)}"
        raise ValueError(f"{where}: no run is called {run!r}{advice}")
    return chosen


def _chosen(notebook: files.AnyPath, values: Values, given: Values | None, where: str) -> dict[str, Any]:
    stem, declared, given = Path(notebook).stem, cells.declared_parameters(notebook), dict(given or {})
    beside = {**cells.declared_in(Path(notebook).parent), stem: declared}
    refuse_unknown(given, declared, files.shown_path(notebook))
    refuse_unknown_values(values, beside, where)
    given = {name: parsed(value, declared[name]) for name, value in given.items()}
    own = section(values, stem)
    run = {"run": declared.get("run"), **values, **own, **given}["run"]
    own |= (run_overrides(values).get(run, {}) if isinstance(run, str) else {}) | given
    chosen = {**values, **own}
    return {
        name: held_to_type(name, chosen[name], declared[name], where, {} if name in own else beside)
        for name in declared
        if name in chosen
    }


def refuse_unknown_values(values: Mapping[str, Any], beside: Declared, where: str) -> None:
    """Raise ValueError for a name in `values` that nothing in `beside` knows."""
    shared = {name for declared in beside.values() for name in declared} | CHAIN
    refuse_unknown(values, shared | {"notebooks", "runs"}, where)
    for stem, declared in beside.items():
        refuse_unknown(section(values, stem), declared, f"{where}, {stem}")
    refuse_unknown(values.get("notebooks") or {}, beside, f"{where}, notebooks")
    for run, changes in run_overrides(values).items():
        refuse_unknown(changes, (shared | {"notebook"}) - {"run", "plugins", "task"}, f"{where}, run {run}")
        if "notebook" in changes and (training := _trained_by(changes)) not in beside:
            advice = checks.did_you_mean(training, beside) or f"; there are {', '.join(beside)}"
            raise ValueError(f"{where}, run {run}: there is no notebook notebooks/{training}.ipynb{advice}")


def refuse_unknown(names: Collection[str], known: Collection[str], where: str) -> None:
    """Raise ValueError that names the first one outside `known`, with the nearest known ones."""
    for name in names:
        if name not in known:
            advice = checks.did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
            raise ValueError(f"{where}: no parameter is called {name!r}{advice}")


def parsed(value: Any, default: Any) -> Any:
    """A text from the command line as the type of a declared default; other values stay as they are."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    try:
        return float(value) if isinstance(default, float) else plain_yaml.parse(value)
    except ValueError:
        return value  # the check of its type says what is wrong with it


def held_to_type(name: str, value: Any, default: Any, where: str = "parameters", beside: Declared | None = None) -> Any:
    """`fitted`, within bounds, and of plain data. Raises ValueError that starts with `where` and says what to write;
    also in which section, where `value` suits a parameter of that name `beside`.
    """
    try:
        fitting = fitted(name, value, default)
        config.check_bounds({name: fitting} if isinstance(fitting, int | float) else {})
    except ValueError as error:
        raise ValueError(f"{where}: {error}{advice_on_section(name, value, default, beside or {})}") from None
    try:
        json.dumps(fitting)  # so that papermill carries it unchanged too
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {name} may hold text, numbers, true, false, null, lists or mappings") from None
    return fitting


def fitted(name: str, value: Any, default: Any) -> Any:
    """`value`, which must be of its default's type, elements of a list too; a whole number will do for a float, None
    takes anything. Raises ValueError that names what is wrong, elements by their place.
    """
    if default is None:
        return value
    kind = list if isinstance(default, tuple) else type(default)
    value = checks.checked(name, list(value) if isinstance(value, tuple) else value, kind)
    if kind is list and len({type(item) for item in default}) == 1:
        return [fitted(f"{name}[{place}]", item, default[0]) for place, item in enumerate(value)]
    return value


def advice_on_section(name: str, value: Any, default: Any, beside: Declared) -> str:
    """Where to write a value that another notebook could use, whose parameter of that name is of another type."""
    for stem, declared in beside.items():
        if name in declared and type(declared[name]) is not type(default):
            with contextlib.suppress(ValueError):
                fitted(name, value, declared[name])
                return f"; if it is meant for {stem} alone, put it under `notebooks:`, `{stem}:`"
    return ""
