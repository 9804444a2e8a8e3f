"""Tables as other people's programs leave them, at every place that reads one: right, or refused with file and line."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import past_runs
import pytest
from amount import amount
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_lib.base import files, labels, scores
from mask_lib.data import clean_labels, duplicates, external, layout, photos, splits
from mask_lib.ensemble import leaks
from mask_lib.relabel import corrections
from mask_lib.relabel.decision_log import DecisionLog
from mask_lib.sample import paint
from mask_lib.training import pseudo_labels, run_folder

COLUMNS = labels.probability_columns()
SOUND = ",".join(["0.05"] * 17 + ["0.15"])
KNOWN = pd.DataFrame({"path": ["a"], "label": [0]})
PROBABILITIES = [f"ImageID,{','.join(COLUMNS)}", *(f"{name}.jpg,{SOUND}" for name in "abcd")]


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# By file: how it is read, given the output folder, and lines of it as they should be.
READERS: dict[str, tuple[Callable, list[str]]] = {
    "train.csv": (
        lambda out: layout.read_table(out / "train.csv", layout.TRAIN_COLUMNS),
        ["id,gender,race,age,path", *(f"{n},male,Asian,5{n},{n}_male_Asian_5{n}" for n in range(4))],
    ),
    "info.csv": (lambda out: layout.read_table(out / "info.csv", ["ImageID"]), ["ImageID,ans", "a.jpg,0", "b.jpg,0"]),
    "list.csv": (lambda out: external.read_list(out / "list.csv"), ["path,label", "a.jpg,0", "b.jpg,1", "c.jpg,2"]),
    "patch.csv": (
        lambda out: corrections.import_patch(out / "patch.csv", DecisionLog(out / "log", "me"), KNOWN),
        [",".join(corrections.PATCH_COLUMNS), "a,label,0,1,x,me,t,", "a,mark,,right,y,me,t,"],
    ),
    "deep.test.csv": (lambda out: scores.read_probabilities(out / "deep.test.csv", "ImageID"), PROBABILITIES),
    "answers.csv": (
        lambda out: paint.score_submission(out, out / "answers.csv"),
        ["ImageID,ans", "a.jpg,0", "b.jpg,1"],
    ),
    "tables/photos.csv": (
        photos.read_labeled,
        ["path,person,mask,gender,age,label,split", "p/a,p,worn,male,20,0,train", "q/a,q,worn,male,20,0,train"],
    ),
    "tables/external.csv": (
        external.read,
        ["path,person,mask,gender,age,label", "/x/a,external:x/p,worn,male,20,0", "/x/b,external:x/q,worn,male,,0"],
    ),
    "tables/groups.csv": (splits.read_groups, ["person,group", "p,p", "q,p"]),
    "tables/split.stratified.0.csv": (
        splits.read_splits,
        ["path,person,label,split", "p/a,p,0,train", "q/a,q,0,val", "r/a,r,0,test_val"],
    ),
    "tables/clean.csv": (
        lambda out: clean_labels._read_classes(out / "tables" / "clean.csv", []),
        ["path,class", "/x/p/a.jpg,0", "/x/q/a.jpg,1"],
    ),
    "tables/duplicates.phash.csv": (
        lambda out: duplicates.read_duplicates(out, "phash"),
        ["hash,path,person,label,set,distance", "00,p/a,p,0,train,0", "00,x,,,eval,3"],
    ),
    "tables/data_leak.phash.csv": (leaks.read_leaks, ["ImageID,path,label,distance", "x,p/a,0,3", "y,p/a,0,4"]),
    "runs/deep/fold0/oof.csv": (
        lambda out: run_folder.joined_tables({0: out / "runs/deep/fold0/oof.csv"}, {"a": "p", "b": "q"}),
        [f"path,label,{','.join(COLUMNS)}", f"a,0,{SOUND}", f"b,1,{SOUND}"],
    ),
    "runs/deep/fold0/history.csv": (
        lambda out: run_folder.read_histories(out / "runs" / "deep", [0]),
        ["fold,epoch,train_loss,val_loss,val_macro_f1,seconds", "0,1,2.5,2,0.25,7", "0,2,2,2,0.5,8"],
    ),
    "tables/pseudo.deep.csv": (
        lambda out: pseudo_labels.read(out, "deep", {}),
        ["fold,path,label,probability,weight", "0,/x/a,0,0.95,0.5", "0,/x/b,1,0.95,0.5"],
    ),
}


def beside(output: Path) -> Path:
    """An output folder with the notes that some of the tables have beside them."""
    files.write_json({}, output / "tables" / "pseudo.deep.json")
    truth = {"arguments": {}, "photos": {}, "eval": {name: {"label": 0} for name in ("a.jpg", "b.jpg")}}
    files.write_json(truth, output / "truth.json")
    return output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return beside(tmp_path)


each_reader = pytest.mark.parametrize("name", READERS)
QUOTE = "line 2: a quote .* is not closed on its line"


@each_reader
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda head, *rows: [head, *(row.replace(",", ',"', 1) for row in rows[:2]), *rows[2:]], QUOTE),
        (lambda *lines: [*lines, lines[-1] + ",more"], "line {last} has {more} fields, the header {count}"),
        (lambda *lines: [*lines, lines[-1].rpartition(",")[0]], "line {last} has {less} fields, the header {count}"),
        (lambda *lines: [line.replace(",", ";") for line in lines], "its columns are parted by ';'"),
        (lambda head, *rows: [re.sub(r"\w+", r"no_\g<0>", head), *rows], "lacks the column"),
        (lambda head, *rows: [head + "," + head.partition(",")[0], *(row + ",x" for row in rows)], "twice"),
        (lambda *lines: [], "is empty"),
        (lambda *lines: [*lines[:2], lines[-1][:3] + '"\n"' + lines[-1][3:]], "a quote"),
        (lambda *lines: [*lines, lines[-1] + "\0"], "null byte"),
    ],
    ids=["quotes", "more", "fewer", "semicolons", "column", "twice", "empty", "line break", "null"],
)
def test_a_table_of_another_shape_is_refused_with_its_line(output: Path, name: str, fault: Callable, message: str):
    read, lines = READERS[name]
    write(output / name, fault(*lines))
    count = lines[0].count(",") + 1
    wanted = message.format(last=len(lines) + 1, more=count + 1, less=count - 1, count=count)
    with pytest.raises(ValueError, match=wanted) as refused:
        read(output)
    assert Path(name).name in str(refused.value)


@each_reader
@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_another_encoding_is_named_with_its_remedy(output: Path, name: str, encoding: str):
    read, lines = READERS[name]
    path = write(output / name, lines)
    path.write_bytes("\n".join([lines[0] + ",메모", *(line + ",마스크" for line in lines[1:])]).encode(encoding))
    with pytest.raises(ValueError, match=rf"{path.name} is (not UTF-8|UTF-16) .*save it again as 'CSV UTF-8'"):
        read(output)


def test_a_fifo_is_no_table(tmp_path: Path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(OSError, match="a pipe or a device"):
        files.read_csv(tmp_path / "a.csv", {})


def test_text_stays_as_it_is_written_and_excels_extra_commas_are_no_column(tmp_path: Path):
    path = write(tmp_path / "a.csv", ["path,person,age,,", "NA,null,30,,", '"a, ""b""",nan,,,', ",007,1.0,,"])
    table = files.read_csv(path, {"path": "str", "person": "str", "age": "Int64"})
    assert list(table["path"]) == ["NA", 'a, "b"', ""] and list(table["person"]) == ["null", "nan", "007"]
    assert list(table["age"].fillna(-1)) == [30, -1, 1]


