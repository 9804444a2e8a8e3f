"""Hair: every style looks different, long hair falls, bald crowns show skin."""

from dataclasses import replace

import numpy as np
import pytest
from portraits import colour_at, differences, face_of, pixels, shot_of

from mask_lib.sample import hair, people

DARK = {"hair": (20, 16, 16), "skin": (240, 205, 180), "grey": 0.0, "wall": (230, 230, 230), "scene": "wall"}


def head(**changes) -> np.ndarray:
    return pixels(replace(face_of(), glasses="", earrings=False, **(DARK | changes)), shot_of())


def test_no_two_hairstyles_look_alike():
    assert min(differences([replace(face_of(), hairstyle=name) for name in people.HAIRSTYLES])) > 0.2


def test_only_long_hair_hangs_beside_the_neck():
    beside = {style: colour_at(head(hairstyle=style), 1.0, 1.0).mean() for style in ("crop", "long", "bob")}
    assert beside["crop"] > beside["long"] + 60
    assert beside["crop"] > beside["bob"] + 60


def test_a_bun_sits_on_top_of_the_head():
    assert colour_at(head(hairstyle="crop"), 0, -1.85).mean() > colour_at(head(hairstyle="bun"), 0, -1.85).mean() + 60


def test_a_receded_hairline_shows_the_skin_of_the_crown():
    full, bald = (colour_at(head(hairstyle="crop", recession=bare), 0.1, -1.15) for bare in (0.0, 0.75))
    assert bald.mean() > full.mean() + 60


@pytest.mark.parametrize("style", people.HAIRSTYLES)
def test_the_two_edges_of_the_hair_pair_up_from_ear_to_ear(style):
    outer, inner = hair.hair_edges(replace(face_of(), hairstyle=style))
    assert outer.shape == inner.shape == (60, 2)
    for edge in (outer, inner):
        assert edge[0, 0] < -0.9
        assert edge[-1, 0] > 0.9
    assert outer[30, 1] < inner[30, 1]
