"""Relabeling as a person does it: by key presses, and what they leave on disk."""

import io
import json
import threading

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image
from relabeling import PATHS, open_log, open_session, photo_table, shown, suspects_of, type_keys

from mask_lib.base import files, labels
from mask_lib.relabel.current_decisions import replay
from mask_lib.relabel.keys import MODES
from mask_lib.relabel.session import Session

HELMET = (
    labels.Attribute("helmet", ("yes", "no"), "ab"),
    labels.Attribute("vest", ("none", "orange", "yellow"), "cde", of_person=True),
)
FLOWER = (labels.Attribute("kind", ("rose", "tulip", "daisy"), "abc"),)


@pytest.fixture
def session(tmp_path) -> Session:
    return open_session(tmp_path)


def state(tmp_path) -> dict:
    """What stands, read anew from disk."""
    return replay(open_log(tmp_path).decisions)


def confirm(session: Session, *places: int) -> None:
    """Mark photos wrong and confirm them, by keys."""
    session.start("inspect")
    marked = ["1" if place in places else "2" for place in range(max(places) + 1)]
    type_keys(session, *marked)
    session.start("review")
    type_keys(session, *["y"] * len(places))


def test_inspecting_is_one_key_a_photo(session, tmp_path):
    first, second, third = PATHS[:3]
    answers = type_keys(session, "1", "2", " ")
    assert [answer["accepted"] for answer in answers] == [True] * 3
    assert state(tmp_path) == {first: {"mark": "wrong"}, second: {"mark": "right"}, third: {"mark": "right"}}
    assert session.screen()["position"] == 3 and session.screen()["progress"]["done"] == 3


def test_the_line_on_disk_tells_who_what_and_about_which_bytes(session, tmp_path):
    path = shown(session)
    (answer,) = type_keys(session, "1")
    (line,) = (tmp_path / "review" / "decisions.ann.jsonl").read_text(encoding="utf-8").splitlines()
    made = json.loads(line)
    assert answer["decisions"] == [made["id"]] == ["ann:0"]
    assert made["sha256"] == files.file_digest(tmp_path / "train" / "images" / path)
    assert [made[key] for key in ("path", "field", "old", "new", "reason")] == [path, "mark", None, "wrong", "inspect"]


def test_arrows_look_without_deciding(session, tmp_path):
    type_keys(session, "1")
    type_keys(session, "ArrowLeft")
    assert session.screen()["current"]["mark"] == "wrong"
    type_keys(session, "ArrowRight", "ArrowRight")
    assert session.screen()["position"] == 2
    assert len(state(tmp_path)) == 1


def test_a_photo_looked_back_at_can_be_decided_anew_and_work_goes_on_where_it_was(session, tmp_path):
    type_keys(session, "1", "2", "2", "ArrowLeft", "ArrowLeft", "ArrowLeft", "2")
    assert state(tmp_path)[PATHS[0]] == {"mark": "right"}
    assert session.screen()["position"] == 3


def test_photos_passed_over_come_back_at_the_end(session):
    type_keys(session, "ArrowRight", "ArrowRight", *["2"] * 10)
    assert session.screen()["position"] == 0


def test_a_skipped_photo_waits_no_more_here_but_does_among_the_suspects(session, tmp_path):
    first = shown(session)
    type_keys(session, "s")
    assert shown(session) != first
    assert state(tmp_path) == {first: {"skip": True}}
    screen = session.start("inspect")
    assert first not in [card["path"] for card in (screen["current"], *screen["upcoming"])]
    assert session.start("suspects")["current"]["path"] == first


def test_a_flag_can_be_taken_off_and_does_not_move_on(session, tmp_path):
    first = shown(session)
    type_keys(session, "f")
    assert state(tmp_path) == {first: {"flag": True}} and shown(session) == first
    type_keys(session, "f")
    assert state(tmp_path) == {first: {"flag": False}}


def test_a_new_start_shows_only_what_was_not_seen(session, tmp_path):
    type_keys(session, "1", "2")
    again = open_session(tmp_path)
    assert again.screen()["progress"]["total"] == 10 and shown(again) == PATHS[2]
    assert again.start("inspect", only_unseen=False)["progress"]["total"] == 12


