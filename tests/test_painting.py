"""Portraits: the same numbers give the same picture, and what is described can be seen in it."""

from dataclasses import replace

import numpy as np
import pytest

from mask_lib import painting
from mask_lib.labels import Gender, Mask


def face_of(seed: int = 1, years: int = 40, gender: Gender = Gender.FEMALE) -> painting.Face:
    return painting.invent_face(np.random.default_rng(seed), gender, "Asian", years)


def shot_of(mask: Mask, seed: int = 2) -> painting.Shot:
    """An upright photo in the middle of the picture, so that places in it are known."""
    shot = painting.invent_shot(np.random.default_rng(seed), mask)
    return replace(shot, shift=(0.0, 0.0), scale=1.0, angle=0.0, turn=0.0, nod=0.0)


def pixels(face: painting.Face, shot: painting.Shot) -> np.ndarray:
    return np.asarray(painting.portrait(face, shot, 96, 128)).astype(int)


def middle_of_face(picture: np.ndarray, y: float) -> np.ndarray:
    """The mean colour in a small square at the height y of the face, in head units."""
    row = round(128 * 0.46 + y * 0.215 * 96)
    return picture[row - 1 : row + 2, 46:51].mean(axis=(0, 1))


def test_the_same_face_and_shot_give_the_same_picture():
    face, shot = face_of(), shot_of(Mask.WORN)
    np.testing.assert_array_equal(pixels(face, shot), pixels(face, shot))


@pytest.mark.parametrize("size", [(384, 512), (96, 128), (120, 100)])
def test_a_picture_has_the_size_asked_for(size):
    assert painting.portrait(face_of(), shot_of(Mask.WORN), *size).size == size


@pytest.mark.parametrize(
    ("top", "nose_covered", "mouth_covered"), [(0.14, True, True), (0.66, False, True), (1.1, False, False)]
)
def test_a_mask_covers_the_nose_and_the_mouth_only_where_it_reaches(top, nose_covered, mouth_covered):
    face = face_of()
    bare = pixels(face, shot_of(Mask.NOT_WORN))
    masked = pixels(
        face, replace(shot_of(Mask.NOT_WORN), mask=Mask.INCORRECT, top=top, kind="cloth", colour=(40, 90, 240))
    )
    blueness = {y: (middle_of_face(masked, y) - middle_of_face(bare, y))[2] for y in (0.38, 0.92, 1.38)}
    assert (blueness[0.38] > 30) == nose_covered
    assert (blueness[0.92] > 30) == mouth_covered
    assert blueness[1.38] > 30


def test_two_photos_of_one_person_are_closer_than_photos_of_two_people():
    first, second = face_of(1), face_of(5)
    shots = [shot_of(Mask.NOT_WORN, seed) for seed in (2, 3)]
    same = np.abs(pixels(first, shots[0]) - pixels(first, shots[1])).mean()
    other = np.abs(pixels(first, shots[0]) - pixels(second, shots[0])).mean()
    assert same < other


def test_hair_greys_and_faces_wear_with_the_years():
    def mean_of(cue: str, years: int) -> float:
        return float(np.mean([getattr(face_of(seed, years), cue) for seed in range(40)]))

    for cue in ("wear", "grey"):
        young, middle, old = (mean_of(cue, years) for years in (22, 45, 68))
        assert young + 0.1 < middle < old - 0.1


def test_every_look_can_be_painted():
    face = face_of(gender=Gender.MALE)
    looks = [replace(face, hairstyle=name) for name in painting.HAIRSTYLES]
    looks += [replace(face, outfit=name) for name in painting.COLLARS]
    looks += [replace(face, scene=name) for name in painting.SCENES]
    looks += [replace(face, glasses=name) for name in painting.FRAMES]
    looks += [replace(face, beard=name) for name in ("stubble", "moustache", "full")]
    looks += [replace(face, recession=0.75, wear=1.0, parting=side * 0.35) for side in (-1, 1)]
    plain = pixels(replace(face, beard="", glasses=""), shot_of(Mask.NOT_WORN))
    changed = [np.abs(pixels(look, shot_of(Mask.NOT_WORN)) - plain).mean() for look in looks]
    assert sum(change > 0.2 for change in changed) >= len(looks) - 4  # at most the face's own look of each kind


@pytest.mark.parametrize("kind", painting.MASKS)
def test_every_kind_of_mask_can_be_painted(kind):
    face, shot = face_of(), shot_of(Mask.WORN)
    bare = pixels(face, replace(shot, mask=Mask.NOT_WORN))
    masked = pixels(face, replace(shot, kind=kind, colour=painting.MASKS[kind][0]))
    assert np.abs(masked - bare)[60:85, 35:60].mean() > 20


def test_a_spline_passes_through_its_points():
    knots = [(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)]
    curve = painting.spline(knots, steps=4)
    np.testing.assert_allclose(curve[::4], knots, atol=1e-12)
    assert len(painting.spline(knots, closed=True, steps=4)) == 12
