"""Names that tables and files write differently, folders that are links, and data of which nothing can be used."""

import unicodedata
from pathlib import Path

import kernelless
import numpy as np
import pandas as pd
import pytest
from data_folders import ANN, BOB, SEVEN, noise, sound_folder, write_rows
from photo_files import save
from tiny_project import CHECKOUT

from mask_lib.base import files, labels
from mask_lib.data import external, layout, photos, rgby
from mask_lib.data.layout import Problem
from mask_lib.ensemble import inference
from mask_lib.headless import cells
from mask_lib.plots import style
from mask_lib.training import comparison

NFC = unicodedata.normalize("NFC", "사진 é 1.jpg")
# What info.csv or train.csv writes, what the disk holds, and what the difference is called.
WRITTEN = {
    "case": ("IMG_01.jpg", "img_01.jpg", ["case"]),
    "case of the ending": ("a1.JPG", "a1.jpg", ["case"]),
    "another ending": ("a1.jpeg", "a1.jpg", ["ending"]),
    "no ending": ("a1", "a1.jpg", ["ending"]),
    "two endings": ("a1.jpg", "a1.jpg.png", ["ending"]),
    "NFD, as macOS writes": (NFC, unicodedata.normalize("NFD", NFC), ["Unicode form"]),
    "full width": ("\uff21\uff11.jpg", "A1.jpg", ["Unicode form"]),
    "a blank at the end": ("a1.jpg ", "a1.jpg", ["blanks"]),
    "a blank that cannot be seen": ("\u200ba1.jpg", "a1.jpg", ["blanks"]),
    "no-break space": ("a\u00a01.jpg", "a 1.jpg", ["Unicode form"]),
    "backslash": ("part\\a1.jpg", "part/a1.jpg", ["separators"]),
    "slash for underscore": ("part/a1.jpg", "part_a1.jpg", ["separators"]),
    "hyphen for underscore": ("a-1.jpg", "a_1.jpg", ["separators"]),
    "leading zeros": ("1.jpg", "0001.jpg", ["leading zeros"]),
    "case and separators": ("A 1.jpg", "a_1.jpg", ["case", "blanks", "separators"]),
}


def details(problems: pd.DataFrame, problem: Problem) -> dict[str, str]:
    rows = problems[problems["problem"] == problem]
    return dict(zip(rows["path"], rows["detail"], strict=True))


@pytest.mark.parametrize("case", WRITTEN)
def test_a_photo_under_another_name_is_near_and_told_how(tmp_path, case):
    written, on_disk, kinds = WRITTEN[case]
    data = sound_folder(tmp_path, image_ids=("x.png", "y.png", on_disk))
    write_rows(data, image_ids=("x.png", written, "y.png"))
    found, problems = photos.scan_photos(data)
    assert list(found["path"][found["split"] == "eval"]) == ["x.png", "y.png"]
    (detail,) = details(problems, Problem.MISSING_EVAL_PHOTO).values()
    assert detail.endswith(f"; near is {on_disk!r}, which differs in {' and '.join(kinds)}")


@pytest.mark.parametrize(
    ("on_disk", "kind"),
    [(ANN.upper(), "case"), (ANN.replace("_", "-"), "separators"), (f"{ANN} ", "blanks"), (ANN[4:], "leading zeros")],
)
def test_a_person_under_another_name_is_near_and_told_how(tmp_path, on_disk, kind):
    data = sound_folder(tmp_path)
    (data / "train" / "images" / ANN).rename(data / "train" / "images" / on_disk)
    _, problems = photos.scan_photos(data)
    detail = details(problems, Problem.MISSING_FOLDER)[ANN]
    assert detail.endswith(f"; near is {on_disk!r}, which differs in {kind}")


def test_a_photo_that_is_just_not_there_is_near_nothing(tmp_path):
    data = sound_folder(tmp_path)
    write_rows(data, image_ids=("a.png", "b.png", "unlike.png"))
    assert "near" not in details(photos.scan_photos(data)[1], Problem.MISSING_EVAL_PHOTO)["unlike.png"]


