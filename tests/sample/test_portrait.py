"""Portraits: the same numbers give the same picture, and what is described can be seen in it."""

from dataclasses import replace

import numpy as np
import pytest
from portraits import colour_at, differences, face_of, pixels, shot_of

from mask_lib.base.labels import Mask
from mask_lib.sample import portrait


def test_the_same_face_and_shot_give_the_same_picture():
    face, shot = face_of(), shot_of(Mask.WORN)
    np.testing.assert_array_equal(pixels(face, shot), pixels(face, shot))


@pytest.mark.parametrize("size", [(384, 512), (96, 128), (120, 100)])
def test_a_picture_has_the_size_asked_for(size):
    picture = portrait.portrait(face_of(), shot_of(Mask.WORN), *size)
    assert (picture.size, picture.mode) == (size, "RGB")


def test_wear_writes_lines_on_the_forehead():
    def roughness(wear: float) -> float:
        face = replace(face_of(), wear=wear, hairstyle="crop", glasses="")
        return float(np.abs(np.diff(pixels(face, shot_of())[38:46, 40:56].mean(axis=2), axis=0)).mean())

    assert roughness(1.0) > roughness(0.0) + 1


def test_a_broad_smile_shows_teeth_and_earrings_and_makeup_can_be_seen():
    face = replace(face_of(), glasses="", makeup=0.0, earrings=False, hairstyle="crop")
    still, smiling = (colour_at(pixels(face, replace(shot_of(), smile=smile)), 0, 0.94) for smile in (0.1, 1.0))
    assert smiling.mean() > still.mean() + 10
    assert min(differences([face, replace(face, makeup=1.0), face, replace(face, earrings=True)])) > 0.01


def test_light_from_one_side_brightens_that_side_and_exposure_the_whole():
    face, shot = face_of(), replace(shot_of(), light=0.9)
    lit, other = pixels(face, shot), pixels(face, replace(shot, light=-0.9))
    assert (lit - other)[:, 60:].mean() > 0 > (lit - other)[:, :36].mean()
    assert pixels(face, replace(shot, brightness=1.1)).mean() > lit.mean() > 0
