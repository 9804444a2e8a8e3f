"""Names that become files, and parameter files as people write them: one rule, one reader, for chain and headless."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import past_runs
import pytest
from tiny_project import TOY_NOTEBOOKS, write_notebook

from mask_lib.augment import search
from mask_lib.base import checks, config, files, plain_yaml
from mask_lib.data import archives
from mask_lib.ensemble import members
from mask_lib.headless import cells, parameters
from mask_lib.headless.chain import Chain
from mask_lib.training import averaging, run_folder

NOTEBOOKS = sorted((files.PROJECT / "notebooks").glob("*.ipynb"))
DECLARED = {path.stem: cells.declared_parameters(path) for path in NOTEBOOKS}
UNFIT = ["../../evil", "-p", "a b", "", ".hidden", "a/b", "a\n", "<svg>", "é", "x" * 300, "a\0", "$(id)", "{run}"]
NO_TEXT = [7, True, None, 1.5, ["a"], {"a": 1}]
FIT = ["a", "A.b-c_1", "0224", "x" * 100]
COUNTS = ["fold_count", "features_width", "features_height", "gallery_photos", "epochs", "batch_size", "image_width"]
COUNTS += ["average_epochs", "first_epoch", "last_epoch", "shown_disagreements", "explained_mistakes", "verdict_seeds"]
COUNTS += ["seed", "keep_epochs", "plateau_epochs", "early_stop_epochs", "frozen_epochs", "verdict_epochs"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with toy notebooks that declare what the real ones do, for which paths count from it."""
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    for name, (declared, _) in TOY_NOTEBOOKS.items():
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", parameters=declared)
    return tmp_path


def by_chain(project: Path, path: Path, run: str = "") -> Chain:
    """The chain reads the values of all runs."""
    return Chain([path], {}, project, archives.folders_with_data)


def by_headless(project: Path, path: Path, run: str = "") -> dict:
    """One notebook reads those of one run, if it is given."""
    given = {"run": run} if run else {}
    return parameters.resolve(project / "notebooks" / "03_one_model.ipynb", [path], given)


each_way = pytest.mark.parametrize("read", [by_chain, by_headless])


def written(project: Path, content: str | bytes) -> Path:
    path = project / "toy.yml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", [*UNFIT, *NO_TEXT], ids=str)
def test_one_rule_for_the_names_of_runs_wherever_they_come_from(tmp_path: Path, name):
    asked = [
        lambda: checks.safe_name("run", name),
        lambda: config.Run(run=name),
        lambda: config.Run(pseudo_labels=name or "-"),
        lambda: run_folder.folder_of(tmp_path, name),
        lambda: parameters.planned_runs({"run": name}),
        lambda: parameters.planned_runs({"runs": {name if isinstance(name, str) else str(name) + " ": {}}}),
        lambda: averaging.make_soup(tmp_path, tmp_path, "soup", [name, "b"]),
        lambda: parameters.planned_runs({"runs": {"a": {"notebook": name}}}),
    ]
    for ask in asked:
        with pytest.raises(ValueError):
            ask()


@pytest.mark.parametrize("name", FIT)
def test_names_that_fit_are_taken_alike_by_training_and_by_the_chain(tmp_path: Path, name: str):
    assert config.Run(run=name).run == config.Run(pseudo_labels=name).pseudo_labels == name
    assert run_folder.folder_of(tmp_path, name).name == name
    assert parameters.planned_runs({"runs": {name: {}}}) == {name: "03_one_model"}


FOLDERS = [name for name in UNFIT if re.fullmatch(r"[^./\0][^/\0]{0,253}", name)]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_no_run_is_called_are_named_and_left_out(tmp_path: Path, name: str):
    past_runs.prepare(tmp_path)
    past_runs.write_run(tmp_path, "deep")
    past_runs.write_run(tmp_path, "evil").rename(tmp_path / "runs" / name)
    found, problems = run_folder.find_runs([tmp_path])
    assert [run.name for run in found] == ["deep"] == run_folder.trained_runs(tmp_path)
    assert "the name of this folder" in problems["problem"][0]


def test_a_sync_tools_copy_of_a_prediction_is_no_member(tmp_path: Path):
    folder = tmp_path / "inferences"
    folder.mkdir()
    for name in ("deep", "deep (1)", "._deep"):
        (folder / f"{name}.test.csv").touch()
    with pytest.raises(ValueError, match=r"deep \(1\)"):
        members.read_members(tmp_path)


@pytest.mark.parametrize("notebook", ["../../evil", "-p", "a b", "/etc/passwd", *NO_TEXT, "x" * 300], ids=str)
@each_way
def test_a_run_names_a_notebook_by_a_plain_name(project: Path, read: Callable, notebook):
    path = written(project, json.dumps({"runs": {"deep": {"notebook": notebook}}}))
    with pytest.raises(ValueError, match="notebook = "):
        read(project, path, "deep")