@pytest.mark.parametrize("part", ["train", "eval"])
def test_most_missing_stops_once_the_problems_are_written(tmp_path, part):
    people = (ANN, BOB, "000003_male_Asian_61")
    data = sound_folder(tmp_path / "data", people, ("a.png", "b.png", "c.png"))
    if part == "train":
        for person in people[:2]:
            (data / "train" / "images" / person).rename(data / "train" / "images" / person.replace("_", " "))
    else:
        write_rows(data, people, ("A.png", "B.png", "c.png"))
    said = rf"{part} lacks .*missing_\w+: 2.*near is .*all are listed in .*problems\.csv"
    with pytest.raises(ValueError, match=said):
        photos.scan_photos(data, listed_in=tmp_path / "problems.csv")
    assert pd.read_csv(tmp_path / "problems.csv")["problem"].str.startswith("missing_").sum() == 2


def no_train(data: Path) -> None:
    write_rows(data, ("000001_female_Asian_old", "000009_male_White_40"))
    (data / "train" / "images" / ANN).rename(data / "train" / "images" / "000001_female_Asian_old")


def no_eval(data: Path) -> None:
    (data / "eval" / "images" / "a.png").write_bytes(b"")
    (data / "eval" / "images" / "b.png").write_bytes(b"<html>")


