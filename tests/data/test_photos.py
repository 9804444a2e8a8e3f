"""The photo table: each thing that can be odd is planted once and must be listed as what it is."""

import functools
import io
import os

import numpy as np
import pandas as pd
import pytest
from photo_files import FRUIT, listed, noise, save
from PIL import Image

from mask_lib.base import files, labels
from mask_lib.data import layout, photos
from mask_lib.data.layout import Problem

SEVEN = ["mask1.jpg", "Mask2.JPEG", "mask3.png", "mask4.bmp", "mask5.WEBP", "incorrect_mask.jpg", "normal.jpg"]
ANN = "000001_female_Asian_45"
BOB = "000002_male_White_29"


@functools.cache
def picture(name, mode="RGB"):
    """Bytes of a small noisy picture in the format of the name's ending."""
    handle = io.BytesIO()
    kind = Image.registered_extensions()[os.path.splitext(name.lower())[1]]
    Image.fromarray(noise(0, 64, 48)).convert(mode).save(handle, kind)
    return handle.getvalue()


class Folder:
    """A data folder under construction: two sound people and two eval photos."""

    def __init__(self, root):
        self.root = root
        self.train, self.evaluation = root / "train" / "images", root / "eval" / "images"
        self.rows, self.image_ids = [], ["bb.jpg", "aa.jpg"]
        self.evaluation.mkdir(parents=True)
        self.person(ANN)
        self.person(BOB)
        for name in self.image_ids:
            (self.evaluation / name).write_bytes(picture(name))

    def person(self, folder):
        identity, gender, race, age = folder.split("_")
        self.rows.append({"id": identity, "gender": gender, "race": race, "age": age, "path": folder})
        (self.train / folder).mkdir(parents=True, exist_ok=True)
        for name in SEVEN:
            (self.train / folder / name).write_bytes(picture(name))

    def write_tables(self):
        pd.DataFrame(self.rows).to_csv(self.root / "train" / "train.csv", index=False)
        pd.DataFrame({"ImageID": self.image_ids, "ans": 0}).to_csv(self.root / "eval" / "info.csv", index=False)

    def scan(self, **options):
        self.write_tables()
        return photos.scan_photos(self.root, **options)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data")


def test_a_sound_folder_gives_every_photo_with_its_label_and_no_problem(folder):
    found, problems = folder.scan()
    assert problems.empty and list(problems) == photos.PROBLEM_COLUMNS and list(found) == layout.photo_columns()
    train, evaluation = (found[found["split"] == split] for split in ("train", "eval"))
    assert list(train["path"]) == sorted(f"{person}/{name}" for person in (ANN, BOB) for name in SEVEN)
    attributes = train.set_index("path")[["person", "mask", "gender", "age", "label"]]
    assert attributes.loc[f"{ANN}/mask3.png"].tolist() == [ANN, "worn", "female", 45, 4]
    assert attributes.loc[f"{BOB}/incorrect_mask.jpg"].tolist() == [BOB, "incorrect", "male", 29, 6]
    assert attributes.loc[f"{BOB}/normal.jpg"].tolist() == [BOB, "not_worn", "male", 29, 12]
    assert list(evaluation["path"]) == ["bb.jpg", "aa.jpg"]  # as info.csv has them
    assert (evaluation[["person", "mask", "gender"]] == "").all(axis=None)
    assert evaluation[["age", "label"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("age", "abc", "bad_age"),
        ("age", "", "bad_age"),
        ("age", "45.5", "bad_age"),
        ("age", "9" * 5000, "bad_age"),
        ("age", "121", "age_out_of_range"),
        ("age", "-1", "age_out_of_range"),
        ("gender", "other", "bad_gender"),
        ("gender", "", "bad_gender"),
    ],
)
def test_a_person_without_a_usable_age_or_gender_is_listed_and_left_out(folder, field, value, problem):
    folder.rows[0][field] = value
    found, problems = folder.scan()
    assert (ANN, problem) in listed(problems)
    assert ANN not in set(found["person"]) and BOB in set(found["person"])


