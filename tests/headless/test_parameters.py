"""Parameters of toy notebooks: what goes before what, what is refused, and what to write instead."""

from pathlib import Path

import pytest
from tiny_project import write_notebook, write_text

from mask_lib.headless import parameters


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook that takes six parameters and does nothing."""
    return write_notebook(tmp_path / "03_toy.ipynb")


@pytest.fixture
def ensemble(tmp_path: Path, notebook: Path) -> Path:
    """A second notebook beside it, in which `name` is a list and `seed` its own."""
    return write_notebook(tmp_path / "07_mean.ipynb", parameters="name = []\nepochs = 1\nseed = 0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "did you mean epochs?"),
        ("runs: {deep: {epoch: 3}}", "run deep: .*did you mean epochs?"),
        ("runs: [deep]", "maps a run's name"),
        ("- epochs", "holds a list"),
        ("epochs: [", r"a\.yml"),
        ("name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("learning_rate: 1e-3", r"learning_rate = '1e-3' is text, not a number.*write 1\.0e-3$"),
        ("epochs:", "epochs = None is empty, not a whole number"),
        ("name: 007", r"YAML reads 007 as 7: write 7, or '007' where it is text\n.*line 1"),
        ("epochs: 1:30", "YAML reads 1:30 as 90: write '1:30' where it is text"),
        ("name: 2024-01-31", "put it in quotes"),
        ("folds: 1", "folds = 1 is a whole number, not a list"),
        ("folds: [0, one]", r"folds\[1\] = 'one' is text, not a whole number$"),
        ("notebooks: {07_mean: {learning_rate: 0.1}}", "07_mean: no parameter is called 'learning_rate'"),
        ("notebooks: {07_mean: {seeds: 1}}", "did you mean seed?"),
        ("notebooks: {07_meen: {seed: 1}}", "did you mean 07_mean?"),
        ("notebooks: {07_mean: [seed]}", "maps a notebook's name to its values"),
        ("notebooks: {03_toy: {epochs: 1e3}}", "epochs = '1e3' is text, not a whole number: write 1000"),
        ("notebooks: {03_toy: {name: [b]}}", "is a list, not text$"),
    ],
)
def test_a_wrong_parameter_file_is_refused_with_what_to_write(tmp_path: Path, notebook, ensemble, text, message):
    with pytest.raises(ValueError, match=message) as refused:
        parameters.resolve(notebook, [write_text(tmp_path / "a.yml", text)])
    assert "a.yml" in str(refused.value) or message.startswith("maps a ")


def test_keys_may_be_merged_from_elsewhere_in_the_file(tmp_path: Path, notebook: Path):
    values = write_text(tmp_path / "a.yml", "anything: &all {a: 1}\nnotebooks: {03_toy: {anything: {<<: *all, b: 2}}}")
    assert parameters.resolve(notebook, [values]) == {"anything": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("name", "007", "007"),
        ("name", "[a]", "[a]"),
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", "1", 1.0),
        ("epochs", "12", 12),
        ("resume", "true", True),
        ("folds", "[0, 1]", [0, 1]),
        ("anything", "{a: 1.5}", {"a": 1.5}),
        *((name, text, None) for name, text in (("epochs", "1.5"), ("epochs", "["), ("resume", "1"), ("folds", "0"))),
    ],
)
def test_text_from_the_command_line_takes_the_declared_type_or_is_refused(notebook: Path, name: str, text: str, value):
    if value is None:
        with pytest.raises(ValueError, match=f"{name} = "):
            parameters.resolve(notebook, [], {name: text})
    else:
        chosen = parameters.resolve(notebook, [], {name: text})
        assert (chosen, type(chosen[name])) == ({name: value}, type(value))


def test_a_given_name_must_be_declared_by_this_notebook(notebook: Path, ensemble: Path):
    with pytest.raises(ValueError, match=r"07_mean.*no parameter is called 'learning_rate'"):
        parameters.resolve(ensemble, [], {"learning_rate": "4"})


def test_scratch_notebooks_beside_do_not_stop_a_run(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "Untitled.ipynb", parameters=None)
    write_text(tmp_path / "broken.ipynb", "not a notebook")
    assert parameters.resolve(notebook, [], {"epochs": 3}) == {"epochs": 3}


def test_runs_are_planned_with_their_notebooks():
    assert parameters.planned_runs({}) == {"one_model": "03_one_model"}
    assert parameters.planned_runs({"run": "quick"}) == {"quick": "03_one_model"}
    assert parameters.planned_runs({"run": "a", "notebooks": {"03_one_model": {"run": "b"}}}) == {"b": "03_one_model"}
    runs = {"a": None, "b-2": {"notebook": "04_three_model.ipynb"}}
    assert parameters.planned_runs({"runs": runs}) == {"a": "03_one_model", "b-2": "04_three_model"}


ORDER = """
epochs: 3
views: 3
notebooks: {03_toy: {epochs: 4}}
runs:
  one:
  deep: {epochs: 5, seed: 5, notebook: 03_toy}
