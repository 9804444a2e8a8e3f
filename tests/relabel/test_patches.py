"""Decisions are a patch: they apply to the photos they were made on, travel as CSV, and can be compared."""

import pandas as pd
import pytest
from sitting import PATHS, open_log, open_review, photo_table, type_keys

from mask_lib.relabel import corrections
from mask_lib.relabel.decision_log import DecisionLog, replay


def decided(tmp_path) -> DecisionLog:
    """One man's photos become a woman's, a photo is dropped, another right; and something is undone."""
    review = open_review(tmp_path)
    review.start("suspects")
    type_keys(review, "Enter", "P", "x", "P", "n", "P", "Enter", "u")
    return open_log(tmp_path)


def opinion(tmp_path, annotator: str, path: str, field: str, new, old=None, **more) -> DecisionLog:
    log = open_log(tmp_path, annotator)
    log.append([{"path": path, "field": field, "old": old, "new": new, **more}])
    return log


def logs(tmp_path) -> dict[str, DecisionLog]:
    return corrections.read_logs(tmp_path)


def test_applying_changes_labels_drops_photos_and_leaves_the_rest(tmp_path):
    photos = photo_table(tmp_path)
    corrected, not_applied = corrections.apply(photos, decided(tmp_path).decisions, tmp_path)
    assert not_applied.empty
    assert list(corrected["path"]) == [path for path in PATHS if path != PATHS[4]]
    women = corrected[corrected["gender"] == "female"]
    assert list(women["path"]) == PATHS[:4] and list(women["label"]) == [10, 4, 4, 16]
    untouched = photos[photos["path"].isin(PATHS[5:])].reset_index(drop=True)
    pd.testing.assert_frame_equal(corrected.iloc[4:].reset_index(drop=True), untouched)
    assert list(photos["label"][:4]) == [7, 1, 1, 13]  # the given table is not changed


