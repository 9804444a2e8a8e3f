"""Files of a run and of a chain with anything in them: an error that names the file and the place, and no other."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import past_runs
import pytest
import yaml
from amount import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import write_notebook

from mask_lib.augment import policy, search
from mask_lib.base import files, plain_yaml
from mask_lib.headless import cells, parameters
from mask_lib.relabel import probabilities
from mask_lib.sample import paint
from mask_lib.training import pseudo_labels, run_folder, runs

NOTE = {"out_of_fold": {"0": "a", "1": "b"}, "unanswered": 0}
ANSWER = {"label": 3, "mask": "worn", "gender": "male", "age": 61, "face": "face0001"}
BEST = policy.PRESET_POLICIES["faces"]
VERDICT = {"policy": search.policy_digest(BEST), "beats_trivialaugment": True, "candidates": {"best": "0"}}
VERDICT |= {"sentence": "It pays.", "folds": [2], "seconds": 3.5}
SOUP = {"trained": "soup", "soup_of": ["deep", "wide"], "made_of": {"deep": {"0": "a"}}}
SOUP |= {"folds": {"0": {"picked": "soup"}}}
VALUES = {"epochs": 3, "runs": {"deep": {"epochs": 4, "notebook": "03_toy"}}, "notebooks": {"03_toy": {"seed": 1}}}
PSEUDO = {"0": {"val": "a", "test_val": "b"}, "1": {"val": "c", "test_val": "d"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an experiment with two finished runs, a search and a sample's truth, and a notebook."""
    output = tmp_path_factory.mktemp("finished")
    past_runs.prepare(output)
    for name in ("deep", "wide"):
        past_runs.average(past_runs.write_run(output, name))
    files.write_json({"data_dir": "data/sample"}, output / "runs" / "deep" / "data.json")
    files.write_json(SOUP, output / "runs" / "soup" / "averaging.json")
    for name in ("deep.test.csv", "deep.test_val.csv"):
        (output / "inferences").mkdir(exist_ok=True)
        (output / "inferences" / name).write_text("")
    files.write_json(NOTE, output / "inferences" / "deep.test.json")
    files.write_json(PSEUDO, output / "tables" / "pseudo.deep.json")
    (output / "tables" / "pseudo.deep.csv").write_text("fold,path,label,probability,weight\n")
    policy.write_policy(BEST, search.best_path(output))
    files.write_json(VERDICT, search.verdict_path(output))
    truth = {"arguments": {"painting": 1}, "photos": {"a/b.jpg": ANSWER | {"given": 3}}, "eval": {"c.jpg": ANSWER}}
    files.write_json(truth, output / "truth.json")
    write_notebook(output / "03_toy.ipynb", "pass", parameters='run = "deep"\nepochs = 1\nseed = 0')
    (output / "toy.yml").write_text(yaml.safe_dump(VALUES))
    return output


def read_run(output: Path) -> Any:
    return run_folder.read_run(output / "runs" / "deep")


def read_policies(output: Path) -> Any:
    policy.read_policy(search.best_path(output))
    return search.read_verdict(output)


def read_truth(output: Path) -> Any:
    truth = paint.read_truth(output)
    paint.existing_truth(output / "none")
    return truth["photos"], {name: answer["label"] for name, answer in truth["eval"].items()}


def read_notebook(output: Path) -> Any:
    return cells.declared_parameters(output / "03_toy.ipynb"), cells.digest(output / "03_toy.ipynb")


# By file how it is read.
READERS: dict[str, Callable[[Path], Any]] = {
    "runs/deep/config.json": read_run,
    "runs/deep/scores.json": read_run,
    "runs/deep/averaging.json": read_run,
    "runs/deep/data.json": read_run,
    "runs/soup/averaging.json": lambda output: run_folder.refuse_stale_soup(output / "runs" / "soup"),
    "inferences/deep.test.json": lambda output: run_folder.refuse_stale_prediction(output / "inferences/deep.test.csv"),
    "tables/pseudo.deep.json": lambda output: pseudo_labels.read(output, "deep", {}),
    "search/best_policy.json": read_policies,
    "search/verdict.json": read_policies,
    "truth.json": read_truth,
    "03_toy.ipynb": read_notebook,
}
each_file = pytest.mark.parametrize("name", READERS)
ODD = [10**40, -1, 0, 1e308, float("nan"), float("inf"), "", "0", "../../evil", "a b", "\ud800", "\0"]
KEYS = st.sampled_from(["0", "-1", "x", "self", "run", "fold", "path"]) | st.text(max_size=3)
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(ODD) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TEXTS = ["", "{", "[" * 100_000, '{"a": ' * 100_000, "9" * 5000, "NaN", "null", "\ufeff{}", '{"a": 1, "a": 2}', "\0"]
TEXTS += ["[[[]]]"]
BITS = ["[", "]", "{", "}", "&a", " *a", ": ", "- ", "\n", "  ", "!!int ", "!!set ", "<<: ", "? ", "0x", "7", "no", "~"]
BITS += ["'", "{{ x }}", "\t", "|", "%", "@", "1:30", "2024-13-45", "epochs: ", "runs: ", "\0", "é"]


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """The places of everything in plain data, as the keys that lead there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inside for place in places(one, (*at, key)))]


def replaced(value: Any, place: tuple, new: Any) -> Any:
    """The same data with something else in one place."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


