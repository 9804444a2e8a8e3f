@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        (None, "0 cells are tagged"),
        ("epochs = 2\nseed = 1 + 1", "line 2"),
        ("import os", "line 1"),
        ("epochs: int = 2", "line 1"),
        ("a = b = 2", "line 1"),
        ("epochs = 2\n\nepochs = 3", "line 3: epochs is set twice"),
        ("epochs = 2\nepochs +", "line 2"),
    ],
)
def test_a_parameters_cell_that_is_not_plain_literals_is_refused_by_line(tmp_path: Path, parameters, where: str):
    notebook = write_notebook(tmp_path / "odd.ipynb", parameters=parameters)
    with pytest.raises(ValueError, match=rf"odd\.ipynb.*{re.escape(where)}"):
        parameters.notebook_parameters(notebook)


def test_two_parameters_cells_are_refused(tmp_path: Path, notebook: Path):
    twice = nbformat.read(notebook, as_version=4)
    twice.cells.append(nbformat.v4.new_code_cell("b = 1", metadata={"tags": ["parameters"]}))
    nbformat.write(twice, notebook)
    with pytest.raises(ValueError, match="2 cells are tagged"):
        parameters.notebook_parameters(notebook)


def test_defaults_are_read_with_their_types(tmp_path: Path):
    parameters = "low = -1  # years\nedges = (30, 60)\nextra = {'a': [1.5]}"
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=parameters)
    assert parameters.notebook_parameters(notebook) == {"low": -1, "edges": (30, 60), "extra": {"a": [1.5]}}


def test_the_source_digest_follows_cells_and_not_outputs(notebook: Path):
    before = parameters.source_digest(notebook)
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    content.cells[1].execution_count = 7
    content.metadata["title"] = "new"
    nbformat.write(content, notebook)
    assert parameters.source_digest(notebook) == before
    content.cells[1].source += "\nmore = 1"
    nbformat.write(content, notebook)
    assert parameters.source_digest(notebook) != before


def test_later_files_win_and_given_values_win_over_files(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "06_other.ipynb", parameters="num_tta = 1")
    first = write_text(tmp_path / "a.yml", "epochs: 3\nname: first\nnum_tta: 4\n")
    second = write_text(tmp_path / "b.yml", "name: second\nlearning_rate: 1\n")
    chosen = parameters.resolve(notebook, [first, second], {"epochs": "9"})
    assert chosen == {"epochs": 9, "name": "second", "learning_rate": 1.0}
    assert type(chosen["learning_rate"]) is float


def test_a_run_overrides_the_shared_values_and_given_values_override_the_run(tmp_path: Path):
    notebook = write_notebook(tmp_path / "03_toy.ipynb", parameters='run = "one"\nepochs = 1\nseed = 0')
    first = write_text(tmp_path / "a.yml", "epochs: 2\nruns:\n  one:\n  deep: {epochs: 3, seed: 4, notebook: 03_toy}\n")
    second = write_text(tmp_path / "b.yml", "runs: {deep: {seed: 5}}")
    assert parameters.resolve(notebook, [first]) == {"epochs": 2}
    assert parameters.resolve(notebook, [first], {"run": "deep"}) == {"run": "deep", "epochs": 3, "seed": 4}
    assert parameters.resolve(notebook, [first, second], {"run": "deep", "epochs": "7"}) == {
        "run": "deep",
        "epochs": 7,
        "seed": 5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "did you mean epochs?"),
        ("runs: {deep: {epoch: 3}}", "run deep: .*did you mean epochs?"),
        ("runs: [deep]", "maps a run's name"),
        ("epochs: 3\nname: a\nepochs: 4", r"epochs is set twice\n.*line 3"),
        ("- epochs", "holds a list"),
        ("epochs: [", r"a\.yml"),
        ("name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("learning_rate: 1e-3", r"learning_rate is a number, not '1e-3'; in YAML write 1\.0e-3"),
        ("learning_rate: 2.5e3", r"in YAML write 2\.5e\+3"),
        ("epochs: 1e3", "epochs is a whole number, not '1e3'; write 1000"),
        ("epochs: '3'", "write 3 without quotes"),
        ("epochs: 3.0", r"epochs is a whole number, not 3\.0"),
        ("epochs: true", "epochs is a whole number, not True"),
        ("epochs:", "epochs is a whole number, not None"),
        ("resume: 1", "resume is true or false, not 1"),
        ("name: 007", "name is text, not 7; put it in quotes"),
        ("name: no", "name is text, not False; put it in quotes"),
        ("name: 2024-01-31", "put it in quotes"),
        ("folds: 1", "folds is a list, not 1"),
        ("folds: [0, one]", r"folds\[1\] is a whole number, not 'one'"),
        ("anything: {1: a}", "mappings of text"),
    ],
)
def test_a_wrong_parameter_file_is_refused_with_what_to_write(tmp_path: Path, notebook: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        parameters.resolve(notebook, [write_text(tmp_path / "a.yml", text)])
    assert "a.yml" in str(refused.value) or "runs" in text


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
    ],
)
def test_text_from_the_command_line_takes_the_declared_type(notebook: Path, name: str, text: str, value):
    chosen = parameters.resolve(notebook, [], {name: text})
    assert chosen == {name: value}
    assert type(chosen[name]) is type(value)


@pytest.mark.parametrize(("name", "text"), [("epochs", "1.5"), ("epochs", "["), ("resume", "1"), ("folds", "0")])
def test_text_that_cannot_be_the_declared_type_is_refused(notebook: Path, name: str, text: str):
    with pytest.raises(ValueError, match=f"{name} is "):
        parameters.resolve(notebook, [], {name: text})


def test_a_given_name_must_be_declared_by_this_notebook(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "06_other.ipynb", parameters="num_tta = 1")
    with pytest.raises(ValueError, match=r"03_toy.*'num_tta'"):
        parameters.resolve(notebook, [], {"num_tta": "4"})


def test_scratch_notebooks_beside_do_not_stop_a_run(tmp_path: Path, notebook: Path):
    write_notebook(tmp_path / "Untitled.ipynb", parameters=None)
    write_text(tmp_path / "broken.ipynb", "not a notebook")
    assert parameters.resolve(notebook, [], {"epochs": 3}) == {"epochs": 3}


def test_runs_are_planned_with_their_notebooks():
    assert parameters.planned_runs({}) == {"one_model": "03_one_model"}
    assert parameters.planned_runs({"run": "quick"}) == {"quick": "03_one_model"}
    runs = {"a": None, "b-2": {"notebook": "04_three_model.ipynb"}}
    assert parameters.planned_runs({"runs": runs}) == {"a": "03_one_model", "b-2": "04_three_model"}
    with pytest.raises(ValueError, match=r"cannot be called '\.\./a'"):
        parameters.planned_runs({"runs": {"../a": {}}})