def test_at_the_end_nothing_is_shown_and_no_key_writes(session, tmp_path):
    type_keys(session, *["2"] * 12)
    screen = session.screen()
    assert screen["current"] is None
    assert screen["progress"]["done"] == screen["progress"]["total"] == 12
    (answer,) = type_keys(session, "1")
    assert not answer["accepted"] and answer["decisions"] == []
    assert len(open_log(tmp_path).decisions) == 12


@pytest.mark.parametrize(
    ("label", "asked"), [(1, "class 1 (worn male 30-59)?"), (17, "class 17 (not worn female 60+)?")]
)
def test_the_grid_asks_about_one_class(session, label, asked):
    assert session.start("grid", label=label)["title"].endswith(asked)


def test_a_page_of_the_grid_is_done_with_one_key(session, tmp_path):
    screen = session.start("grid", label=1, page_size=4)
    page = [card["path"] for card in screen["page"]]
    assert screen["progress"]["total"] == 6 and len(page) == 4
    type_keys(session, "ArrowRight", "1", "Enter")
    assert state(tmp_path) == {path: {"mark": "wrong" if path == page[1] else "right"} for path in page}
    assert [card["path"] for card in session.screen()["page"]] != page
    type_keys(session, "u")
    assert state(tmp_path) == {page[1]: {"mark": "wrong"}}
    assert [card["mark"] for card in session.screen()["page"]] == [None, "wrong", None, None]


def test_the_cursor_moves_by_the_columns_of_the_screen_and_stays_inside(session):
    session.start("grid", label=1, page_size=6, columns=3)
    type_keys(session, "ArrowDown", "ArrowRight", "ArrowDown")
    assert session.screen()["cursor"] == 4
    type_keys(session, "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft")
    assert session.screen()["cursor"] == 0


def test_pages_turn_and_marks_are_taken_back_without_a_trace(session, tmp_path):
    session.start("grid", label=1, page_size=4)
    type_keys(session, "1", "1")
    type_keys(session, "n")
    assert session.screen()["position"] == 4
    type_keys(session, "p")
    assert session.screen()["position"] == 0 and state(tmp_path) == {}


def test_review_shows_only_what_was_marked_and_decides_three_ways(session, tmp_path):
    type_keys(session, "1", "2", "1", "1")
    first, _, third, fourth = PATHS[:4]
    assert session.start("review")["progress"]["total"] == 3
    type_keys(session, "Enter", "x", "n")
    found = state(tmp_path)
    assert found[first] == {"mark": "wrong", "verdict": "confirmed"}
    assert found[third] == {"mark": "wrong", "verdict": "drop"}
    assert found[fourth] == {"mark": "right"}
    assert session.start("review")["progress"]["total"] == 0
    assert session.start("relabel")["progress"]["total"] == 1


@pytest.mark.parametrize(
    ("keys", "label"),
    [("07", 7), ("7", 7), ("17", 17), ("00", 0), ("0⏎", 0), ("1⏎", 1), ("2", 2), ("01", 1), ("10", 10), ("q1⏎", 1)],
)
def test_a_class_is_typed_naturally(session, tmp_path, keys, label):
    confirm(session, 0)
    session.start("relabel")
    answers = type_keys(session, *("Enter" if key == "⏎" else key for key in keys))
    assert [len(answer["decisions"]) for answer in answers] == [0] * (len(keys) - 1) + [1]
    assert state(tmp_path)[PATHS[0]]["label"] == label


@pytest.mark.parametrize(
    ("keys", "words"),
    [("1⏎", "incorrect → worn"), ("Pg⏎", "male → female (4 photos)"), ("16", "incorrect male → not worn female"),
     ("7", "class incorrect male 30-59"), ("S", "incorrect ↔ not worn (2 photos)")],
)  # fmt: skip
def test_a_new_class_is_told_by_what_it_changes(session, keys, words):
    confirm(session, 0)
    session.start("relabel")
    type_keys(session, *("Enter" if key == "⏎" else key for key in keys))
    assert session.screen()["recent"][0]["text"] == words


