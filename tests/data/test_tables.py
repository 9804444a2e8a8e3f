"""Photos listed in a CSV or lying in folders named by class: each thing that can be odd is planted once and listed."""

from pathlib import Path

import pytest
from photo_files import noise, save

from mask_lib.base import labels, tasks
from mask_lib.data import layout, photos
from mask_lib.data.layout import Problem

HELMET = labels.Attribute("helmet", ("yes", "not worn"), "hk")
VEST = labels.Attribute("vest", ("none", "orange"), "bo", of_person=True)
YEARS = labels.Attribute("years", ("<30", "30+"), "", of_person=True, edges=(30,), limits=(0, 99))
HEAD = "path,group,helmet,vest,years"
ROWS = ["a/1.png,a,yes,none,20", "a/2.png,a,not_worn,none,20", "b.png,,Not Worn,orange,30"]


def written(root: Path, rows: list[str], head: str = HEAD, evaluated: tuple[str, ...] = ("y.png", "x.png")) -> Path:
    """A data folder with a CSV of these rows, the three photos of `ROWS`, and photos to answer."""
    for number, path in enumerate(["train/images/a/1.png", "train/images/a/2.png", "train/images/b.png"]):
        save(noise(number), root / path)
    for number, name in enumerate(evaluated):
        save(noise(9 + number), root / "eval" / "images" / name)
    (root / "train" / "labels.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return root


@pytest.fixture
def csv_task():
    with labels.using(tasks.Task((HELMET, VEST, YEARS), tasks.Photos(layout="csv"))):
        yield


def test_a_csv_gives_every_photo_with_its_group_and_label(tmp_path, csv_task):
    found, problems = photos.scan_photos(photos.find_data(written(tmp_path, ROWS), tmp_path))
    assert problems.empty and list(found) == ["path", "person", "helmet", "vest", "years", "label", "split"]
    told = found[["person", "helmet", "vest", "years", "label"]]
    assert told.loc[0].tolist() == ["a", "yes", "none", 20, 0]
    assert told.loc[2].tolist() == ["b.png", "not_worn", "orange", 30, 7]  # without a group it is one of its own
    assert found.loc[3:, "path"].tolist() == ["x.png", "y.png"] == layout.eval_ids(tmp_path)  # in sorted order
    assert found.loc[3:, "label"].isna().all() and set(found["split"][3:]) == {"eval"}


def test_a_list_of_what_is_asked_counts_where_there_is_one(tmp_path, csv_task):
    written(tmp_path, ROWS, evaluated=("x.png", "y.png", "z.png"))
    (tmp_path / "eval" / "images" / ".DS_Store").touch()
    (tmp_path / "eval" / "info.csv").write_text("ImageID\nz.png\nx.png\nno.png\n../b.png\n")
    found, problems = photos.scan_photos(tmp_path)
    assert found.loc[3:, "path"].tolist() == ["z.png", "x.png"]
    assert layout.eval_ids(tmp_path) == ["z.png", "x.png", "no.png", "../b.png"]
    kinds = dict(zip(problems["path"], problems["problem"], strict=True))
    assert kinds == {
        "no.png": Problem.MISSING_EVAL_PHOTO,
        "../b.png": Problem.UNSAFE_PATH,
        "y.png": Problem.UNLISTED_EVAL_PHOTO,
        ".DS_Store": Problem.JUNK_FILE,
    }


@pytest.mark.parametrize(
    ("row", "path", "problem", "detail"),
    [
        (
            "b.png,,yas,none,30",
            "b.png",
            "bad_helmet",
            "'yas' is no helmet: write one of yes, not_worn; did you mean",
        ),
        ("b.png,,yes,none,old", "b.png", "bad_years", "years 'old' is not a whole number"),
        ("b.png,,yes,none,100", "b.png", "years_out_of_range", "years = 100: it must be from 0 to 99"),
        ("b.png,,yes,,30", "b.png", "bad_vest", "'' is no vest: write one of none, orange"),
        ("a/1.png,a,yes,none,20", "a/1.png", Problem.DOUBLE_ROW, "this name again; the first row counts"),
        ("../b.png,,yes,none,30", "../b.png", Problem.UNSAFE_PATH, "no plain name"),
        ("B.png,,yes,none,30", "B.png", Problem.MISSING_PHOTO, "near is 'b.png', which differs in case"),
        ("c.png,,yes,none,30", "c.png", Problem.MISSING_PHOTO, "labels.csv names it, the folder of photos lacks it"),
        ("b.png,a,yes,none,30", "a", Problem.GROUP_CONTRADICTS, "years is 20 and 30 on photos of this group"),
        ("b.png,a,yes,orange,20", "a", Problem.GROUP_CONTRADICTS, "vest is none and orange on photos of this group"),
    ],
)
def test_what_is_odd_in_a_csv_is_listed_by_name(tmp_path, csv_task, row, path, problem, detail):
    found, problems = photos.scan_photos(written(tmp_path, [*ROWS[:2], row]))
    (listed,) = problems[problems["problem"] == str(problem)].itertuples()
    assert listed.path == path and detail in listed.detail
    kept = problem == Problem.GROUP_CONTRADICTS
    assert (found["split"] == "train").sum() == 2 + kept
    unlisted = problems["path"][problems["problem"] == Problem.UNLISTED_PHOTO].tolist()
    assert unlisted == ([] if row.startswith("b.png") else ["b.png"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda root: (root / "train" / "labels.csv").write_text("path,helmet\na,yes"),
            r"lacks the column\(s\) vest",
        ),
        (lambda root: (root / "train" / "labels.csv").write_text(HEAD), "has no rows"),
        (lambda root: (root / "train" / "labels.csv").rename(root / "train" / "Labels.csv"), "near is 'Labels.csv'"),
        (lambda root: (root / "eval").rename(root / "test"), "lacks eval: give the folder that holds train/labels.csv"),
        (lambda root: (root / "train" / "labels.csv").write_text(HEAD + "\nc,,yes,none,1"), "holds no usable photo"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path, csv_task, broken, message):
    broken(written(tmp_path, ROWS))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        photos.scan_photos(photos.find_data(tmp_path, tmp_path))


def test_folders_named_by_class(tmp_path):
    places = tasks.Photos(layout="folders", train="learn", eval="ask/new", separator="-")
    paths = [
        "yes-none/1.png",
        "Not Worn-orange/deep/2.png",
        "no-none/3.png",
        "4.png",
        "yes-none/._5.png",
        "yes-none/6.txt",
    ]
    for number, path in enumerate([*(f"learn/{one}" for one in paths), "ask/new/b/1.png", "ask/new/2.txt"]):
        save(noise(number), tmp_path / path) if path.endswith("png") else (tmp_path / path).write_text("a note")
    with labels.using(tasks.Task((HELMET, VEST), places)):
        found, problems = photos.scan_photos(photos.find_data(tmp_path, tmp_path))
        assert photos.files_of(tmp_path, found)[0] == tmp_path / "learn" / "Not Worn-orange" / "deep" / "2.png"
    rows = found[["path", "person", "helmet", "vest", "label", "split"]].astype(object).to_numpy().tolist()
    assert rows[:2] == [
        ["Not Worn-orange/deep/2.png", "Not Worn-orange/deep/2.png", "not_worn", "orange", 3, "train"],
        ["yes-none/1.png", "yes-none/1.png", "yes", "none", 0, "train"],
    ]
    assert found["path"][2:].tolist() == ["b/1.png"]
    listed = {row.path: (row.problem, row.detail) for row in problems.itertuples()}
    assert listed.pop("no-none/3.png") == (
        Problem.UNKNOWN_CLASS, "the folder 'no-none' is no class; did you mean not_worn-none or yes-none?",
    )  # fmt: skip
    assert listed.pop("4.png")[1].startswith("in no class's folder; there are yes-none, yes-orange, not_worn-none")
    assert {path: problem for path, (problem, _) in listed.items()} == {
        "yes-none/._5.png": Problem.JUNK_FILE,
        "yes-none/6.txt": Problem.UNKNOWN_NAME,
        "2.txt": Problem.UNLISTED_EVAL_PHOTO,
    }


def test_the_competition_tells_its_own_attributes_alone(tmp_path):
    with labels.using(tasks.Task((VEST,))), pytest.raises(ValueError, match="tells mask, gender and age, not vest"):
        layout.scan_train(tmp_path)
