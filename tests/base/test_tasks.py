"""A task's file is read as it is meant, or refused with file, field, value and remedy."""

import re

import pytest

from mask_lib.base import files, labels, tasks

ONE = "attributes: [{name: a, values: [x, y]}]\n"


def test_the_masks_are_the_task_unless_another_is_named():
    assert labels.schema() == tasks_schema("tasks/mask.yml")
    assert labels.schema()[:2] == [["mask", "worn", "incorrect", "not_worn"], ["gender of a person", "male", "female"]]
    assert labels.task().photos.required() == ["train/train.csv", "train/images", "eval/info.csv", "eval/images"]
    labels.use("tasks/helmet.yml")
    assert (labels.names(), labels.names(of_person=True)) == (("helmet", "vest"), ("vest",))
    assert [labels.describe(label) for label in (0, 5)] == ["yes none", "no yellow"]
    assert labels.task().photos.required() == ["train/labels.csv", "train/images", "eval/images"]
    assert labels.task().folder_names()[:2] == ["yes_none", "yes_orange"]


def tasks_schema(path: str) -> list[list[str]]:
    with labels.using(tasks.read(path)):
        return labels.schema()


def test_a_number_is_cut_at_its_edges(tmp_path):
    path = tmp_path / "task.yml"
    path.write_text("attributes: [{name: years, edges: [18, 65], limits: [0, 120], keys: abc, of: person}]")
    (years,) = tasks.read(path).attributes
    assert years.words == ("<18", "18-64", "65+") and years.of_person and years.limits == (0, 120)
    assert [years.value_of(one) for one in (17, 18, 64, 65)] == [0, 1, 1, 2]


def test_a_task_of_the_project_goes_before_one_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    assert tasks.find("tasks/mask.yml") == tasks.CHECKOUT / "tasks" / "mask.yml"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mask.yml").write_text(ONE)
    assert tasks_schema("tasks/mask.yml") == [["a", "x", "y"]]
    with pytest.raises(FileNotFoundError, match=r"no file tasks/helmt\.yml; did you mean tasks/helmet\.yml"):
        tasks.read("tasks/helmt.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "attributes need names and keys of their own"),
        ("attributs: []", "there is no setting 'attributs'; did you mean attributes?"),
        ("attributes: 3", "attributes = 3 is a whole number, not a list"),
        ("attributes: [3]", "attributes[0] = 3 is a whole number, not a mapping"),
        ("attributes: [{name: a, name: b}]", "name is set twice"),
        ("attributes: [{name: Hat, values: [a, b]}]", "attributes[0]: name = 'Hat': it must be a word of a-z"),
        ("attributes: [{name: path, values: [a, b]}]", "name = 'path': it must be a word of a-z, 0-9 and _, but"),
        ("attributes: [{name: a, values: [yes, no]}]", "attributes[0]: values[0] = True is true or false, not text"),
        ("attributes: [{name: a, values: [1, 2]}]", "values[0] = 1 is a whole number, not text: put it in quotes, '1'"),
        ("attributes: [{name: a, values: [x]}]", "values = ['x']: it must be two words or more"),
        ("attributes: [{name: a, values: [x, X]}]", "no two of them alike"),
        ("attributes: [{name: a, values: [x/y, z]}]", "two words or more of letters, digits, blanks"),
        ("attributes: [{name: a, valus: [x, y]}]", "there is no setting 'valus'; did you mean values?"),
        ("attributes: [{name: a, values: [x, y], keys: abc}]", "keys = 'abc': it must be 2 letters other than r and z"),
        ("attributes: [{name: a, values: [x, y], keys: a1}]", "keys = 'a1': it must be 2 letters other than r and z"),
        ("attributes: [{name: a, values: [x, y], of: persn}]", "one of photo, person; did you mean person?"),
        ("attributes: [{name: a, edges: [3]}]", "edges = [3]: it must be rising, and within limits = [0, 0]"),
        ("attributes: [{name: a, edges: [3, 2], limits: [0, 9]}]", "edges = [3, 2]: it must be rising, and within"),
        ("attributes: [{name: a, edges: [3], values: [x, y], limits: [0, 9]}]", "words, or left out where there are"),
        ("attributes: [{name: a, values: [x, y]}, {name: a, values: [x, y]}]", "names and keys of their own: a, a"),
        ("attributes: [{name: a, values: [x, y], keys: ab}, {name: b, values: [x, y], keys: bc}]", "own: a, b; abbc"),
        (ONE + "photos: {layout: cvs}", "layout = 'cvs': it must be one of competition, csv, folders; did you mean"),
        (ONE + "photos: {layout: csv, train: ../x}", "train = '../x': it must be a path below the data folder"),
        (ONE + "photos: {layout: csv, train: /x}", "train = '/x': it must be a path below the data folder"),
        (ONE + "photos: {layout: csv, train: x, eval: x/y}", "another folder than train (x), none inside the other"),
        (ONE + "photos: {train: x}", "layout = 'competition': it must be csv or folders where places are given"),
        (ONE + "photos: {layout: folders, separator: /}", "separator = '/': it must be one to three of"),
        ("attributes: [{name: a, edges: [3], limits: [0, 5]}]\nphotos: {layout: folders}", "a is a number: give words"),
        (
            "attributes: [{name: a, values: [x, x y]}, {name: b, values: [y z, z]}]\nphotos: {layout: folders}",
            "two classes have one: change separator",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "task.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        tasks.read(path)
    assert str(path) in str(refused.value)


def test_results_of_another_task_are_refused_and_those_of_none_pass():
    noted = labels.schema()
    labels.refuse_other(noted, "these weights are")
    labels.use("tasks/helmet.yml")
    labels.refuse_other(None, "these weights are")
    with pytest.raises(ValueError, match=r"are of another task \(mask: worn, .* \(helmet: yes, no; vest of a"):
        labels.refuse_other(noted, "these weights are")