@pytest.mark.parametrize("key", ["Backspace", "u", "Escape"])
def test_what_was_typed_can_be_forgotten_without_undoing_anything(session, tmp_path, key):
    confirm(session, 0)
    session.start("relabel")
    before = state(tmp_path)
    type_keys(session, "g", key, "1", key)
    assert session.screen()["pending"] == "" and state(tmp_path) == before
    (answer,) = type_keys(session, "Enter")
    assert not answer["accepted"]


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        ("w", {"mask": 1}),
        ("g", {"gender": 1}),
        ("l", {"age": 2}),
        ("gm", {"gender": 0}),
        ("gle", {"gender": 1, "age": 2, "mask": 2}),
    ],
)
def test_attributes_change_only_themselves(session, tmp_path, keys, changes):
    confirm(session, 1)
    session.start("relabel")
    given = session.screen()["current"]["label"]
    type_keys(session, *keys, "Enter")
    assert state(tmp_path)[PATHS[1]]["label"] == labels.with_values(given, changes)
    assert {path for path, found in state(tmp_path).items() if "label" in found} == {PATHS[1]}


def test_gender_and_age_go_to_the_whole_person_but_the_mask_does_not(session, tmp_path):
    confirm(session, 1)
    session.start("relabel")
    *_, answer = type_keys(session, "P", "g", "l", "e", "Enter")
    found = {path: what["label"] for path, what in state(tmp_path).items() if "label" in what}
    masks = [int(labels.decode(found[path])[0]) for path in PATHS[:4]]
    assert set(found) == set(PATHS[:4]) and len(answer["decisions"]) == 4
    assert masks == [1, 2, 0, 2]  # as they were but for the photo itself, which was worn
    assert {labels.decode(label)[1:] for label in found.values()} == {(1, 2)}
    lines = [made for made in open_log(tmp_path).decisions if made["field"] == "label"]
    assert len({made["time"] for made in lines}) == 1
    assert all(made["reason"].startswith("person:") for made in lines)
    type_keys(session, "u")
    assert not any("label" in what for what in state(tmp_path).values())
    assert shown(session) == PATHS[1] and session.screen()["scope"] == "photo"


def test_a_swap_exchanges_normal_and_incorrect(session, tmp_path):
    confirm(session, 0)
    session.start("relabel")
    incorrect, _, _, normal = PATHS[:4]
    type_keys(session, "S")
    found = state(tmp_path)
    assert (found[incorrect]["label"], found[normal]["label"]) == (13, 7)


def test_a_swap_without_a_pair_is_refused(tmp_path):
    photos = photo_table(tmp_path, people=3).drop(index=3)  # the first lacks the photo without a mask
    session = Session(photos, open_log(tmp_path), tmp_path)
    confirm(session, 0)
    session.start("relabel")
    (answer,) = type_keys(session, "S")
    assert not answer["accepted"] and "exactly one incorrect and one not worn photo" in answer["message"]


def test_a_confirmed_photo_that_was_right_after_all_is_not_asked_for_again(session, tmp_path):
    confirm(session, 0)
    session.start("relabel")
    type_keys(session, "n")
    assert state(tmp_path)[PATHS[0]] == {"mark": "right"}
    assert session.start("relabel")["progress"]["total"] == 0


def test_enter_accepts_a_suspicion_for_the_whole_person(session, tmp_path):
    screen = session.start("suspects")
    assert screen["scope"] == "person" and labels.describe(screen["current"]["suggested"]) == "incorrect female 30-59"
    type_keys(session, "Enter")
    assert {path: what["label"] for path, what in state(tmp_path).items()} == {
        path: label + 3 for path, label in zip(PATHS[:4], [7, 1, 1, 13], strict=True)
    }
    assert shown(session) == PATHS[4]
    assert open_log(tmp_path).decisions[0]["source_score"] == 0.9


def test_p_narrows_it_to_the_photo(session, tmp_path):
    session.start("suspects")
    type_keys(session, "P", "Enter")
    assert set(state(tmp_path)) == {PATHS[0]}
    assert shown(session) == PATHS[1] and session.screen()["scope"] == "person"


@pytest.mark.parametrize("key", ["n", "2"])
def test_a_suspicion_is_dismissed_once_for_all_its_photos(session, tmp_path, key):
    session.start("suspects")
    type_keys(session, key)
    assert state(tmp_path) == {path: {"mark": "right"} for path in PATHS[:4]}


