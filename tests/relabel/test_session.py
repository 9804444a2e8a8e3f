"""Relabeling as a person does it: by key presses, and what they leave on disk."""

import io
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from amount import amount
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from PIL import Image
from relabeling import PATHS, RIGHT, WRONG, open_log, open_session, photo_table, replay, shown, suspects_of, type_keys

from mask_lib.base import files, labels
from mask_lib.relabel.keys import MODES
from mask_lib.relabel.session import Session

HELMET = (
    labels.Attribute("helmet", ("yes", "no"), "ab"),
    labels.Attribute("vest", ("none", "orange", "yellow"), "cde", of_person=True),
)
FLOWER = (labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),)
DROPPED = {"verdict": "drop"}


@pytest.fixture
def session(tmp_path) -> Session:
    return open_session(tmp_path)


def state(tmp_path) -> dict[int, dict]:
    """What stands, read anew from disk, by a photo's place in `PATHS`."""
    return {PATHS.index(path): fields for path, fields in replay(open_log(tmp_path).decisions).items()}


def new_labels(tmp_path) -> dict[int, int]:
    return {place: fields["label"] for place, fields in state(tmp_path).items() if "label" in fields}


def relabel(session: Session, *places: int) -> None:
    """Mark photos wrong and confirm them, by keys; the first of them is then shown to be relabeled."""
    session.start("inspect")
    type_keys(session, *("1" if place in places else "2" for place in range(max(places) + 1)))
    session.start("review")
    type_keys(session, *["y"] * len(places))
    session.start("relabel")


@pytest.mark.parametrize(
    ("keys", "position", "expected"),
    [
        pytest.param(["1", "2", " "], 3, {0: WRONG, 1: RIGHT, 2: RIGHT}, id="one key decides on a photo"),
        pytest.param(["1", "ArrowLeft", "ArrowRight", "ArrowRight"], 2, {0: WRONG}, id="arrows look without deciding"),
        pytest.param(
            ["1", "2", "2", *["ArrowLeft"] * 3, "2"], 3, dict.fromkeys(range(3), RIGHT), id="work goes on where it was"
        ),
        pytest.param(
            ["ArrowRight"] * 2 + ["2"] * 10, 0, dict.fromkeys(range(2, 12), RIGHT), id="photos passed over come back"
        ),
        pytest.param(["f"], 0, {0: {"flag": True}}, id="a flag does not move on"),
        pytest.param(["f", "f"], 0, {0: {"flag": False}}, id="a flag can be taken off"),
    ],
)
def test_inspecting_is_one_key_a_photo(session, tmp_path, keys, position, expected):
    type_keys(session, *keys)
    assert state(tmp_path) == expected and session.screen()["position"] == position


def test_the_line_on_disk_tells_who_what_and_about_which_bytes(session, tmp_path):
    path = shown(session)
    (answer,) = type_keys(session, "1")
    (made,) = open_log(tmp_path).decisions
    assert answer["accepted"] and answer["decisions"] == [made["id"]] == ["ann:0"]
    assert made["sha256"] == files.file_digest(tmp_path / "train" / "images" / path)
    assert [made[key] for key in ("path", "field", "old", "new", "reason")] == [path, "mark", None, "wrong", "inspect"]


def test_a_skipped_photo_waits_no_more_here_but_does_among_the_suspects(session, tmp_path):
    type_keys(session, "s")
    assert shown(session) == PATHS[1] and state(tmp_path) == {0: {"skip": True}}
    screen = session.start("inspect")
    assert PATHS[0] not in [card["path"] for card in (screen["current"], *screen["upcoming"])]
    assert session.start("suspects")["current"]["path"] == PATHS[0]


def test_a_new_start_shows_only_what_was_not_seen(session, tmp_path):
    type_keys(session, "1", "2")
    again = open_session(tmp_path)
    assert again.screen()["progress"]["total"] == 10 and shown(again) == PATHS[2]
    assert again.start("inspect", only_unseen=False)["progress"]["total"] == 12


def test_at_the_end_nothing_is_shown_and_no_key_writes(session, tmp_path):
    *_, answer = type_keys(session, *["2"] * 12, "1")
    screen = answer["screen"]
    assert screen["current"] is None and screen["progress"]["done"] == screen["progress"]["total"] == 12
    assert not answer["accepted"] and answer["decisions"] == []
    assert len(open_log(tmp_path).decisions) == 12