def test_odd_people_are_listed_and_kept(folder):
    same_id = "000001_male_Black_61"
    folder.person(same_id)
    folder.rows[0] |= {"gender": "male", "age": "54"}
    folder.rows.append(folder.rows[0] | {"age": "20"})
    for name in ("mask3.png", "normal.jpg"):
        (folder.train / ANN / name).unlink()
    (folder.train / BOB / "mask1.png").write_bytes(picture("mask1.png"))
    found, problems = folder.scan()
    assert listed(problems) == {
        (ANN, Problem.DOUBLE_ID),
        (same_id, Problem.DOUBLE_ID),
        (ANN, Problem.FOLDER_CONTRADICTS_ROW),
        (ANN, Problem.DOUBLE_ROW),
        (ANN, Problem.INCOMPLETE_PERSON),
        (f"{BOB}/mask1.png", Problem.DOUBLED_PHOTO),
    }
    detail = problems.set_index("problem")["detail"]
    assert detail[Problem.INCOMPLETE_PERSON] == "without mask3, normal"
    assert "mask1.jpg" in detail[Problem.DOUBLED_PHOTO]
    contradiction = detail[Problem.FOLDER_CONTRADICTS_ROW]
    assert "gender" in contradiction and "54" in contradiction and "race" not in contradiction
    people = found[found["split"] == "train"].groupby(["person", "gender", "age"]).size()
    assert people.to_dict() == {(ANN, "male", 54): 5, (same_id, "male", 61): 7, (BOB, "male", 29): 8}


def test_what_a_spreadsheet_makes_of_a_table_contradicts_nothing(folder):
    folder.rows[0] |= {"id": "1", "age": "45.0", "gender": " Female "}
    folder.write_tables()
    for table in (folder.root / "train" / "train.csv", folder.root / "eval" / "info.csv"):
        table.write_text(table.read_text(encoding="utf-8"), encoding="utf-8-sig")  # with a byte order mark
    found, problems = photos.scan_photos(folder.root)
    assert problems.empty and len(found) == 16
    assert found[found["person"] == ANN][["gender", "age"]].drop_duplicates().values.tolist() == [["female", 45]]


@pytest.mark.parametrize("path", ["../secret", "/etc", "x/../../secret", "..\\secret", "C:\\secret", "", "."])
def test_a_path_that_leaves_the_images_folder_is_listed_and_never_opened(folder, path):
    outside = folder.root / "train" / "secret"
    outside.mkdir()
    (outside / "normal.jpg").write_bytes(picture("normal.jpg"))
    folder.rows.append(folder.rows[0] | {"id": "9", "path": path})
    folder.image_ids.append(f"{path}/normal.jpg" if path not in ("", ".") else path)
    found, problems = folder.scan()
    assert (problems["problem"] == Problem.UNSAFE_PATH).sum() == 2 and len(problems) == 2
    assert set(found["person"]) == {ANN, BOB, ""} and len(found) == 16