def removed(value: Any, place: tuple) -> Any:
    """The same data without what is in one place."""
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    less = {key: one for key, one in holder.items() if key != place[-1]} if isinstance(holder, dict) else holder[1:]
    return replaced(value, place[:-1], less)


def refusal(read: Callable[[Path], Any], output: Path) -> str:
    """What the reader said when it refused; empty if it did not. Any error but ValueError and OSError goes on."""
    try:
        read(output)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


@pytest.fixture
def damaged(finished: Path):
    """Writes a file of the experiment anew; it is as it was after the test."""
    before = {name: (finished / name).read_bytes() for name in (*READERS, "toy.yml")}
    yield lambda name, content: (finished / name).write_bytes(content)
    for name, content in before.items():
        (finished / name).write_bytes(content)


@each_file
def test_sound_files_are_read(finished: Path, name: str):
    said = refusal(READERS[name], finished)
    assert not said or "is stale" in said or "not finished" in said


@each_file
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_is_no_json_or_of_another_shape_is_refused(finished: Path, damaged: Callable, name: str, text: str):
    damaged(name, text.encode())
    assert Path(name).name in refusal(READERS[name], finished) or text == "\ufeff{}"


@each_file
def test_each_value_replaced_or_left_out_is_read_or_refused_by_name(finished: Path, damaged: Callable, name: str):
    whole = json.loads((finished / name).read_text())
    news = (None, [], {}, 10**30, "x", float("nan"), True)
    changed = [replaced(whole, at, new) for at in places(whole) for new in news]
    changed += [removed(whole, at) for at in places(whole) if at]
    known = (Path(name).name, "stale", "not finished", "does not fit", "oof.", "history.csv")
    for value in changed[:: max(len(changed) // amount(30, 600), 1)]:
        damaged(name, json.dumps(value).encode())
        said = refusal(READERS[name], finished)
        assert not said or any(one in said for one in known)


@each_file
def test_a_fuzzed_file_is_read_or_refused(finished: Path, damaged: Callable, name: str):
    plain = json.loads((finished / name).read_bytes())

    @settings(max_examples=amount(25, 400), deadline=None, database=None)
    @given(data=st.data())
    def fuzzed(data: st.DataObject) -> None:
        value = plain
        for _ in range(data.draw(st.integers(1, 3))):
            value = replaced(value, data.draw(st.sampled_from(places(value))), data.draw(SHAPES))
        damaged(name, json.dumps(value).encode())
        refusal(READERS[name], finished)

    fuzzed()


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"process": 1}', "null", '{"process": [], "machine": 1, "since": {}}']
)
def test_a_lock_tells_what_its_note_tells(tmp_path: Path, note: str):
    held = tmp_path / "held"
    with files.lock(held, wait=False):
        held.with_suffix(".json").write_text(note)
        with pytest.raises(files.BusyError, match="it is trained"), files.lock(held, "it is trained", False):
            pass


def test_damaged_runs_are_unfinished_or_damaged_in_the_comparison(finished: Path, damaged: Callable):
    damaged("runs/deep/averaging.json", b'{"trained": "best", "folds": [], "scores": null}')
    found, problems = run_folder.find_runs([finished])
    assert [run.name for run in found] == ["wide"] and [Path(run).name for run in problems["run"]] == ["deep", "soup"]
    assert "averaging.json: folds" in problems["problem"][0] and "not finished" in problems["problem"][1]


def test_a_verdict_and_probabilities_of_a_named_run_tell_their_file(finished: Path, damaged: Callable):
    damaged("runs/deep/scores.json", b'{"folds": [{"fold": "one"}]}')
    with pytest.raises(ValueError, match=r"scores\.json: folds\.0\.fold"):
        probabilities.of_run(finished, "deep")
    with pytest.raises(ValueError, match=r"scores\.json: folds\.0\.fold"):
        runs.checkpoints(finished, "deep", None, {})


def test_a_fuzzed_parameter_file_is_read_or_refused_by_name(finished: Path, damaged: Callable):
    path, notebook = finished / "toy.yml", finished / "03_toy.ipynb"
    whole = path.read_text()

    @settings(max_examples=amount(100, 3000), deadline=None, database=None)
    @given(data=st.data())
    def fuzzed(data: st.DataObject) -> None:
        text = whole
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(st.sampled_from(BITS)) + text[at + data.draw(st.integers(0, 6)) :]
        damaged("toy.yml", text.encode())
        try:
            values = plain_yaml.read(path)
        except (ValueError, OSError) as error:
            assert "toy.yml" in str(error)
            return
        with contextlib.suppress(ValueError):
            parameters.planned_runs(values)
        with contextlib.suppress(ValueError):
            parameters.resolve(notebook, [path], {"run": "deep"})

    fuzzed()