def test_a_page_of_the_grid_is_done_with_one_key(session, tmp_path):
    screen = session.start("grid", label=1, page_size=4)
    assert screen["title"].endswith("class 1 (worn male 30-59)?")
    page = [PATHS.index(card["path"]) for card in screen["page"]]
    assert screen["progress"]["total"] == 6 and len(page) == 4
    type_keys(session, "ArrowRight", "1", "Enter")
    assert state(tmp_path) == {place: WRONG if place == page[1] else RIGHT for place in page}
    assert len(session.screen()["page"]) == 2
    type_keys(session, "u")
    assert state(tmp_path) == {page[1]: WRONG}
    assert [card["mark"] for card in session.screen()["page"]] == [None, "wrong", None, None]


@pytest.mark.parametrize(
    ("keys", "position"),
    [
        pytest.param("ArrowDown ArrowRight ArrowDown ArrowDown", 5, id="down by a row, and not out of the grid"),
        pytest.param("ArrowDown ArrowRight ArrowUp ArrowUp ArrowLeft ArrowLeft", 0, id="up and left"),
        pytest.param("1 1 n", 4, id="the next page"),
        pytest.param("1 1 n p", 0, id="the page before"),
    ],
)
def test_in_the_grid_the_cursor_moves_pages_turn_and_marks_are_taken_back(session, tmp_path, keys, position):
    session.start("grid", label=1, page_size=4, columns=2)
    type_keys(session, *keys.split())
    screen = session.screen()
    assert (screen["position"], screen["cursor"]) == (position, position % 4)
    assert state(tmp_path) == {}


def test_review_shows_only_what_was_marked_and_decides_three_ways(session, tmp_path):
    type_keys(session, "1", "2", "1", "1")
    assert session.start("review")["progress"]["total"] == 3
    type_keys(session, "Enter", "x", "n")
    assert state(tmp_path) == {0: WRONG | {"verdict": "confirmed"}, 1: RIGHT, 2: WRONG | DROPPED, 3: RIGHT}
    assert session.start("review")["progress"]["total"] == 0
    assert session.start("relabel")["progress"]["total"] == 1
    type_keys(session, "n")  # right after all
    assert state(tmp_path)[0] == RIGHT
    assert session.start("relabel")["progress"]["total"] == 0


@pytest.mark.parametrize(
    ("keys", "label"),
    [("0 7", 7), ("7", 7), ("1 7", 17), ("0 0", 0), ("0 Enter", 0), ("1 Enter", 1), ("2", 2), ("0 1", 1), ("1 0", 10),
     ("q 1 Enter", 1), ("q Enter", 1), ("g Enter", 10), ("l Enter", 8), ("g m Enter", 7), ("g l e Enter", 17)],
)  # fmt: skip
def test_a_class_is_typed_naturally_and_attributes_change_only_themselves(session, tmp_path, keys, label):
    relabel(session, 0)
    *begun, last = type_keys(session, *keys.split())
    assert not any(answer["decisions"] for answer in begun) and len(last["decisions"]) == 1
    assert new_labels(tmp_path) == {0: label}


@pytest.mark.parametrize(
    ("keys", "words"),
    [("1 Enter", "incorrect → worn"), ("P g Enter", "male → female (4 photos)"),
     ("1 6", "incorrect male → not worn female"), ("7", "class incorrect male 30-59"),
     ("S", "incorrect ↔ not worn (2 photos)")],
)  # fmt: skip
def test_a_new_class_is_told_by_what_it_changes(session, keys, words):
    relabel(session, 0)
    type_keys(session, *keys.split())
    assert session.screen()["recent"][0]["text"] == words


@pytest.mark.parametrize("key", ["Backspace", "u", "Escape"])
def test_what_was_typed_can_be_forgotten_without_undoing_anything(session, tmp_path, key):
    relabel(session, 0)
    before = state(tmp_path)
    type_keys(session, "g", key, "1", key)
    assert session.screen()["pending"] == "" and state(tmp_path) == before
    (answer,) = type_keys(session, "Enter")
    assert not answer["accepted"]


def test_gender_and_age_go_to_the_whole_person_but_the_mask_does_not(session, tmp_path):
    relabel(session, 1)
    *_, answer = type_keys(session, "P", "g", "l", "e", "Enter")
    assert len(answer["decisions"]) == 4
    masks = [1, 2, 0, 2]  # as they were but for the photo itself, which was worn
    assert new_labels(tmp_path) == {place: labels.encode(mask, 1, 2) for place, mask in enumerate(masks)}
    type_keys(session, "u")  # all of it is one action
    assert new_labels(tmp_path) == {}
    assert shown(session) == PATHS[1] and session.screen()["scope"] == "photo"


