"""Decisions are a patch: they apply to the photos they were made on, travel as CSV, and can be compared."""

import pandas as pd
import pytest
from relabeling import PATHS, open_log, open_session, photo_table, type_keys

from mask_lib.base import files
from mask_lib.relabel import corrections
from mask_lib.relabel.current_decisions import replay
from mask_lib.relabel.decision_log import DecisionLog


def decided(tmp_path) -> DecisionLog:
    """One man's photos become a woman's, a photo is dropped, another right; and something is undone."""
    session = open_session(tmp_path)
    session.start("suspects")
    type_keys(session, "Enter", "P", "x", "P", "n", "P", "Enter", "u")
    return open_log(tmp_path)


def opinion(tmp_path, annotator: str, path: str, field: str, new, old=None, **more) -> DecisionLog:
    log = open_log(tmp_path, annotator)
    log.append([{"path": path, "field": field, "old": old, "new": new, **more}])
    return log


def logs(tmp_path) -> dict[str, DecisionLog]:
    return corrections.read_logs(tmp_path)


def cleaned(tmp_path, photos: pd.DataFrame, decisions: list[dict]) -> tuple[dict[str, int], pd.DataFrame]:
    """Class by path of the photos that training reads, and what could not be applied."""
    state, not_applied = corrections.applicable(photos, decisions, tmp_path)
    kept, _ = corrections.clean_tables(photos, state, tmp_path)
    images = f"{tmp_path / 'train' / 'images'}/"
    return dict(zip(kept["path"].str.removeprefix(images), kept["class"], strict=True)), not_applied


