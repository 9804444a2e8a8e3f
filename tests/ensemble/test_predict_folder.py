"""Any folder of photos is answered as the notebooks answer, goes on after a kill, and no bad photo gets a guess."""

import os
import shutil
import types

import numpy as np
import pandas as pd
import pytest
import toy_ensemble
import toys
from PIL import Image

from mask_lib.base import files, labels
from mask_lib.data import layout
from mask_lib.ensemble import members, pack, predict

COLUMNS = ["file", "mask", "mask_probability", "gender", "gender_probability", "age", "age_probability"]
ODD = [
    'a "quoted", name.png',
    "사진/마스크 1.PNG",
    "line\nbreak.png",
    b"not utf-8 \xff.png".decode("utf-8", "surrogateescape"),
]


def test_the_answers_are_those_of_the_notebooks(trained, folder, tmp_path):
    output = trained[1]
    table = predict.predict_folder(output, folder, tmp_path / "out.csv")
    assert list(table) == [*COLUMNS, "label", "label_words"]
    found = members.read_members(output)
    blended = toy_ensemble.RECIPE.blend_tables(found, "test").set_index("ImageID").loc[table["file"]]
    assert table["label"].astype(int).tolist() == blended.to_numpy().argmax(axis=1).tolist()
    assert list(table["label_words"]) == [labels.describe(int(label)) for label in table["label"]]
    for name, alone in labels.marginals(blended.to_numpy()).items():
        np.testing.assert_allclose(table[f"{name}_probability"].astype(float), alone.max(axis=1), atol=1e-5)
        assert list(table[name]) == [labels.attribute(name).words[value] for value in alone.argmax(axis=1)]
    assert files.read_csv(tmp_path / "out.csv", {}).equals(table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.problems.csv", "photos"]


def test_an_archive_and_a_single_run_answer_too(trained, folder, tmp_path):
    archive = pack.pack(trained[1], tmp_path / "results.tar.gz")
    tables = [predict.predict_folder(source, folder, tmp_path / "out.csv") for source in (archive, trained[1])]
    pd.testing.assert_frame_equal(*tables)
    alone = predict.predict_folder(archive, folder, tmp_path / "alone.csv", run="toy")
    expected = pd.read_csv(trained[1] / "inferences" / "toy.test.csv").set_index("ImageID").loc[alone["file"]]
    assert alone["label"].astype(int).tolist() == expected.to_numpy().argmax(axis=1).tolist()
    with pytest.raises(FileNotFoundError, match="runs/absent holds no finished run"):
        predict.predict_folder(archive, folder, tmp_path / "alone.csv", run="absent")


def test_bad_photos_are_listed_and_have_blanks(trained, folder, tmp_path):
    good = sorted(folder.iterdir())[0]
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "cut.png").write_bytes(good.read_bytes()[:-200])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photo")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "deep" / "sixteen.png")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    for name in ("._a.png", "notes.txt"):
        (folder / name).write_text("passed over")
    table = predict.predict_folder(trained[1], folder, tmp_path / "out.csv").set_index("file")
    problems = files.read_csv(tmp_path / "out.problems.csv", {}).set_index("path")["problem"]
    assert problems.to_dict() == {
        "deep/er/cut.png": "truncated",
        "deep/sixteen.png": "odd_mode",
        "empty.jpg": "empty_file",
        "gone.png": "unreadable",
        "pipe.png": "unreadable",
        "text.jpg": "unreadable",
    }
    assert (table.loc[problems.index] == "").all(axis=None) and (table.drop(problems.index) != "").all(axis=None)
    assert len(table) == 12 + 6
    for path in problems.index:
        (folder / path).unlink()
    predict.predict_folder(trained[1], folder, tmp_path / "out.csv")
    assert files.read_csv(tmp_path / "out.problems.csv", {}).empty


def test_odd_names_are_read_back_as_they_are_or_escaped(trained, folder, tmp_path):
    good = sorted(folder.iterdir())[0]
    for name in ODD:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(good, folder / name)
    predict.predict_folder(trained[1], folder, tmp_path / "out.csv")
    table = files.read_csv(tmp_path / "out.csv", {}).set_index("file")
    assert len(table) == 12 + len(ODD)
    for name in (*ODD[:2], "line\\nbreak.png", "not utf-8 \\udcff.png"):
        assert table.loc[name, "label"] == table.loc[good.name, "label"]


def test_a_killed_run_goes_on_after_the_last_batch(trained, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", 5)
    whole = predict.predict_folder(trained[1], folder, tmp_path / "whole.csv")
    answered, asked = predict.answered, []

    def killed_in_the_second(root, names, *given):
        asked.append(names)
        return answered(root, names, *given) if len(asked) != 2 else 1 / 0

    monkeypatch.setattr(predict, "answered", killed_in_the_second)
    with pytest.raises(ZeroDivisionError):
        predict.predict_folder(trained[1], folder, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    pd.testing.assert_frame_equal(predict.predict_folder(trained[1], folder, tmp_path / "out.csv"), whole)
    assert [len(names) for names in asked] == [5, 5, 5, 2]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob(".out*"))


def test_parts_of_other_weights_or_photos_are_not_taken(trained, folder, tmp_path, monkeypatch):
    """What a broken-off run left must not answer for photos or results that changed meanwhile."""
    monkeypatch.setattr(predict, "shutil", types.SimpleNamespace(rmtree=lambda path: None))
    parts, changed = tmp_path / ".out.csv.parts", sorted(folder.iterdir())[3]
    predict.predict_folder(trained[1], folder, tmp_path / "out.csv")
    predict.predict_folder(trained[1], folder, tmp_path / "out.csv", run="toy")
    assert len(list(parts.iterdir())) == 2
    Image.fromarray(toys.paint(8, np.random.default_rng(5))).save(changed)
    predict.predict_folder(trained[1], folder, tmp_path / "out.csv")
    assert len(list(parts.iterdir())) == 3


def test_a_folder_without_photos_is_refused_before_any_network_is_read(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no photo below .*: give a folder of files that end with \.bmp "):
        predict.predict_folder(tmp_path / "gone", tmp_path, tmp_path / "out.csv")
    assert ".jpg" in layout.ENDINGS