@pytest.mark.parametrize(
    ("keys", "expected", "following"),
    [
        pytest.param(
            "Enter", {place: {"label": new} for place, new in enumerate((10, 4, 4, 16))}, 4, id="Enter accepts for all"
        ),
        pytest.param("P Enter", {0: {"label": 10}}, 1, id="P narrows it to the photo"),
        pytest.param("P 1 2", {0: {"label": 12}}, 1, id="2 after a first digit is a digit"),
        pytest.param("n", dict.fromkeys(range(4), RIGHT), 4, id="n dismisses it for all"),
        pytest.param("2", dict.fromkeys(range(4), RIGHT), 4, id="2 dismisses it for all"),
        pytest.param("x", {0: DROPPED}, 1, id="x drops one photo"),
        pytest.param("x P P x", dict.fromkeys(range(4), DROPPED), 4, id="x drops all where asked to"),
    ],
)
def test_a_suspicion_is_decided_for_the_whole_person(session, tmp_path, keys, expected, following):
    screen = session.start("suspects")
    assert labels.describe(screen["current"]["suggested"]) == "incorrect female 30-59"
    type_keys(session, *keys.split())
    assert state(tmp_path) == expected
    assert shown(session) == PATHS[following] and session.screen()["scope"] == "person"
    assert {made["source_score"] for made in open_log(tmp_path).decisions} == {0.9}


@pytest.mark.parametrize("key", ["Enter", "S"])
def test_a_suspected_swap_exchanges_normal_and_incorrect(tmp_path, key):
    photos = photo_table(tmp_path, people=1)
    suspects = suspects_of(photos).assign(field="swap", suggested=[13, 1, 1, 7])
    session = Session(photos, open_log(tmp_path), tmp_path, suspects.iloc[[0, 3, 1, 2]])
    session.start("suspects")
    type_keys(session, key)
    assert new_labels(tmp_path) == {0: 13, 3: 7}
    type_keys(session, "u")
    assert state(tmp_path) == {}


def test_a_swap_without_a_pair_is_refused(tmp_path):
    photos = photo_table(tmp_path).drop(index=3)  # the first lacks the photo without a mask
    session = Session(photos, open_log(tmp_path), tmp_path)
    relabel(session, 0)
    (answer,) = type_keys(session, "S")
    assert not answer["accepted"] and "exactly one incorrect and one not worn photo" in answer["message"]


def test_undo_returns_to_the_photo_even_in_another_mode_and_stays_visible(session):
    type_keys(session, "1", "2")
    session.start("review")
    type_keys(session, "y", "u", "u")
    assert shown(session) == PATHS[1]
    assert [one["undone"] for one in session.screen()["recent"]] == [True, True, False]
    type_keys(session, "u")
    assert shown(session) == PATHS[0]
    assert session.screen()["recent"][-1] == {"id": "ann:0", "text": "label wrong", "path": PATHS[0], "undone": True}


def test_a_key_from_an_outdated_screen_is_refused(session, tmp_path):
    session.press("1", PATHS[0], 1)
    answer = session.press("2", PATHS[0], 2)
    assert not answer["accepted"] and answer["decisions"] == [] and answer["sequence"] == 2
    assert "out of date" in answer["message"]
    assert state(tmp_path) == {0: WRONG}


@pytest.mark.parametrize("key", ["1", "u", "s", "f"])
def test_a_photo_decided_in_another_kernel_is_not_decided_here_unseen(tmp_path, key):
    here, there = open_session(tmp_path), open_session(tmp_path)
    there.press("2", PATHS[0], 1)
    answer = here.press(key, PATHS[0], 1)
    assert not answer["accepted"] and "meanwhile" in answer["message"]
    assert state(tmp_path) == {0: RIGHT}
    assert answer["screen"]["current"]["path"] == PATHS[1]
    assert here.press("1", PATHS[1], 2)["accepted"] and shown(there) == PATHS[2]


def test_work_elsewhere_on_other_people_does_not_get_in_the_way(tmp_path):
    here, there = open_session(tmp_path), open_session(tmp_path)
    there.start("suspects")
    type_keys(there, "P", *["ArrowRight"] * 8, "x")
    assert here.press("1", shown(here), 1)["accepted"]
    assert here.screen()["version"] == there.screen()["version"] == 2


def test_threads_that_press_at_once_decide_each_photo_once(tmp_path):
    session, decided = open_session(tmp_path, people=6), []

    def work(_) -> None:
        for number in range(24):
            path = shown(session)
            if path and session.press("1", path, number)["accepted"]:
                decided.append(path)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert sorted(decided) == sorted(set(decided)) == sorted(replay(open_log(tmp_path).decisions))
    assert len(decided) == 24


def test_a_photo_that_is_gone_is_not_decided_on(session, tmp_path):
    (tmp_path / "train" / "images" / shown(session)).unlink()
    (answer,) = type_keys(session, "1")
    assert not answer["accepted"] and "No such file" in answer["message"]
    assert state(tmp_path) == {}


