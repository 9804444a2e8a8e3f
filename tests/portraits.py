"""Painted portraits that several test files look at: known faces, upright in the middle."""

from itertools import pairwise

import numpy as np

from mask_lib.sample import people, portrait
from mask_lib.sample.people import Gender, Mask

WIDTH, HEIGHT = 96, 128  # pixels


def face_of(seed: int = 1, years: int = 40, gender: Gender = Gender.FEMALE) -> people.Face:
    return people.invent_face(np.random.default_rng(seed), gender, "Asian", years)


def shot_of(mask: Mask = Mask.NOT_WORN, seed: int = 2) -> people.Shot:
    """An upright photo in the middle of the picture, so that places in it are known."""
    shot = people.invent_shot(np.random.default_rng(seed), mask)
    return shot._replace(shift=(0.0, 0.0), scale=1.0, angle=0.0, turn=0.0, nod=0.0)


def pixels(face: people.Face, shot: people.Shot) -> np.ndarray:
    """(128, 96, 3) int64 of the portrait."""
    return np.asarray(portrait.portrait(face, shot, WIDTH, HEIGHT)).astype(int)


def colour_at(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The mean colour of nine pixels round a place, given in head units."""
    column, row = round(WIDTH * 0.5 + x * 0.215 * WIDTH), round(HEIGHT * 0.46 + y * 0.215 * WIDTH)
    return picture[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1))


def differences(faces: list[people.Face]) -> list[float]:
    """How far the portraits of neighbours in a list of faces differ, in mean grey levels."""
    pictures = [pixels(face, shot_of()) for face in faces]
    return [float(np.abs(one - other).mean()) for one, other in pairwise(pictures)]