@pytest.mark.parametrize(
    ("notebook", "hint"),
    [
        ("09_none", r"09_none\.ipynb; there are 00_prepare_data, .*08_comp"),
        ("03_one_modle", r"03_one_modle\.ipynb; did you mean 03_one_model\?"),
    ],
)
@each_way
def test_a_notebook_that_is_not_there_is_refused_with_those_that_are(project, read, notebook, hint):
    path = written(project, f"runs: {{deep: {{notebook: {notebook}}}}}")
    with pytest.raises(ValueError, match=rf"run deep: there is no notebook notebooks/{hint}"):
        read(project, path, "deep")


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3\nepochs: 4", "epochs is set twice"),
        ("runs: {deep: {}, deep: {epochs: 9}}", "deep is set twice"),
        ("epochs: 0224", "YAML reads 0224 as 148: write 224, or '0224'"),
        ("run: no", "run = False is true or false, not text: put it in quotes"),
        ("runs: {no: {}}", "a name must be text: put it in quotes, 'no'"),
        ("runs: {0224: {}}", "a name must be text: put it in quotes, '0224'"),
        ("{{ x }}: 1", "a name must be text; write a value in place of {{ }}"),
        ("epochs: {{ epochs }}", "a name must be text; write a value in place of {{ }}"),
        ("? [a, b]\n: 1", "a name must be text"),
        ("epochs: &a [*a]", "it holds itself, by an alias"),
        ("&a {runs: *a}", "it holds itself, by an alias"),
        (ALIASES, "more than 100,000 values"),
        ("epochs: " + "[" * 5000, "nests lists or mappings too deep"),
        ("epochs: " + "{a: " * 5000, "nests lists or mappings too deep"),
        ("data_dir: 2024-13-45", "timestamp cannot be written so"),
        ("epochs: " + "9" * 5000, "int cannot be written so"),
        ("epochs: 0x" + "f" * 5000, "int cannot be written so"),
        ("epochs: !!int ''", "int cannot be written so"),
        ("data_dir: a\0b", "special characters are not allowed"),
        ("# 마스크\nepochs: 3".encode("cp949"), "toy.yml is not UTF-8 .*save it again as UTF-8"),
        ("epochs: 3".encode("utf-16"), "toy.yml is UTF-16 .*save it again as UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
@each_way
def test_a_parameter_file_is_refused_with_file_cause_and_remedy(project: Path, read: Callable, content, message: str):
    with pytest.raises(ValueError, match=message) as refused:
        read(project, written(project, content))
    assert "toy.yml" in str(refused.value) or message.startswith("run = ")


def test_a_misspelt_run_on_the_command_line_is_refused_with_the_nearest(project: Path):
    path = written(project, "runs: {quick: {epochs: 3}}")
    with pytest.raises(ValueError, match=r"no run is called 'quik'; did you mean quick\?"):
        by_headless(project, path, "quik")
    with pytest.raises(ValueError, match=r"run = '\.\./\.\./evil': it must be"):
        by_headless(project, path, "../../evil")


def test_a_file_that_is_not_there_or_no_file_is_named(project: Path):
    for path in (project / "none.yml", project / "notebooks"):
        with pytest.raises(OSError, match=path.name):
            plain_yaml.read(path)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_too_large_to_be_meant_is_refused_with_the_bound(name: str):
    having = [stem for stem, declared in DECLARED.items() if name in declared]
    assert having
    for stem in having:
        values = {"notebooks": {stem: {name: 10**12}}}
        with pytest.raises(ValueError, match=rf"{name} = {10**12}: it must be (at most|below) \d+"):
            parameters.choose(files.PROJECT / "notebooks" / f"{stem}.ipynb", values)
        with pytest.raises(ValueError, match=f"{name} = -1: it must be at least [012]$"):
            config.check_bounds({name: -1})


def test_suspects_without_a_backbone_are_refused():
    with pytest.raises(ValueError, match=r"^backbones = \[\]: it must be a list of one or more$"):
        config.check_bounds({"backbones": []})


SEARCH_COUNTS = [name for name, field in search.Search.model_fields.items() if field.annotation is int]


@pytest.mark.parametrize("name", SEARCH_COUNTS)
def test_so_is_one_of_a_search(name: str):
    with pytest.raises(ValueError, match=rf"{name} = {10**12}: it must be (at most|below) \d+"):
        search.Search(**{name: 10**12})


def test_every_notebook_has_its_counts_checked():
    """By its settings' class, or in its first cell; no whole number is left that neither knows."""
    known = {*config.Run.model_fields, *search.Search.model_fields, *config.BOUNDS}
    known |= {"num_tta", "ahash_distance", "phash_distance"}
    for path in NOTEBOOKS:
        assert {name for name, default in DECLARED[path.stem].items() if type(default) is int} <= known
        text = "".join(cell["source"] for cell in cells.read(path))
        assert "check_bounds(globals())" in text or "Run.from_parameters" in text or "inference.Tta(" in text


def test_wildcards_of_the_snakefile_hold_names_as_they_are_written():
    text = (files.PROJECT / "Snakefile").read_text()
    constraints = re.findall(r"wildcard_constraints: (.*)", text)
    assert constraints and all("re.escape" in one for one in constraints)


def test_a_setting_called_self_is_no_setting():
    with pytest.raises(ValueError, match="there is no setting 'self'"):
        config.Run(**{"self": 1})


def test_a_home_of_nobody_stays_in_a_path():
    assert files.project_path("~nobody-of-this-name/x") == files.PROJECT / "~nobody-of-this-name" / "x"