"""


@pytest.mark.parametrize(
    ("stem", "given", "chosen"),
    [
        ("06_other", {}, {"epochs": 3, "views": 3}),
        ("03_toy", {}, {"epochs": 4}),
        ("03_toy", {"run": "deep"}, {"run": "deep", "epochs": 5, "seed": 6}),
        ("03_toy", {"run": "deep", "epochs": "7"}, {"run": "deep", "epochs": 7, "seed": 6}),
    ],
    ids=["shared by all", "a section before it", "a run, also of a later file, before that", "a given one before all"],
)
def test_what_goes_before_what(tmp_path: Path, stem: str, given: dict, chosen: dict):
    for name, own in (("03_toy", "seed"), ("06_other", "views")):
        write_notebook(tmp_path / f"{name}.ipynb", parameters=f'run = "one"\nepochs = 1\n{own} = 0')
    values = write_text(tmp_path / "a.yml", ORDER), write_text(tmp_path / "b.yml", "runs: {deep: {seed: 6}}")
    assert parameters.resolve(tmp_path / f"{stem}.ipynb", values, given) == chosen


def test_a_file_that_describes_runs_wants_one_chosen(tmp_path: Path):
    """Its settings would otherwise be passed over, and a run of the notebook's defaults trained in silence."""
    notebook = write_notebook(tmp_path / "03_toy.ipynb", parameters='run = "one"\nepochs = 1')
    every = write_notebook(tmp_path / "06_every.ipynb", parameters='run = ""\nviews = 1')
    values = write_text(tmp_path / "a.yml", "runs: {deep: {epochs: 5}}")
    with pytest.raises(ValueError, match=r"a\.yml describes the runs deep: choose one with -p run deep"):
        parameters.resolve(notebook, [values])
    assert parameters.resolve(every, [values]) == {}


def test_a_run_that_the_file_does_not_describe_is_refused_with_the_nearest(tmp_path: Path):
    declared = f'run = "one"\nepochs = 1\noutput_dir = "{tmp_path}"'
    notebook = write_notebook(tmp_path / "03_toy.ipynb", parameters=declared)
    values = write_text(tmp_path / "a.yml", "runs: {quick: {epochs: 5}, deep: }")
    more = write_text(tmp_path / "b.yml", "runs: {wide: {epochs: 6}}")
    with pytest.raises(ValueError, match=r"no run is called 'soup'; there are quick, deep, wide"):
        parameters.resolve(notebook, [values, more], {"run": "soup"})
    assert parameters.resolve(notebook, [values, more], {"run": "wide"}) == {"run": "wide", "epochs": 6}
    (tmp_path / "runs" / "soup").mkdir(parents=True)  # made of other runs, by hand
    assert parameters.resolve(notebook, [values], {"run": "soup"}) == {"run": "soup"}


def test_the_run_that_a_section_names_brings_its_changes(tmp_path: Path):
    notebook = write_notebook(tmp_path / "03_toy.ipynb", parameters='run = "one"\nepochs = 1')
    values = {"notebooks": {"03_toy": {"run": "deep"}}, "runs": {"deep": {"epochs": 5}}}
    assert parameters.choose(notebook, values) == {"run": "deep", "epochs": 5}


def test_one_name_can_mean_two_things_each_under_its_notebook(notebook: Path, ensemble: Path):
    values = {"name": "b", "notebooks": {"07_mean": {"name": ["c", "d"]}}}
    assert parameters.choose(notebook, values) == {"name": "b"}
    assert parameters.choose(ensemble, values) == {"name": ["c", "d"]}
    assert parameters.choose(ensemble, {"notebooks": {"03_toy": None, "07_mean": None}, "epochs": 3}) == {"epochs": 3}


def test_a_shared_value_that_only_another_notebook_can_use_is_sent_to_its_section(notebook: Path, ensemble: Path):
    with pytest.raises(ValueError, match=r"\['c'\] is a list, not text; .*put it under `notebooks:`, `07_mean:`$"):
        parameters.choose(notebook, {"name": ["c"]})
    with pytest.raises(ValueError, match=r"name = 'b' is text, not a list; .*put it under `notebooks:`, `03_toy:`$"):
        parameters.choose(ensemble, {"name": "b"})


@pytest.mark.parametrize(
    "values",
    [{"epochs": "three"}, {"notebooks": {"07_mean": {"name": "b"}}}, {"name": 1.5}, {"runs": {"deep": {"name": "b"}}}],
)
def test_a_value_that_no_section_would_mend_is_not_sent_to_one(notebook: Path, tmp_path: Path, values: dict):
    mean = write_notebook(tmp_path / "07_mean.ipynb", parameters='run = "deep"\nname = []\nepochs = 1')
    with pytest.raises(ValueError, match=r"is (text|a number), not") as refused:
        parameters.choose(mean, values)
    assert "put it under" not in str(refused.value)