def test_an_unknown_key_mode_or_option_is_refused(session):
    (answer,) = type_keys(session, "F5")
    assert not answer["accepted"] and "F5 means nothing" in answer["message"]
    with pytest.raises(ValueError, match="modes are"):
        session.start("zap")
    with pytest.raises(ValueError, match="sorting"):
        session.start("inspect", sorting="down")


def test_photos_come_as_they_are_and_odd_formats_as_jpeg(session, tmp_path):
    path = shown(session)
    file = tmp_path / "train" / "images" / path
    assert session.photos.photo_bytes(path) == (file.read_bytes(), "image/png")
    Image.new("RGB", (5, 3), "red").save(file, "BMP")
    content, kind = session.photos.photo_bytes(path)
    assert kind == "image/jpeg" and Image.open(io.BytesIO(content)).size == (5, 3)
    Image.new("RGBA", (5, 3), (0, 255, 0, 0)).save(file, "PNG")  # as four channels without yellow: not transparent
    content, kind = session.photos.photo_bytes(path)
    red, green, blue = Image.open(io.BytesIO(content)).getpixel((2, 1))
    assert kind == "image/jpeg" and green > 250 and max(red, blue) < 5
    with pytest.raises(KeyError):
        session.photos.photo_bytes("../../etc/passwd")


@pytest.mark.parametrize(("task", "each"), [(HELMET, 2), (FLOWER, 1)])
def test_any_attributes_are_typed_accepted_and_undone(tmp_path, task, each):
    paths = list(photo_table(tmp_path)["path"][: 2 * each])
    with labels.using(task):
        photos = pd.DataFrame({"path": paths, "person": [f"{row // each}" for row in range(2 * each)], "label": 0})
        suggested = labels.encode(*(1 for _ in task))
        suspects = photos.assign(field=labels.names()[-1], current=0, suggested=suggested, score=0.9, why="it looks so")
        session = Session(photos.assign(split="train"), open_log(tmp_path), tmp_path, suspects)
        assert session.start("suspects")["scope"] == ("person" if task[-1].of_person else "photo")
        type_keys(session, "Enter", "P", task[0].keys[-1], "Enter")
        found = new_labels(tmp_path)
        assert found[0] == 1 and found[each] == labels.with_values(0, {task[0].name: task[0].size - 1})
        assert "S means nothing" in type_keys(session, "S")[0]["message"]
        type_keys(session, "u", "u")
        assert state(tmp_path) == {}


class Annotators(RuleBasedStateMachine):
    """Random keys in random modes of two kernels; the disk always tells the same story as the screens, plain JSON."""

    folder = None

    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=self.folder))
        self.kernels = [open_session(self.home, people=2) for _ in range(2)]

    @rule(kernel=st.sampled_from((0, 1)), mode=st.sampled_from(MODES), only_unseen=st.booleans())
    def switch(self, kernel, mode, only_unseen):
        self.kernels[kernel].start(mode, only_unseen=only_unseen, label=1, page_size=3)

    @rule(kernel=st.sampled_from((0, 1)), data=st.data())
    def press(self, kernel, data):
        session = self.kernels[kernel]
        key = data.draw(st.sampled_from(sorted(session.screen()["actions"])))
        before = len(session.log.decisions)
        answer = session.press(key, shown(session), 1)
        assert len(session.log.decisions) == before + len(answer["decisions"])

    @rule(kernel=st.sampled_from((0, 1)))
    def come_back_tomorrow(self, kernel):
        self.kernels[kernel] = open_session(self.home, people=2)

    @invariant()
    def disk_and_screens_agree(self):
        here, there = screens = [session.screen() for session in self.kernels]
        found = replay(open_log(self.home).decisions)
        assert here["recent"] == there["recent"]
        for screen in screens:
            assert json.loads(json.dumps(screen, allow_nan=False)) == screen
            for card in filter(None, [screen["current"], *screen["page"]]):
                said = found.get(card["path"], {})
                assert (card["mark"], card["verdict"]) == (said.get("mark"), said.get("verdict"))
                assert card["flag"] == said.get("flag", False)
                assert "label" not in said or card["label"] == said["label"]

    def teardown(self):
        session = open_session(self.home, people=2)
        standing = sum(not action.is_undone for action in session.log.actions)
        *undone, last = type_keys(session, *["u"] * (standing + 1))
        assert all(answer["accepted"] for answer in undone)
        assert not last["accepted"] and "nothing left" in last["message"]
        assert replay(open_log(self.home).decisions) == {}


def test_random_keys_agree_with_the_disk_and_can_all_be_undone(tmp_path):
    Annotators.folder = tmp_path
    often = {"max_examples": amount(8, 50), "stateful_step_count": 25, "deadline": None, "database": None}
    run_state_machine_as_test(Annotators, settings=settings(**often, suppress_health_check=list(HealthCheck)))
