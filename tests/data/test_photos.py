"""The photo table: each thing that can be odd is planted once and must be listed as what it is."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mask_lib.base import files, labels
from mask_lib.data import layout, photos
from mask_lib.data.layout import Problem

SEVEN = ["mask1.jpg", "mask2.jpeg", "mask3.png", "mask4.jpg", "mask5.jpg", "incorrect_mask.jpg", "normal.jpg"]
ANN = "000001_female_Asian_45"
BOB = "000002_male_White_29"


def picture(name, mode="RGB"):
    """Bytes of a small noisy picture in the format of the name's ending."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    with io.BytesIO() as handle:
        kind = {".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF"}.get(
            os.path.splitext(name.lower())[1], "JPEG"
        )
        Image.fromarray(noise).convert(mode).save(handle, kind)
        return handle.getvalue()


class Folder:
    """A data folder under construction: two sound people and two eval photos."""

    def __init__(self, root):
        self.root = root
        self.train, self.evaluation = root / "train" / "images", root / "eval" / "images"
        self.rows, self.image_ids = [], []
        self.evaluation.mkdir(parents=True)
        self.person(ANN)
        self.person(BOB)
        for name in ("bb.jpg", "aa.jpg"):
            self.image_ids.append(name)
            (self.evaluation / name).write_bytes(picture(name))

    def person(self, folder, row=None, names=SEVEN):
        identity, gender, race, age = folder.split("_")
        self.rows.append({"id": identity, "gender": gender, "race": race, "age": age, "path": folder} | (row or {}))
        (self.train / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.train / folder / name).write_bytes(picture(name))

    def write_tables(self):
        pd.DataFrame(self.rows).to_csv(self.root / "train" / "train.csv", index=False)
        pd.DataFrame({"ImageID": self.image_ids, "ans": 0}).to_csv(self.root / "eval" / "info.csv", index=False)

    def scan(self, **options):
        self.write_tables()
        return photos.scan_photos(self.root, **options)

    def problems(self, **options):
        """{(path, problem)} of a scan."""
        _, problems = self.scan(**options)
        return set(zip(problems["path"], problems["problem"], strict=True))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data")


def test_sizes_are_those_of_the_files(folder):
    table, _ = folder.scan()
    Image.new("RGB", (30, 20)).save(folder.train / table["path"][3])
    sizes = photos.sizes(folder.root, table)
    assert sizes.shape == (16, 2) and sizes[3].tolist() == [30, 20] and sizes[0].tolist() == [48, 64]


def test_a_sound_folder_gives_every_photo_with_its_label_and_no_problem(folder):
    found, problems = folder.scan()
    assert problems.empty and list(problems) == photos.PROBLEM_COLUMNS and list(found) == layout.photo_columns()
    train = found[found["split"] == "train"]
    assert list(train["path"]) == sorted(f"{person}/{name}" for person in (ANN, BOB) for name in SEVEN)
    attributes = train.set_index("path")[["person", "mask", "gender", "age", "label"]]
    assert attributes.loc[f"{ANN}/mask3.png"].tolist() == [ANN, "worn", "female", 45, 4]
    assert attributes.loc[f"{BOB}/incorrect_mask.jpg"].tolist() == [BOB, "incorrect", "male", 29, 6]
    assert attributes.loc[f"{BOB}/normal.jpg"].tolist() == [BOB, "not_worn", "male", 29, 12]