NOTHING = {
    "train": (no_train, ["bad_age: 1", "missing_folder: 1", "'old'", "000009_male_White_40"]),
    "eval": (no_eval, ["empty_file: 1", "unreadable: 1", "'a.png': 0 bytes", "'b.png': not a JPEG"]),
    "eval, no file at all": (lambda data: [one.unlink() for one in (data / "eval" / "images").iterdir()], ["'a.png'"]),
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_usable_is_an_error_with_an_example_of_each_kind(tmp_path, case):
    spoil, words = NOTHING[case]
    data = sound_folder(tmp_path / "data")
    spoil(data)
    with pytest.raises(ValueError, match="holds no usable photo") as caught:
        photos.scan_photos(data, listed_in=tmp_path / "problems.csv")
    assert not [word for word in words if word not in str(caught.value)]
    assert len(pd.read_csv(tmp_path / "problems.csv")) >= 2


def test_the_first_notebook_leaves_its_problems_when_it_stops(tmp_path, shell):
    data = sound_folder(tmp_path / "data")
    no_eval(data)
    space = {"external": external, "photos": photos, "files": files, "pd": pd, "data": data, "output": tmp_path}
    with pytest.raises(ValueError, match="eval holds no usable photo"):
        kernelless.run_cells(shell, "00_prepare_data", ["scan"], **space, use_external=False, external_sources=[])
    assert len(pd.read_csv(tmp_path / "tables" / "problems.csv")) == 2


def test_external_photos_of_which_none_can_be_used_are_told_by_example(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,99\nb.png,\n")
    with pytest.raises(ValueError, match=r"bad_label: 1.*'.*a\.png': label '99'.*'.*b\.png': without mask"):
        external.scan([tmp_path / "list.csv"], sound_folder(tmp_path / "data"), layout.photo_table([]))


def prepared(root: Path, known: int, all_: int) -> tuple[Path, Path]:
    """A data folder whose info.csv lists `all_` photos, and an output folder whose photo table has `known` of them."""
    ids = [f"{number}.png" for number in range(all_)]
    write_rows(root / "data", image_ids=ids)
    table = layout.photo_table([(one, "", "", "", pd.NA, pd.NA, "eval") for one in ids[:known]])
    files.write_csv(table, root / "output" / "tables" / "photos.csv")
    return root / "data", root / "output"


def test_without_any_photo_to_predict_the_reader_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match=r"photos\.csv holds no eval photo.*run 00_prepare_data"):
        photos.read_evaluated(prepared(tmp_path, 0, 3)[1])


def test_answers_without_a_photo_are_counted_and_said(tmp_path, shell):
    data, output = prepared(tmp_path, 5, 7)
    columns = ["ImageID", *labels.probability_columns()]
    table = pd.DataFrame([(f"{number}.png", *np.full(18, 1 / 18)) for number in range(7)], columns=columns)
    shown = []
    space = {"display": shown.append, "data": data, "output": output, "first": "deep", "chosen": ["deep"]}
    space |= {"tta": inference.Tta(), "predictions": {"deep": {"test": table}}, "tables": {"deep": table[:5]}}
    space |= {"photos": photos, "inference": inference, "files": files, "style": style}
    space |= {"comparison": comparison, "looks": comparison.look_table({})}
    kernelless.run_cells(shell, "06_inference", ["answer"], **space)
    assert "5 of test photos predicted" in shown[0].data
    assert "Without a photo that could be read are 2 answers, such as `5.png`: they are the mean" in shown[0].data
    assert "nothing is promised for them" in shown[0].data


def test_the_promised_score_is_for_answers_with_a_photo(tmp_path):
    missing = photos.without_photo(*prepared(tmp_path, 5, 7))
    assert missing == ["5.png", "6.png"] and inference.blind_summary([]) == ""
    assert photos.without_photo(*prepared(tmp_path / "elsewhere", 0, 7)) == []  # files of another program alone
    code = "\n".join(cell["source"] for cell in cells.read(CHECKOUT / "notebooks" / "07_ensemble.ipynb"))
    assert "len(ids) - len(missing)" in code and "blind_summary(missing)" in code


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JFIF", "Jpe"])
def test_the_other_endings_of_jpeg_are_read(tmp_path, ending):
    data = sound_folder(tmp_path / "data")
    for place, name in enumerate(SEVEN):
        old = data / "train" / "images" / ANN / name
        save(noise(place), old.with_suffix(".jpg")).rename(old.with_suffix(f".{ending}"))
        old.unlink()
    found, problems = photos.scan_photos(data)
    assert problems.empty and (found["person"] == ANN).sum() == 7
    for colour in rgby.COLOURS:
        save(noise(0)[..., 0], tmp_path / "in" / f"a_{colour}.jpg").rename(tmp_path / "in" / f"a_{colour}.{ending}")
    assert rgby.combine(tmp_path / "in", tmp_path / "out", workers=1).made == 1


def test_a_photo_of_an_ending_that_is_not_read_is_told_which_are(tmp_path):
    data = sound_folder(tmp_path)
    (data / "train" / "images" / ANN / "normal.heic").write_bytes(b"x")
    detail = details(photos.scan_photos(data)[1], Problem.UNKNOWN_NAME)[f"{ANN}/normal.heic"]
    assert "normal" in detail and ".jfif" in detail and ".png" in detail


def link(at: Path, target: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target, target_is_directory=True)


def test_a_linked_folder_of_photos_is_followed_and_no_loop_is(tmp_path):
    data, elsewhere = sound_folder(tmp_path / "data"), tmp_path / "disk2" / "part"
    images = data / "eval" / "images"
    save(noise(1), elsewhere / "deep" / "c.png")
    save(noise(2), tmp_path / "disk2" / "private.png")
    save(noise(3), tmp_path / "other" / "private.png")
    link(images / "part", elsewhere)
    link(images / "loop", images)
    link(images / "up", tmp_path)
    link(images / "gone", tmp_path / "nowhere")
    link(elsewhere / "deep" / "back", elsewhere)
    link(elsewhere / "up", tmp_path / "disk2")
    link(elsewhere / "other", tmp_path / "other")
    write_rows(data, image_ids=("a.png", "b.png", "part/deep/c.png"))
    found, problems = photos.scan_photos(data)
    assert list(found["path"][found["split"] == "eval"]) == ["a.png", "b.png", "part/deep/c.png"]
    assert set(problems["path"]) <= {"gone"}  # a link to nothing is a file that info.csv lacks


def test_people_who_are_links_are_followed(tmp_path):
    data = sound_folder(tmp_path / "data")
    person = (data / "train" / "images" / ANN).rename(tmp_path / "ann")
    link(data / "train" / "images" / ANN, person)
    link(person / "loop", person)
    found, problems = photos.scan_photos(data)
    assert (found["person"] == ANN).sum() == 7 and set(problems["path"]) == {f"{ANN}/loop"}


def test_links_that_fork_and_meet_take_no_time(tmp_path):
    data = sound_folder(tmp_path / "data")
    for level in range(14):
        for name in "ab":
            link(data / "eval" / "images" / f"d{level}" / name, data / "eval" / "images" / f"d{level + 1}")
    (data / "eval" / "images" / "d14").mkdir()
    assert photos.scan_photos(data)[1].empty