def test_the_clean_table_has_absolute_paths_and_classes(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    state, _ = corrections.applicable(photos, log.decisions, tmp_path)
    clean, dropped = corrections.clean_tables(photos, state, tmp_path)
    assert list(clean.columns) == list(dropped.columns) == ["path", "class"] and len(clean) == 11
    assert clean["path"][0] == str(tmp_path / "train" / "images" / PATHS[0]) and clean["class"][0] == 10
    assert list(dropped["path"]) == [str(tmp_path / "train" / "images" / PATHS[4])]
    assert clean["class"].dtype == dropped["class"].dtype == "int64"


def test_nullable_labels_of_a_photo_table_stay_whole_numbers(tmp_path):
    photos = photo_table(tmp_path).astype({"label": "Int64", "age": "Int64"})
    corrected, _ = corrections.apply(photos, decided(tmp_path).decisions, tmp_path)
    assert corrected["label"].dtype == "Int64" and corrected["label"][0] == 10


def test_a_photo_whose_bytes_have_changed_is_reported_and_not_corrected(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    for path, content in ((PATHS[0], b"another photo"), (PATHS[4], b"yet another")):
        (tmp_path / "train" / "images" / path).write_bytes(content)
    corrected, not_applied = corrections.apply(photos, log.decisions, tmp_path)
    assert list(not_applied["path"]) == [PATHS[0], PATHS[4]]
    assert not_applied["problem"].str.contains("changed").all()
    assert list(corrected["path"]) == PATHS and list(corrected["label"][:2]) == [7, 4]
    state = corrections.applicable(photos, log.decisions, tmp_path)[0]
    assert corrections.clean_tables(photos, state, tmp_path)[0]["class"][0] == 7


def test_unknown_and_missing_photos_are_reported(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    (tmp_path / "train" / "images" / PATHS[1]).unlink()
    _, not_applied = corrections.apply(photos.iloc[1:], log.decisions, tmp_path)
    assert dict(zip(not_applied["path"], not_applied["problem"], strict=True)) == {
        PATHS[0]: "no such photo in the table",
        PATHS[1]: "the photo is gone",
    }


def test_an_undone_decision_is_not_asked_for_its_photo(tmp_path):
    review = open_review(tmp_path)
    type_keys(review, "1", "u")
    (tmp_path / "train" / "images" / PATHS[0]).write_bytes(b"another photo")
    assert corrections.apply(photo_table(tmp_path).iloc[1:], open_log(tmp_path).decisions, tmp_path)[1].empty


def test_a_patch_holds_what_stands_and_travels_to_a_fresh_copy(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    log = decided(here)
    written = corrections.export_patch(log.decisions, tmp_path / "patch.csv")
    photos = photo_table(there)
    arrived = open_log(there, "guest")
    corrections.import_patch(written, arrived, photos)
    assert replay(arrived.decisions) == replay(log.decisions)
    assert corrections.diff(corrections.patch_of(log.decisions), corrections.patch_of(arrived.decisions)).empty
    expected = corrections.apply(photo_table(here), log.decisions, here)
    for mine, theirs in zip(expected, corrections.apply(photos, arrived.decisions, there), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_importing_twice_adds_nothing_and_is_one_stroke_to_undo(tmp_path):
    written = corrections.export_patch(decided(tmp_path).decisions, tmp_path / "patch.csv")
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


def test_two_patches_differ_where_their_values_do(tmp_path):
    one = opinion(tmp_path, "ann", PATHS[0], "label", 4, old=7)
    two = opinion(tmp_path, "bob", PATHS[0], "label", 5, old=7)
    two.append([{"path": PATHS[1], "field": "verdict", "old": None, "new": "drop"}])
    found = corrections.diff(corrections.patch_of(one.decisions), corrections.patch_of(two.decisions))
    assert found.to_numpy().tolist() == [[PATHS[0], "label", "4", "5"], [PATHS[1], "verdict", "", "drop"]]


def test_annotators_who_differ_are_listed_and_nothing_of_it_is_applied(tmp_path):
    opinion(tmp_path, "ann", PATHS[0], "label", 10, old=7)
    opinion(tmp_path, "bob", PATHS[0], "mark", "right")
    opinion(tmp_path, "bob", PATHS[1], "label", 4, old=1)
    opinion(tmp_path, "ann", PATHS[2], "label", 4, old=1)
    opinion(tmp_path, "bob", PATHS[2], "label", 4, old=1)
    found = corrections.disagreements(logs(tmp_path))
    assert found.to_numpy().tolist() == [[PATHS[0], "ann: 10; bob: right", "", ""]]
    corrected, _ = corrections.apply(photo_table(tmp_path), corrections.merged(logs(tmp_path)), tmp_path)
    assert list(corrected["label"][:4]) == [7, 4, 4, 13]


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
    assert found[["settled", "how"]].to_numpy().tolist() == [["10", "majority"]]
    assert replay(corrections.merged(logs(tmp_path))) == {PATHS[0]: {"label": 10}}


@pytest.mark.parametrize(("settled", "label"), [(10, 10), ("right", 7), ("drop", None), (8, 8)])
def test_a_settling_decision_counts_until_somebody_objects(tmp_path, settled, label):
    opinion(tmp_path, "ann", PATHS[0], "label", 10, old=7)
    opinion(tmp_path, "bob", PATHS[0], "label", 9, old=7)
    corrections.settle(open_log(tmp_path, "ann"), PATHS[0], settled, label=7)
    corrected, _ = corrections.apply(photo_table(tmp_path), corrections.merged(logs(tmp_path)), tmp_path)
    found = corrected.set_index("path")["label"].get(PATHS[0])
    assert found == label
    opinion(tmp_path, "bob", PATHS[0], "label", 2, old=9)
    assert corrections.disagreements(logs(tmp_path))["settled"].tolist() == [""]


def test_one_annotator_is_no_dispute(tmp_path):
    log = decided(tmp_path)
    assert corrections.merged(logs(tmp_path)) == log.decisions
    assert corrections.merged({}) == [] and corrections.disagreements({}).empty