@pytest.mark.parametrize(
    ("kind", "written", "wanted"),
    [
        ("int64", "1.5", "line 4: x is '1.5', not a whole number"),
        ("int64", "", "line 4: x is '', not a whole number"),
        ("Int64", "a", "line 4: x is 'a', not a whole number"),
        ("int64", "9" * 30, "not a whole number"),
        ("int64", "inf", "line 4: x is 'inf', not a whole number"),
        ("int64", "nan", "line 4: x is 'nan', not a whole number"),
        ("int64", "1e30", "line 4: x is '1e30', not a whole number"),
        ("float64", "nan?", r"line 4: x is 'nan\?', not a number"),
        ("float64", "1,5", "line 4 has 3 fields"),
    ],
)
def test_what_is_no_number_is_named_with_its_line(tmp_path: Path, kind: str, written: str, wanted: str):
    path = write(tmp_path / "a.csv", ["x,y", "1,a", "", f"{written},b", ",c" if kind != "int64" else "3,c"])
    with pytest.raises(ValueError, match=f"a.csv, {wanted}" if wanted.startswith("line") else wanted):
        files.read_csv(path, {"x": kind})


def test_a_sync_tools_copy_of_a_folds_table_is_named(tmp_path: Path):
    past_runs.prepare(tmp_path)
    first = tmp_path / "tables" / "split.stratified.0.csv"
    first.with_name("split.stratified.0 (1).csv").write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"split\.stratified\.0 \(1\)\.csv"):
        splits.read_splits(tmp_path)


ODD = ['"', ",", "\n", "\r", "\0", "NA", "nan", "inf", "-1", "1e999", "99" * 9]
CELLS = st.one_of(st.text(max_size=6), st.sampled_from(ODD))


@each_reader
@settings(max_examples=amount(12, 300), deadline=None)
@given(data=st.data())
def test_a_fuzzed_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject):
    read, lines = READERS[name]
    output = beside(tmp_path_factory.mktemp("fuzzed"))
    text = "\n".join(lines) + "\n"
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(CELLS) + text[place + data.draw(st.integers(0, 9)) :]
    content = text.encode(data.draw(st.sampled_from(["utf-8", "utf-8", "utf-16"])), "surrogatepass")
    write(output / name, []).write_bytes(content)
    try:
        read(output)
    except (ValueError, OSError) as error:
        assert str(error)