def test_eval_photos_keep_the_order_of_info_csv_and_have_no_attributes(folder):
    found, _ = folder.scan()
    evaluation = found[found["split"] == "eval"]
    assert list(evaluation["path"]) == ["bb.jpg", "aa.jpg"]
    assert (evaluation[["person", "mask", "gender"]] == "").all(axis=None)
    assert evaluation[["age", "label"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("age", "group"), [("0", 0), ("29", 0), ("30", 1), ("59", 1), ("60", 2), ("60.0", 2), (" 120 ", 2)]
)
def test_the_label_follows_the_edges_of_the_age_groups(folder, age, group):
    folder.rows[0]["age"] = age
    found, _ = folder.scan(verify=False)
    normal = found.set_index("path").loc[f"{ANN}/normal.jpg"]
    assert normal["label"] == labels.encode(labels.Mask.NOT_WORN, labels.Gender.FEMALE, group)
    assert normal["age"] == int(float(age))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("age", "abc", Problem.BAD_AGE),
        ("age", "", Problem.BAD_AGE),
        ("age", "45.5", Problem.BAD_AGE),
        ("age", "nan", Problem.BAD_AGE),
        ("age", "9" * 5000, Problem.BAD_AGE),
        ("age", "212", Problem.AGE_OUT_OF_RANGE),
        ("age", "121", Problem.AGE_OUT_OF_RANGE),
        ("age", "-1", Problem.AGE_OUT_OF_RANGE),
        ("gender", "other", Problem.BAD_GENDER),
        ("gender", "", Problem.BAD_GENDER),
    ],
)
def test_a_person_without_a_usable_age_or_gender_is_listed_and_left_out(folder, field, value, problem):
    folder.rows[0][field] = value
    found, problems = folder.scan(verify=False)
    assert (ANN, problem) in set(zip(problems["path"], problems["problem"], strict=True))
    assert ANN not in set(found["person"]) and BOB in set(found["person"])


def test_gender_is_read_whatever_its_case_and_the_blanks_around_it(folder):
    folder.rows[0]["gender"] = " Female "
    found, problems = folder.scan(verify=False)
    assert problems.empty
    assert set(found[found["person"] == ANN]["gender"]) == {"female"}


def test_people_who_share_an_id_stay_two_people_and_are_listed(folder):
    other = "000001_male_Black_61"
    folder.person(other)
    found, problems = folder.scan(verify=False)
    assert set(problems[problems["problem"] == Problem.DOUBLE_ID]["path"]) == {ANN, other}
    persons = found.groupby("person")
    assert persons["age"].unique().loc[[ANN, other]].map(list).tolist() == [[45], [61]]


def test_a_row_that_contradicts_its_folder_counts_and_is_listed(folder):
    folder.rows[0] |= {"gender": "male", "age": "54"}
    found, problems = folder.scan(verify=False)
    assert list(problems["problem"]) == [Problem.FOLDER_CONTRADICTS_ROW] and list(problems["path"]) == [ANN]
    assert "gender" in problems["detail"][0] and "54" in problems["detail"][0] and "race" not in problems["detail"][0]
    assert found[found["person"] == ANN][["gender", "age"]].drop_duplicates().values.tolist() == [["male", 54]]


def test_ids_that_lost_their_zeros_in_a_spreadsheet_contradict_nothing(folder):
    folder.rows[0] |= {"id": "1", "age": "45.0"}
    assert folder.problems(verify=False) == set()


def test_a_path_that_stands_twice_counts_once(folder):
    folder.rows.append(folder.rows[0] | {"age": "20"})
    found, problems = folder.scan(verify=False)
    assert list(problems["problem"]) == [Problem.DOUBLE_ROW]
    assert found[found["person"] == ANN]["age"].tolist() == [45] * 7


def test_missing_and_unknown_folders_are_listed(folder):
    folder.rows.append(folder.rows[0] | {"id": "9", "path": "gone"})
    (folder.train / "newcomer").mkdir()
    (folder.train / "notes.txt").write_text("x")
    assert folder.problems(verify=False) == {
        ("gone", Problem.MISSING_FOLDER),
        ("newcomer", Problem.UNKNOWN_FOLDER),
        ("notes.txt", Problem.UNKNOWN_NAME),
    }


@pytest.mark.parametrize("path", ["../secret", "/etc", "x/../../secret", "..\\secret", "C:\\secret", "", ".", "a\0b"])
def test_a_path_that_leaves_the_images_folder_is_listed_and_never_opened(folder, path):
    outside = folder.root / "train" / "secret"
    outside.mkdir()
    (outside / "normal.jpg").write_bytes(picture("normal.jpg"))
    folder.rows.append(folder.rows[0] | {"id": "9", "path": path})
    folder.image_ids.append(f"{path}/normal.jpg" if path not in ("", ".") else path)
    found, problems = folder.scan()
    assert (problems["problem"] == Problem.UNSAFE_PATH).sum() == 2 and len(problems) == 2
    assert set(found["person"]) == {ANN, BOB, ""} and len(found) == 16


