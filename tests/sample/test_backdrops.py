"""Backgrounds: each kind can be painted, belongs to the person, and shifts with the camera."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from portraits import face_of, shot_of

from mask_lib.sample import backdrops, people


def backdrop(scene: str, shift: tuple[float, float] = (0.0, 0.0), seed: int = 1) -> np.ndarray:
    face, shot = replace(face_of(), scene=scene, seed=seed), replace(shot_of(), shift=shift)
    return np.asarray(backdrops.paint_scene(face, shot, (384, 512))).astype(int)


def test_every_scene_a_person_may_stand_before_has_a_painter():
    assert set(people.SCENES) == set(backdrops.PAINTERS)


@pytest.mark.parametrize("scene", people.SCENES)
def test_a_scene_stays_with_the_person_and_moves_with_the_camera(scene):
    here, elsewhere = backdrop(scene), backdrop(scene, shift=(0.05, 0.04))
    assert here.shape == (512, 384, 3)
    np.testing.assert_array_equal(here, backdrop(scene))
    assert np.abs(here - elsewhere).mean() > 0.2
    assert np.abs(here - backdrop(scene, seed=2)).mean() > 0.2


def test_scenes_differ():
    pictures = [backdrop(scene) for scene in people.SCENES]
    assert all(np.abs(one - other).mean() > 2 for one, other in pairwise(pictures))