def test_dropping_a_suspect_drops_one_photo_unless_asked_for_the_person(session, tmp_path):
    session.start("suspects")
    type_keys(session, "x", "P", "P", "x")
    assert state(tmp_path) == {path: {"verdict": "drop"} for path in PATHS[:4]}


def test_a_suspected_swap_is_accepted_for_both_photos(tmp_path):
    photos = photo_table(tmp_path, people=1)
    suspects = suspects_of(photos).assign(field="swap", suggested=[13, 1, 1, 7])
    session = Session(photos, open_log(tmp_path), tmp_path, suspects.iloc[[0, 3, 1, 2]])
    session.start("suspects")
    type_keys(session, "Enter")
    assert {path: what["label"] for path, what in state(tmp_path).items()} == {
        photos["path"][0]: 13,
        photos["path"][3]: 7,
    }


def test_a_suggestion_that_is_no_class_is_refused_at_once(tmp_path):
    photos = photo_table(tmp_path, people=1)
    with pytest.raises(ValueError, match="suggested"):
        Session(photos, open_log(tmp_path), tmp_path, suspects_of(photos).assign(suggested=[1, 2, 18, 3]))


def test_two_after_a_first_digit_is_a_digit_among_the_suspects(session, tmp_path):
    session.start("suspects")
    type_keys(session, "P", "1", "2")
    assert state(tmp_path) == {PATHS[0]: {"label": 12}}