def test_junk_and_unknown_names_are_listed_and_left_out(folder):
    for name in ("._mask1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder.train / BOB / name).write_bytes(b"junk")
    (folder.train / BOB / "mask6.jpg").write_bytes(picture("mask6.jpg"))
    (folder.train / BOB / "mask1.txt").write_text("x")
    (folder.train / ".ipynb_checkpoints").mkdir()
    (folder.evaluation / "._aa.jpg").write_bytes(b"junk")
    assert folder.problems() == {
        (f"{BOB}/._mask1.jpg", Problem.JUNK_FILE),
        (f"{BOB}/.DS_Store", Problem.JUNK_FILE),
        (f"{BOB}/Thumbs.db", Problem.JUNK_FILE),
        (f"{BOB}/desktop.ini", Problem.JUNK_FILE),
        (f"{BOB}/mask6.jpg", Problem.UNKNOWN_NAME),
        (f"{BOB}/mask1.txt", Problem.UNKNOWN_NAME),
        (".ipynb_checkpoints", Problem.JUNK_FILE),
        ("._aa.jpg", Problem.JUNK_FILE),
    }


def test_endings_count_in_any_case_and_in_all_formats(folder):
    names = ["mask1.JPG", "mask2.JPEG", "mask3.Png", "mask4.bmp", "mask5.WEBP", "incorrect_mask.jpg", "Normal.jpg"]
    folder.person("000003_male_Other_70", names=names)
    found, problems = folder.scan()
    assert problems.empty
    assert (found["person"] == "000003_male_Other_70").sum() == 7


def test_a_person_without_all_seven_photos_is_kept_and_the_missing_ones_named(folder):
    (folder.train / ANN / "mask3.png").unlink()
    (folder.train / ANN / "normal.jpg").unlink()
    found, problems = folder.scan()
    assert problems.to_numpy().tolist() == [[ANN, "incomplete_person", "without mask3, normal"]]
    assert (found["person"] == ANN).sum() == 5


def test_a_photo_in_two_formats_is_kept_twice_and_listed(folder):
    (folder.train / ANN / "mask1.png").write_bytes(picture("mask1.png"))
    found, problems = folder.scan()
    assert list(problems["problem"]) == [Problem.DOUBLED_PHOTO] and "mask1.jpg" in problems["detail"][0]
    assert (found["person"] == ANN).sum() == 8


def test_eval_photos_that_are_missing_unlisted_or_listed_twice(folder):
    folder.image_ids += ["gone.jpg", "aa.jpg"]
    (folder.evaluation / "extra.jpg").write_bytes(picture("extra.jpg"))
    found, problems = folder.scan()
    assert set(zip(problems["path"], problems["problem"], strict=True)) == {
        ("gone.jpg", Problem.MISSING_EVAL_PHOTO),
        ("extra.jpg", Problem.UNLISTED_EVAL_PHOTO),
        ("aa.jpg", Problem.DOUBLE_IMAGE_ID),
    }
    assert list(found[found["split"] == "eval"]["path"]) == ["bb.jpg", "aa.jpg"]


def test_a_submission_still_finds_every_image_id_in_order(folder):
    folder.image_ids += ["gone.jpg"]
    folder.write_tables()
    assert layout.eval_ids(folder.root) == ["bb.jpg", "aa.jpg", "gone.jpg"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", Problem.EMPTY_FILE),
        (b"this is text, not a picture\n" * 10, Problem.UNREADABLE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", Problem.UNREADABLE),
        (picture("a.gif"), Problem.UNREADABLE),
        (picture("a.jpg")[:-1], Problem.TRUNCATED),
        (picture("a.jpg")[: -len(picture("a.jpg")) // 11], Problem.TRUNCATED),
        (picture("a.png")[: len(picture("a.png")) // 2], Problem.TRUNCATED),
        (picture("a.jpg")[:12], Problem.TRUNCATED),
        (picture("a.png", mode="I;16"), Problem.ODD_MODE),
    ],
)
def test_a_damaged_photo_is_listed_and_left_out(folder, content, problem):
    (folder.train / ANN / "mask1.jpg").write_bytes(content)
    (folder.evaluation / "aa.jpg").write_bytes(content)
    found, problems = folder.scan()
    assert set(zip(problems["path"], problems["problem"], strict=True)) == {
        (f"{ANN}/mask1.jpg", problem),
        ("aa.jpg", problem),
    }
    assert len(found) == 14 and not found["path"].isin(problems["path"]).any()
    assert not problems["detail"].str.contains(str(folder.root), regex=False).any()


def test_without_verification_no_photo_is_opened(folder):
    (folder.train / ANN / "mask1.jpg").write_bytes(b"text")
    found, problems = folder.scan(verify=False)
    assert problems.empty and len(found) == 16


def test_a_picture_of_too_many_pixels_is_unreadable(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 3)
    problem, reason = photos.check_photo(folder.train / ANN / "mask1.jpg")
    assert problem is Problem.UNREADABLE and "decompression bomb" in reason


def test_a_pipe_with_a_photo_name_is_listed_and_does_not_block(folder):
    (folder.train / ANN / "mask1.jpg").unlink()
    os.mkfifo(folder.train / ANN / "mask1.jpg")
    assert folder.problems() == {(f"{ANN}/mask1.jpg", Problem.UNREADABLE)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_are_read_with_and_without_a_byte_order_mark(folder, encoding):
    folder.write_tables()
    for table in (folder.root / "train" / "train.csv", folder.root / "eval" / "info.csv"):
        table.write_text(table.read_text(encoding="utf-8"), encoding=encoding)
    found, problems = photos.scan_photos(folder.root, verify=False)
    assert len(found) == 16 and problems.empty


@pytest.mark.parametrize("column", layout.TRAIN_COLUMNS)
def test_a_missing_column_is_named(folder, column):
    folder.rows = [{key: value for key, value in row.items() if key != column} for row in folder.rows]
    with pytest.raises(ValueError, match=rf"train\.csv lacks the column\(s\) {column}"):
        folder.scan()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a csv table"),
        (b"id,gender,race,age,path\n", "no rows"),
        (b"id,gender,race,age,path\n1,male,White,30,a,b\n", "more fields"),
        (b"id,gender,race,age,path\n1,male,White,30,a\n1,male,White,30,a,b\n", "line 3"),
        ("id,gender,race,age,path\n1,m\u00e4nnlich,White,30,a\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_that_names_the_file(folder, content, message):
    folder.write_tables()
    (folder.root / "train" / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train\.csv.*{message}"):
        photos.scan_photos(folder.root)


def test_an_info_csv_without_image_ids_is_an_error(folder):
    folder.write_tables()
    (folder.root / "eval" / "info.csv").write_text("name,ans\na,0\n")
    with pytest.raises(ValueError, match=r"info\.csv lacks the column\(s\) ImageID"):
        photos.scan_photos(folder.root)


@pytest.mark.parametrize("part", ["train/train.csv", "eval/info.csv"])
def test_a_missing_table_is_named(folder, part):
    folder.write_tables()
    (folder.root / part).unlink()
    with pytest.raises(FileNotFoundError, match=part):
        photos.scan_photos(folder.root)


def test_a_short_row_has_empty_fields(folder):
    folder.write_tables()
    with (folder.root / "train" / "train.csv").open("a") as handle:
        handle.write("9,male\n")
    _, problems = photos.scan_photos(folder.root, verify=False)
    assert list(problems["problem"]) == [Problem.UNSAFE_PATH] and list(problems["path"]) == [""]


def test_no_usable_photo_at_all_is_an_error_that_counts_the_problems(folder):
    for row in folder.rows:
        row["age"] = "old"
    with pytest.raises(ValueError, match=r"no usable photo.*bad_age: 2"):
        folder.scan()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        photos.scan_photos(tmp_path / "nowhere")


def test_a_folder_without_the_layout_says_what_is_expected(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="lacks eval: give the folder that holds"):
        photos.scan_photos(tmp_path)


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


def test_files_of_points_at_the_images_of_each_split(folder):
    found, _ = folder.scan()
    paths = photos.files_of(folder.root, found)
    assert paths[0] == folder.train / ANN / "incorrect_mask.jpg" and paths[-1] == folder.evaluation / "aa.jpg"
    assert all(path.is_file() for path in paths)
    with pytest.raises(ValueError, match=r"\.\./x"):
        photos.files_of(folder.root, found.assign(path="../x"))


@pytest.mark.parametrize(
    "name",
    ["plain", "comma, quote\" and 'other'", "new\nline", "cr\rlf\r\n", "<b onclick=x>&amp;", "사람 ñ 🙂", "NA", " x "],
)
def test_strange_names_and_dtypes_survive_the_csv(folder, name, tmp_path):
    (folder.train / ANN).rename(folder.train / name)
    folder.rows[0]["path"] = name
    (folder.train / "stray").mkdir()
    (folder.train / "stray").rename(folder.train / f"{name}2")
    found, problems = folder.scan(verify=False)
    assert name in set(found["person"]) and list(problems["path"]) == [f"{name}2"]
    back = photos.read_photos(files.write_csv(found, tmp_path / "photos.csv"))
    pd.testing.assert_frame_equal(back, found)
    assert back.dtypes[["age", "label"]].tolist() == [pd.Int64Dtype(), pd.Int64Dtype()]
    files.write_csv(problems, tmp_path / "problems.csv")
    again = pd.read_csv(tmp_path / "problems.csv", dtype="str", keep_default_na=False)
    pd.testing.assert_frame_equal(again, problems)


def test_a_file_name_that_is_not_utf8_can_still_be_written(folder, tmp_path):
    os.close(os.open(os.fsencode(folder.train / ANN) + b"/\xff.jpg", os.O_CREAT))
    _, problems = folder.scan(verify=False)
    files.write_csv(problems, tmp_path / "problems.csv")
    assert list(problems["path"]) == [f"{ANN}/\\udcff.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "split"),
        ({"label": "18"}, "labels are 0-17"),
        ({"label": "-1"}, "labels are 0-17"),
        ({"age": "old"}, "whole numbers"),
        ({"age": "4.5"}, "whole numbers"),
    ],
)
def test_a_photo_table_with_an_impossible_value_is_refused(folder, tmp_path, change, message):
    found, _ = folder.scan(verify=False)
    files.write_csv(found.assign(**change), tmp_path / "photos.csv")
    with pytest.raises(ValueError, match=rf"photos\.csv.*{message}"):
        photos.read_photos(tmp_path / "photos.csv")


def test_a_photo_table_that_lacks_a_column_or_the_file_is_refused(folder, tmp_path):
    found, _ = folder.scan(verify=False)
    files.write_csv(found.drop(columns="person"), tmp_path / "photos.csv")
    with pytest.raises(ValueError, match=r"lacks the column.*person"):
        photos.read_photos(tmp_path / "photos.csv")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        photos.read_photos(tmp_path / "gone.csv")


def test_a_photo_table_of_another_task_comes_back_from_its_file(tmp_path):
    task = (
        labels.Attribute("fruit", ("apple", "sour cherry"), "ac"),
        labels.Attribute("weight", ("<100", "100+"), "lh", edges=(100,), limits=(0, 900)),
    )
    with labels.using(task):
        rows = [("a/1.jpg", "a", "sour_cherry", 99, 2, "train"), ("2.jpg", "", "", pd.NA, pd.NA, "eval")]
        table = layout.photo_table(rows)
        assert list(table) == ["path", "person", "fruit", "weight", "label", "split"]
        files.write_csv(table, tmp_path / "tables" / "photos.csv")
        pd.testing.assert_frame_equal(photos.read_photos(tmp_path / "tables" / "photos.csv"), table)
        assert photos.read_labeled(tmp_path)["label"].tolist() == [2]
        files.write_csv(table.assign(label=4), tmp_path / "tables" / "photos.csv")
        with pytest.raises(ValueError, match="labels are 0-3"):
            photos.read_labeled(tmp_path)
    with pytest.raises(ValueError, match=r"lacks the column\(s\) mask, gender, age"):
        photos.read_labeled(tmp_path)


def test_scanning_changes_nothing_in_the_data_folder(folder):
    folder.write_tables()
    (folder.train / ANN / "mask1.jpg").write_bytes(b"")

    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.root.rglob("*")}

    before = state()
    photos.scan_photos(folder.root)
    assert state() == before


def test_labeled_photos_are_the_train_rows_with_plain_whole_labels(folder, tmp_path):
    found, _ = folder.scan()
    files.write_csv(found[::-1], tmp_path / "outputs" / "tables" / "photos.csv")
    labeled = photos.read_labeled(tmp_path / "outputs")
    train = found[found["split"] == "train"][::-1]
    assert list(labeled["path"]) == list(train["path"]) and list(labeled["label"]) == list(train["label"])
    assert labeled["label"].dtype == np.int64 and list(labeled.index) == list(range(len(train)))


def test_labeled_photos_before_the_first_notebook_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"photos\.csv: run 00_prepare_data first"):
        photos.read_labeled(tmp_path)


@pytest.mark.parametrize(
    ("size", "side", "shape"),
    [((384, 512), 192, (192, 144, 3)), ((512, 384), 64, (48, 64, 3)), ((30, 40), 192, (40, 30, 3))],
)
def test_a_thumbnail_keeps_its_proportions_and_is_never_enlarged(folder, size, side, shape):
    Image.new("RGB", size, (200, 30, 30)).save(folder.train / ANN / "mask1.jpg")
    row = pd.DataFrame({"path": [f"{ANN}/mask1.jpg"], "split": "train"})
    (thumbnail,) = photos.thumbnails(folder.root, row, side)
    assert thumbnail.shape == shape and thumbnail.dtype == np.uint8
    assert np.abs(thumbnail.mean(axis=(0, 1)) - (200, 30, 30)).max() < 5


def test_thumbnails_come_in_the_order_of_the_rows_from_both_splits(folder):
    greys = {f"{ANN}/mask1.jpg": 40, f"{BOB}/normal.jpg": 120, "aa.jpg": 220}
    for path, grey in greys.items():
        Image.new("L", (60, 80), grey).save((folder.evaluation if path == "aa.jpg" else folder.train) / path)
    rows = pd.DataFrame(
        {"path": ["aa.jpg", f"{BOB}/normal.jpg", f"{ANN}/mask1.jpg"], "split": ["eval", "train", "train"]}
    )
    assert [round(thumbnail.mean()) for thumbnail in photos.thumbnails(folder.root, rows)] == [220, 120, 40]


def test_a_thumbnail_is_turned_upright(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top of the scene is on the right
    Image.new("RGB", (80, 40)).save(folder.train / ANN / "mask1.jpg", exif=exif)
    row = pd.DataFrame({"path": [f"{ANN}/mask1.jpg"], "split": "train"})
    assert photos.thumbnails(folder.root, row)[0].shape == (80, 40, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_a_thumbnail_has_three_channels_whatever_the_photo_had(folder, mode):
    path = folder.train / ANN / ("mask1.jpg" if mode == "CMYK" else "mask1.png")
    Image.new(mode, (60, 80)).save(path)
    row = pd.DataFrame({"path": [f"{ANN}/{path.name}"], "split": "train"})
    assert photos.thumbnails(folder.root, row)[0].shape == (80, 60, 3)


def test_a_thumbnail_is_never_read_from_outside_the_images(folder):
    with pytest.raises(ValueError, match=r"\.\./train\.csv"):
        photos.thumbnails(folder.root, pd.DataFrame({"path": ["../train.csv"], "split": ["train"]}))