def test_junk_unknown_names_and_missing_or_unknown_folders_are_listed_and_left_out(folder):
    for name in ("._mask1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder.train / BOB / name).write_bytes(b"junk")
    (folder.train / BOB / "mask6.jpg").write_bytes(picture("mask6.jpg"))
    (folder.train / BOB / "mask1.txt").write_text("x")
    (folder.train / "notes.txt").write_text("x")
    (folder.train / ".ipynb_checkpoints").mkdir()
    (folder.train / "newcomer").mkdir()
    (folder.evaluation / "._aa.jpg").write_bytes(b"junk")
    folder.rows.append(folder.rows[0] | {"id": "9", "path": "gone"})
    found, problems = folder.scan()
    assert listed(problems) == {
        (f"{BOB}/._mask1.jpg", Problem.JUNK_FILE),
        (f"{BOB}/.DS_Store", Problem.JUNK_FILE),
        (f"{BOB}/Thumbs.db", Problem.JUNK_FILE),
        (f"{BOB}/desktop.ini", Problem.JUNK_FILE),
        (f"{BOB}/mask6.jpg", Problem.UNKNOWN_NAME),
        (f"{BOB}/mask1.txt", Problem.UNKNOWN_NAME),
        ("notes.txt", Problem.UNKNOWN_NAME),
        (".ipynb_checkpoints", Problem.JUNK_FILE),
        ("newcomer", Problem.UNKNOWN_FOLDER),
        ("._aa.jpg", Problem.JUNK_FILE),
        ("gone", Problem.MISSING_FOLDER),
    }
    assert len(found) == 16


def test_eval_photos_that_are_missing_unlisted_or_listed_twice(folder):
    folder.image_ids += ["gone.jpg", "aa.jpg"]
    (folder.evaluation / "extra.jpg").write_bytes(picture("extra.jpg"))
    found, problems = folder.scan()
    assert listed(problems) == {
        ("gone.jpg", Problem.MISSING_EVAL_PHOTO),
        ("extra.jpg", Problem.UNLISTED_EVAL_PHOTO),
        ("aa.jpg", Problem.DOUBLE_IMAGE_ID),
    }
    assert list(found[found["split"] == "eval"]["path"]) == ["bb.jpg", "aa.jpg"]
    assert layout.eval_ids(folder.root) == ["bb.jpg", "aa.jpg", "gone.jpg"]  # what a submission answers


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", Problem.EMPTY_FILE),
        (b"this is text, not a picture\n" * 10, Problem.UNREADABLE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", Problem.UNREADABLE),
        (picture("a.gif"), Problem.UNREADABLE),
        (picture("a.jpg")[:-1], Problem.TRUNCATED),
        (picture("a.png")[: len(picture("a.png")) // 2], Problem.TRUNCATED),
        (picture("a.jpg")[:12], Problem.TRUNCATED),
        (picture("a.png", mode="I;16"), Problem.ODD_MODE),
    ],
)
def test_a_damaged_photo_is_listed_and_left_out_if_photos_are_opened(folder, content, problem):
    (folder.train / ANN / "mask1.jpg").write_bytes(content)
    (folder.evaluation / "aa.jpg").write_bytes(content)
    found, problems = folder.scan()
    assert listed(problems) == {(f"{ANN}/mask1.jpg", problem), ("aa.jpg", problem)}
    assert len(found) == 14 and not found["path"].isin(problems["path"]).any()
    assert not problems["detail"].str.contains(str(folder.root), regex=False).any()


def test_a_picture_of_too_many_pixels_is_unreadable(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 3)
    problem, reason = photos.check_photo(folder.train / ANN / "mask1.jpg")
    assert problem is Problem.UNREADABLE and "decompression bomb" in reason


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("train/train.csv", b"race\nWhite\n", r"lacks the column\(s\) id, gender, age, path"),
        ("eval/info.csv", b"name,ans\na,0\n", r"lacks the column\(s\) ImageID"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_that_names_the_file(folder, table, content, message):
    folder.write_tables()
    (folder.root / table).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{table}.*{message}"):
        photos.scan_photos(folder.root)


@pytest.mark.parametrize("given", ["", "input", "input/data/train", "input/data/train/images"])
def test_the_folder_to_give_instead_is_named(tmp_path, given):
    folder = Folder(tmp_path / "input" / "data")
    with pytest.raises(FileNotFoundError, match=f"give {folder.root}$"):
        photos.scan_photos(tmp_path / given)


def test_the_data_folder_is_found_inside_the_one_given(tmp_path):
    folder = Folder(tmp_path / "a" / "input" / "data")
    for given in (tmp_path, tmp_path / "a", folder.root):
        assert photos.find_data(given, tmp_path / "unused") == folder.root
    assert not (tmp_path / "unused").exists()
    Folder(tmp_path / "b" / "input" / "data")
    with pytest.raises(ValueError, match="several data folders"):
        photos.find_data(tmp_path, tmp_path / "unused")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "data.rar").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"neither a folder nor one of \.zip"):
        photos.find_data(tmp_path / "data.rar", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no .*gone\.zip"):
        photos.find_data(tmp_path / "gone.zip", tmp_path)


@pytest.mark.parametrize(
    "name",
    ["plain", "comma, quote\" and 'other'", "<b onclick=x>&amp;", "사람 ñ 🙂", "NA", " x "],
)
def test_strange_names_survive_the_csv(folder, name, tmp_path):
    (folder.train / ANN).rename(folder.train / name)
    folder.rows[0]["path"] = name
    (folder.train / "stray").mkdir()
    (folder.train / "stray").rename(folder.train / f"{name}2")
    found, problems = folder.scan()
    assert name in set(found["person"]) and list(problems["path"]) == [f"{name}2"]
    back = photos.read_photos(files.write_csv(found, tmp_path / "photos.csv"))
    pd.testing.assert_frame_equal(back, found)
    files.write_csv(problems, tmp_path / "problems.csv")
    again = pd.read_csv(tmp_path / "problems.csv", dtype="str", keep_default_na=False)
    pd.testing.assert_frame_equal(again, problems)


def test_a_file_name_that_is_not_utf8_can_still_be_written(folder, tmp_path):
    os.close(os.open(os.fsencode(folder.train / ANN) + b"/\xff.jpg", os.O_CREAT))
    _, problems = folder.scan()
    files.write_csv(problems, tmp_path / "problems.csv")
    assert list(problems["path"]) == [f"{ANN}/\\udcff.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "split"),
        ({"label": "18"}, "labels are 0-17"),
        ({"label": "-1"}, "labels are 0-17"),
        ({"age": "4.5"}, "not a whole number"),
    ],
)
def test_a_photo_table_with_an_impossible_value_is_refused(folder, tmp_path, change, message):
    found, _ = folder.scan()
    files.write_csv(found.assign(**change), tmp_path / "photos.csv")
    with pytest.raises(ValueError, match=rf"photos\.csv.*{message}"):
        photos.read_photos(tmp_path / "photos.csv")


def test_a_photo_table_of_another_task_comes_back_from_its_file(tmp_path):
    with labels.using(FRUIT):
        rows = [("a/1.jpg", "a", "sour_cherry", 99, 2, "train"), ("2.jpg", "", "", pd.NA, pd.NA, "eval")]
        table = layout.photo_table(rows)
        assert list(table) == ["path", "person", "fruit", "weight", "label", "split"]
        files.write_csv(table, tmp_path / "tables" / "photos.csv")
        pd.testing.assert_frame_equal(photos.read_photos(tmp_path / "tables" / "photos.csv"), table)
        assert photos.read_labeled(tmp_path)["label"].tolist() == [2]
        files.write_csv(table.assign(label=4), tmp_path / "tables" / "photos.csv")
        with pytest.raises(ValueError, match="labels are 0-3"):
            photos.read_labeled(tmp_path)
    with pytest.raises(ValueError, match=r"another task \(fruit, weight\) than the one at hand \(mask, gender, age\)"):
        photos.read_labeled(tmp_path)


def test_scanning_changes_nothing_in_the_data_folder(folder):
    folder.write_tables()
    (folder.train / ANN / "mask1.jpg").write_bytes(b"")
    before = {path: photos.file_state(path) for path in folder.root.rglob("*.*")}
    photos.scan_photos(folder.root)
    assert {path: photos.file_state(path) for path in folder.root.rglob("*.*")} == before


def test_labeled_photos_are_the_train_rows_with_plain_whole_labels(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"photos\.csv: run 00_prepare_data first"):
        photos.read_labeled(tmp_path)
    found = folder.scan()[0][::-1]
    files.write_csv(found, tmp_path / "tables" / "photos.csv")
    train = found[found["split"] == "train"].reset_index(drop=True).astype({"label": "int64"})
    pd.testing.assert_frame_equal(photos.read_labeled(tmp_path), train)


@pytest.mark.parametrize(
    ("mode", "size", "turn", "side", "shape"),
    [
        ("RGB", (384, 512), 1, 192, (192, 144, 3)),
        ("RGB", (512, 384), 1, 64, (48, 64, 3)),
        ("RGB", (30, 40), 1, 192, (40, 30, 3)),
        ("RGB", (80, 40), 6, 192, (80, 40, 3)),
        *((mode, (60, 80), 1, 192, (80, 60, 3)) for mode in ("L", "P", "RGBA", "CMYK", "1")),
    ],
)
def test_a_thumbnail_is_upright_never_enlarged_and_of_three_channels(folder, mode, size, turn, side, shape):
    row = pd.DataFrame({"path": [f"{ANN}/{'mask1.jpg' if mode in ('RGB', 'CMYK') else 'mask3.png'}"], "split": "train"})
    save(Image.new("RGB", size, "white").convert(mode), folder.train / row["path"][0], turn)
    (thumbnail,) = photos.thumbnails(folder.root, row, side)
    assert thumbnail.shape == shape and thumbnail.dtype == np.uint8
    assert thumbnail.min() > 250


def test_thumbnails_come_in_the_order_of_the_rows_from_both_splits(folder):
    colours = {"aa.jpg": (220, 30, 30), f"{BOB}/normal.jpg": (30, 120, 30), f"{ANN}/mask1.jpg": (30, 30, 40)}
    rows = pd.DataFrame({"path": [*colours], "split": ["eval", "train", "train"]})
    for path, colour in zip(photos.files_of(folder.root, rows), colours.values(), strict=True):
        save(Image.new("RGB", (60, 80), colour), path)
    for thumbnail, colour in zip(photos.thumbnails(folder.root, rows), colours.values(), strict=True):
        assert np.abs(thumbnail.mean(axis=(0, 1)) - colour).max() < 5