def test_the_clean_table_holds_changed_classes_and_no_dropped_photos(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    classes, not_applied = cleaned(tmp_path, photos, log.decisions)
    assert not_applied.empty
    new = dict(zip(PATHS, [10, 4, 4, 16, None, 1, 1, 13, 7, 1, 1, 13], strict=True))
    assert classes == {path: label for path, label in new.items() if label is not None}
    assert list(photos["label"][:4]) == [7, 1, 1, 13]  # the given table is not changed
    state, _ = corrections.applicable(photos, log.decisions, tmp_path)
    kept, dropped = corrections.clean_tables(photos.astype({"label": "Int64", "age": "Int64"}), state, tmp_path)
    assert list(kept.columns) == list(dropped.columns) == ["path", "class"] and len(kept) == 11
    assert kept["path"][0] == str(tmp_path / "train" / "images" / PATHS[0])
    assert dropped.to_numpy().tolist() == [[str(tmp_path / "train" / "images" / PATHS[4]), 7]]
    assert kept["class"].dtype == dropped["class"].dtype == "int64"


def test_a_photo_whose_bytes_have_changed_is_reported_and_not_corrected(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    for path, content in ((PATHS[0], b"another photo"), (PATHS[4], b"yet another")):
        (tmp_path / "train" / "images" / path).write_bytes(content)
    classes, not_applied = cleaned(tmp_path, photos, log.decisions)
    assert list(not_applied["path"]) == [PATHS[0], PATHS[4]]
    assert not_applied["problem"].str.contains("changed").all()
    assert list(classes) == PATHS and [classes[path] for path in PATHS[:2]] == [7, 4]


def test_unknown_and_missing_photos_are_reported(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    (tmp_path / "train" / "images" / PATHS[1]).unlink()
    _, not_applied = corrections.applicable(photos.iloc[1:], log.decisions, tmp_path)
    assert dict(zip(not_applied["path"], not_applied["problem"], strict=True)) == {
        PATHS[0]: "no such photo in the table",
        PATHS[1]: "the photo is gone",
    }


def test_an_undone_decision_is_not_asked_for_its_photo(tmp_path):
    type_keys(open_session(tmp_path), "1", "u")
    (tmp_path / "train" / "images" / PATHS[0]).write_bytes(b"another photo")
    assert corrections.applicable(photo_table(tmp_path).iloc[1:], open_log(tmp_path).decisions, tmp_path)[1].empty


def test_a_patch_holds_what_was_decided_and_travels_to_a_fresh_copy(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    log = decided(here)
    written = files.write_csv(corrections.patch_of(log.decisions), tmp_path / "patch.csv")
    arrived = open_log(there, "guest")
    corrections.import_patch(written, arrived, photo_table(there))
    assert replay(arrived.decisions) == replay(log.decisions)
    expected, _ = cleaned(here, photo_table(here), log.decisions)
    assert cleaned(there, photo_table(there), arrived.decisions)[0] == expected


def test_importing_twice_adds_nothing_and_is_one_action_to_undo(tmp_path):
    written = files.write_csv(corrections.patch_of(decided(tmp_path).decisions), tmp_path / "patch.csv")
    guest = open_log(tmp_path, "guest")
    made = corrections.import_patch(written, guest, photo_table(tmp_path))
    assert len({one["time"] for one in made}) == 1 and made[0]["reason"].startswith("import:1/")
    assert corrections.import_patch(written, guest, photo_table(tmp_path)) == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("new", "99", "'99' is no label"), ("path", "gone/mask1.jpg", "not in the table"), ("field", "hue", "is no hue")],
)
def test_a_bad_patch_is_refused_whole(tmp_path, column, value, said):
    patch = corrections.patch_of(decided(tmp_path).decisions)
    patch = patch[patch["field"] == "label"].reset_index(drop=True)
    patch.loc[1, column] = value
    patch.to_csv(tmp_path / "patch.csv", index=False)
    guest = open_log(tmp_path, "guest")
    with pytest.raises(ValueError, match=said):
        corrections.import_patch(tmp_path / "patch.csv", guest, photo_table(tmp_path))
    assert guest.decisions == []


def test_annotators_who_differ_are_listed_and_nothing_of_it_is_applied(tmp_path):
    opinion(tmp_path, "ann", PATHS[0], "label", 10, old=7)
    opinion(tmp_path, "bob", PATHS[0], "mark", "right")
    opinion(tmp_path, "bob", PATHS[1], "label", 4, old=1)
    opinion(tmp_path, "ann", PATHS[2], "label", 4, old=1)
    opinion(tmp_path, "bob", PATHS[2], "label", 4, old=1)
    found = corrections.disagreements(logs(tmp_path))
    assert found.to_numpy().tolist() == [[PATHS[0], "ann: 10; bob: right", ""]]
    classes, _ = cleaned(tmp_path, photo_table(tmp_path), corrections.merged(logs(tmp_path)))
    assert [classes[path] for path in PATHS[:4]] == [7, 4, 4, 13]


def test_a_mark_alone_is_no_opinion_and_the_last_word_of_an_annotator_counts(tmp_path):
    opinion(tmp_path, "ann", PATHS[0], "mark", "wrong")
    opinion(tmp_path, "bob", PATHS[0], "label", 10, old=7)
    assert corrections.disagreements(logs(tmp_path)).empty
    opinion(tmp_path, "ann", PATHS[0], "verdict", "drop")
    opinion(tmp_path, "bob", PATHS[0], "verdict", "drop")
    assert corrections.disagreements(logs(tmp_path)).empty


def test_a_third_annotator_settles_by_majority(tmp_path):
    opinion(tmp_path, "ann", PATHS[0], "label", 10, old=7)
    opinion(tmp_path, "bob", PATHS[0], "verdict", "drop")
    opinion(tmp_path, "eve", PATHS[0], "label", 10, old=7)
    found = corrections.disagreements(logs(tmp_path))
    assert found["settled"].tolist() == ["10"]
    assert replay(corrections.merged(logs(tmp_path))) == {PATHS[0]: {"label": 10}}


def test_one_annotator_is_no_dispute(tmp_path):
    log = decided(tmp_path)
    assert corrections.merged(logs(tmp_path)) == log.decisions
    assert corrections.merged({}) == [] and corrections.disagreements({}).empty
