"""Decisions are a patch: they apply to the photos they were made on, travel as CSV, and can be compared."""

import pandas as pd
import pytest
from relabeling import PATHS, open_log, open_session, photo_table, replay, type_keys

from mask_lib.base import files
from mask_lib.relabel import corrections
from mask_lib.relabel.decision_log import DecisionLog


def decided(tmp_path) -> DecisionLog:
    """One man's photos become a woman's, a photo is dropped, another right; and something is undone."""
    session = open_session(tmp_path)
    session.start("suspects")
    type_keys(session, "Enter", "P", "x", "P", "n", "P", "Enter", "u")
    return open_log(tmp_path)


def test_the_clean_table_holds_changed_classes_and_no_dropped_photos(tmp_path):
    photos, log = photo_table(tmp_path).astype({"label": "Int64", "age": "Int64"}), decided(tmp_path)
    state, not_applied = corrections.applicable(photos, log.decisions, tmp_path)
    kept, dropped = corrections.clean_tables(photos, state, tmp_path)
    assert not_applied.empty
    paths = [str(tmp_path / "train" / "images" / path) for path in PATHS]
    assert dict(zip(kept["path"], kept["class"], strict=True)) == dict(
        zip(paths[:4] + paths[5:], [10, 4, 4, 16, 1, 1, 13, 7, 1, 1, 13], strict=True)
    )
    assert dropped.to_numpy().tolist() == [[paths[4], 7]]
    assert list(kept.columns) == list(dropped.columns) == ["path", "class"]
    assert kept["class"].dtype == dropped["class"].dtype == "int64"
    assert list(photos["label"][:4]) == [7, 1, 1, 13]  # the given table is not changed


def test_decisions_on_unknown_missing_and_changed_photos_are_reported_and_not_applied(tmp_path):
    photos, log = photo_table(tmp_path), decided(tmp_path)
    (tmp_path / "train" / "images" / PATHS[1]).unlink()
    (tmp_path / "train" / "images" / PATHS[4]).write_bytes(b"another photo")
    state, not_applied = corrections.applicable(photos.iloc[1:], log.decisions, tmp_path)
    problems = dict(zip(not_applied["path"], not_applied["problem"], strict=True))
    assert problems == {
        PATHS[0]: "no such photo in the table",
        PATHS[1]: "the photo is gone",
        PATHS[4]: "the photo has changed since it was decided on",
    }
    assert state == {path: fields for path, fields in replay(log.decisions).items() if path not in problems}


def test_an_undone_decision_is_not_asked_for_its_photo(tmp_path):
    type_keys(open_session(tmp_path), "1", "u")
    (tmp_path / "train" / "images" / PATHS[0]).write_bytes(b"another photo")
    assert corrections.applicable(photo_table(tmp_path).iloc[1:], open_log(tmp_path).decisions, tmp_path)[1].empty


def test_a_patch_holds_what_was_decided_and_travels_to_a_fresh_copy_as_one_action_once(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    log, photos, guest = decided(here), photo_table(there), open_log(there, "guest")
    written = files.write_csv(corrections.patch_of(log.decisions), tmp_path / "patch.csv")
    made = corrections.import_patch(written, guest, photos)
    assert len({one["time"] for one in made}) == 1 and made[0]["reason"].startswith("import:1/")
    assert replay(guest.decisions) == replay(log.decisions)
    state, not_applied = corrections.applicable(photos, guest.decisions, there)
    assert state == replay(log.decisions) and not_applied.empty
    assert corrections.import_patch(written, guest, photos) == []


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


FIELD_OF = {"right": "mark", "wrong": "mark", "drop": "verdict", 4: "label", 10: "label"}


@pytest.mark.parametrize(
    ("opinions", "differing", "settled"),
    [
        pytest.param(
            [("ann", 0, 10), ("bob", 0, "right"), ("bob", 1, 4), ("ann", 2, 4), ("bob", 2, 4)],
            [[PATHS[0], "ann: 10; bob: right", ""]],
            {1: 4, 2: 4},
            id="nothing holds where two differ",
        ),
        pytest.param(
            [("ann", 0, 10), ("bob", 0, "drop"), ("eve", 0, 10)],
            [[PATHS[0], "ann: 10; bob: drop; eve: 10", "10"]],
            {0: 10},
            id="a third settles by majority",
        ),
        pytest.param([("ann", 0, "wrong"), ("bob", 0, 10)], [], {0: 10}, id="a mark alone is no opinion"),
        pytest.param(
            [("bob", 0, 10), ("ann", 0, "drop"), ("bob", 0, "drop")], [], {0: "drop"}, id="the last word counts"
        ),
        pytest.param([("ann", 0, "wrong"), ("ann", 1, 4)], [], {0: "wrong", 1: 4}, id="one alone is no dispute"),
        pytest.param([], [], {}, id="nobody"),
    ],
)
def test_of_several_annotators_what_most_think_holds(tmp_path, opinions, differing, settled):
    for annotator, place, opinion in opinions:
        field, old = FIELD_OF[opinion], 1 if FIELD_OF[opinion] == "label" else None
        open_log(tmp_path, annotator).append([{"path": PATHS[place], "field": field, "old": old, "new": opinion}])
    logs = corrections.read_logs(tmp_path)
    assert corrections.disagreements(logs).to_numpy().tolist() == differing
    assert replay(corrections.merged(logs)) == {PATHS[place]: {FIELD_OF[new]: new} for place, new in settled.items()}


def test_what_was_decided_on_suspects_tells_whether_to_go_on(tmp_path):
    log = decided(tmp_path)
    table = corrections.suspects_decided({"me": log})
    assert list(table.columns) == ["path", "score", "was_wrong"]
    opinions = {path: held["me"][0] for path, held in corrections.opinions_by_photo({"me": log}).items()}
    assert dict(zip(table["path"], table["was_wrong"], strict=True)) == {
        path: opinion != "right" for path, opinion in opinions.items()
    }
    assert table["was_wrong"].any() and not table["was_wrong"].all()
    type_keys(open_session(tmp_path), "1")  # outside the pass of suspects: says nothing of their order
    assert len(corrections.suspects_decided({"me": open_log(tmp_path)})) == len(table)


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        (0, 0, ""),
        (1, 2, "Of the last 3 suspects decided on, 1 were wrong: go on."),
        (30, 50, "Of the last 50 suspects decided on, 0 were wrong: stop here."),
        (9, 41, "Of the last 50 suspects decided on, 9 were wrong: go on."),
    ],
)
def test_going_on_is_advised_while_one_in_ten_of_the_last_is_wrong(wrong, right, said):
    table = pd.DataFrame({"was_wrong": [True] * wrong + [False] * right})
    assert corrections.precision_summary(table) == said