def test_undo_walks_back_through_all_modes_and_a_restart_to_the_start(session, tmp_path):
    confirm(session, 0, 2)
    session.start("relabel")
    type_keys(session, "P", "g", "Enter", "S")
    session.start("suspects")
    type_keys(session, "Enter", "x", "n", "f")
    session.start("grid", label=1, page_size=2)
    type_keys(session, "1", "Enter")
    assert state(tmp_path)
    again = open_session(tmp_path)
    actions = len({made["time"] for made in open_log(tmp_path).decisions})
    answers = type_keys(again, *["Backspace", "u"] * (actions // 2 + 1))
    assert [answer["accepted"] for answer in answers][:actions] == [True] * actions
    assert not answers[-1]["accepted"] and "nothing left" in answers[-1]["message"]
    assert state(tmp_path) == {}


def test_undo_returns_to_the_photo_even_in_another_mode(session):
    type_keys(session, "1", "2")
    session.start("review")
    type_keys(session, "y")
    type_keys(session, "u", "u")
    assert shown(session) == PATHS[1]
    type_keys(session, "u")
    assert shown(session) == PATHS[0]


def test_the_last_ten_decisions_stay_visible_with_what_was_undone(session):
    type_keys(session, *["2"] * 10, "1", "u")
    recent = session.screen()["recent"]
    assert len(recent) == 10
    assert recent[0] == {"id": "ann:10", "text": "label wrong", "path": PATHS[10], "undone": True}
    assert [one["undone"] for one in recent[1:]] == [False] * 9


def test_a_key_from_an_outdated_screen_is_refused(session, tmp_path):
    first = shown(session)
    session.press("1", first, 1)
    answer = session.press("2", first, 2)
    assert not answer["accepted"] and answer["decisions"] == [] and answer["sequence"] == 2
    assert "out of date" in answer["message"]
    assert state(tmp_path) == {first: {"mark": "wrong"}}


@pytest.mark.parametrize("key", ["1", "u", "s", "f"])
def test_a_photo_decided_in_another_kernel_is_not_decided_here_unseen(tmp_path, key):
    here, there = open_session(tmp_path), open_session(tmp_path)
    first = shown(here)
    there.press("2", first, 1)
    answer = here.press(key, first, 1)
    assert not answer["accepted"] and "meanwhile" in answer["message"]
    assert state(tmp_path) == {first: {"mark": "right"}}
    assert answer["screen"]["current"]["path"] != first
    assert here.press("1", answer["screen"]["current"]["path"], 2)["accepted"]


def test_work_elsewhere_on_other_people_does_not_get_in_the_way(tmp_path):
    here, there = open_session(tmp_path), open_session(tmp_path)
    there.start("suspects")
    type_keys(there, "P", *["ArrowRight"] * 8, "x")
    assert here.press("1", shown(here), 1)["accepted"]
    assert here.screen()["version"] == there.screen()["version"] == 2


def test_two_kernels_that_take_turns_end_in_one_state(tmp_path):
    here, there = open_session(tmp_path), open_session(tmp_path)
    for key in ("1", "2", "1", "s", "f", "2"):
        for session in (here, there):
            type_keys(session, key)
    assert here.screen()["recent"] == there.screen()["recent"]
    assert state(tmp_path) == replay(here.log.decisions) == replay(there.log.decisions)


def test_threads_that_press_at_once_decide_each_photo_once(tmp_path):
    session = open_session(tmp_path, people=6)
    answers = []

    def work() -> None:
        for number in range(24):
            path = shown(session)
            if path:
                answers.append((path, session.press("1", path, number)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decided = [path for path, answer in answers if answer["accepted"]]
    assert sorted(decided) == sorted(set(decided)) == sorted(state(tmp_path))
    assert len(decided) == 24


def test_a_photo_that_is_gone_is_not_decided_on(session, tmp_path):
    (tmp_path / "train" / "images" / shown(session)).unlink()
    (answer,) = type_keys(session, "1")
    assert not answer["accepted"] and "No such file" in answer["message"]
    assert state(tmp_path) == {}


def test_an_unknown_key_does_nothing(session):
    (answer,) = type_keys(session, "F5")
    assert not answer["accepted"] and "F5 means nothing" in answer["message"]


@pytest.mark.parametrize("mode", MODES)
def test_every_screen_is_plain_json_and_lists_its_keys(session, mode):
    screen = session.start(mode)
    assert json.loads(json.dumps(screen, allow_nan=False)) == screen
    listed = " ".join(keys for keys, _ in screen["keys"])
    assert "Backspace u" in listed and "?" in listed and screen["mode"] == mode


def test_an_unknown_mode_or_option_is_refused(session):
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
        screen = session.start("suspects")
        assert screen["scope"] == ("person" if labels.attribute(labels.names()[-1]).of_person else "photo")
        type_keys(session, "Enter", "P", task[0].keys[-1], "Enter")
        found = {path: values["label"] for path, values in state(tmp_path).items()}
        assert found[paths[0]] == 1 and found[paths[each]] == labels.with_values(0, {task[0].name: task[0].size - 1})
        assert "S means nothing" in type_keys(session, "S")[0]["message"]
        type_keys(session, "u", "u")
        assert state(tmp_path) == {}


class Annotator(RuleBasedStateMachine):
    """Random keys in random modes; the disk always tells the same story as the screen."""

    folder = None

    @initialize()
    def begin(self):
        Annotator.number = getattr(Annotator, "number", 0) + 1
        self.home = Annotator.folder / str(Annotator.number)
        self.session = open_session(self.home, people=2)
        self.mode = "inspect"

    @rule(mode=st.sampled_from(MODES), only_unseen=st.booleans())
    def switch(self, mode, only_unseen):
        self.mode = mode
        self.session.start(mode, only_unseen=only_unseen, label=1, page_size=3)

    @rule(data=st.data())
    def press(self, data):
        key = data.draw(st.sampled_from(sorted(self.session.screen()["actions"])))
        before = len(self.session.log.decisions)
        answer = self.session.press(key, shown(self.session), 1)
        assert len(self.session.log.decisions) == before + len(answer["decisions"])

    @rule()
    def come_back_tomorrow(self):
        self.session, self.mode = open_session(self.home, people=2), "inspect"

    @invariant()
    def disk_and_screen_agree(self):
        if not hasattr(self, "home"):
            return
        found = state(self.home)
        for card in [self.session.screen()["current"], *self.session.screen()["page"]]:
            if card:
                said = found.get(card["path"], {})
                assert (card["mark"], card["verdict"]) == (said.get("mark"), said.get("verdict"))
                assert card["flag"] == said.get("flag", False)
                assert "label" not in said or card["label"] == said["label"]

    def teardown(self):
        if not hasattr(self, "home"):
            return
        type_keys(self.session, "Escape")
        for _ in range(len(self.session.log.decisions) + 1):
            if not type_keys(self.session, "u")[0]["accepted"]:
                break
        assert state(self.home) == {}


def test_random_keys_agree_with_the_disk_and_can_all_be_undone(tmp_path):
    Annotator.folder = tmp_path
    Annotator.TestCase.settings = settings(
        max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    Annotator.TestCase().runTest()
