"""What is worn can be seen: masks cover what they reach, outfits and glasses differ."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from portraits import colour_at, differences, face_of, pixels, shot_of

from mask_lib.base.labels import Mask
from mask_lib.sample import clothes, people


@pytest.mark.parametrize(
    ("top", "nose_covered", "mouth_covered"), [(0.14, True, True), (0.66, False, True), (1.1, False, False)]
)
def test_a_mask_covers_the_nose_and_the_mouth_only_where_it_reaches(top, nose_covered, mouth_covered):
    face, shot = face_of(), shot_of()
    blue = replace(shot, mask=Mask.INCORRECT, top=top, kind="cloth", colour=(40, 90, 240))
    bare, masked = pixels(face, shot), pixels(face, blue)
    blueness = {y: (colour_at(masked, 0, y) - colour_at(bare, 0, y))[2] for y in (0.38, 0.92, 1.38)}
    assert (blueness[0.38] > 30) == nose_covered
    assert (blueness[0.92] > 30) == mouth_covered
    assert blueness[1.38] > 30


@pytest.mark.parametrize("kind", people.MASKS)
def test_every_kind_of_mask_can_be_painted(kind):
    face, shot = face_of(), shot_of(Mask.WORN)
    bare = pixels(face, replace(shot, mask=Mask.NOT_WORN))
    masked = pixels(face, replace(shot, kind=kind, colour=people.MASKS[kind][0]))
    assert np.abs(masked - bare)[60:85, 35:60].mean() > 20


def test_masks_of_one_colour_still_differ_by_their_kind():
    face, shot = face_of(), replace(shot_of(Mask.WORN), colour=(120, 150, 180))
    pictures = [pixels(face, replace(shot, kind=kind)) for kind in ("surgical", "cloth", "ffp2")]
    assert all(np.abs(one - other).mean() > 0.2 for one, other in pairwise(pictures))


def test_no_two_outfits_or_frames_look_alike():
    face = replace(face_of(), hairstyle="crop")
    assert set(clothes.COLLARS) == set(people.NECKLINES)
    shapes = ("blouse", "blazer", "shirt", "tee", "turtleneck", "hoodie")
    assert min(differences([replace(face, outfit=name) for name in shapes])) > 0.2
    assert min(differences([replace(face, glasses=name) for name in ("", *people.FRAMES)])) > 0.2
