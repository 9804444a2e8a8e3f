"""Invented people tell group, gender and age, and their portraits show what is described, in brush lines as asked."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from portraits import colour_at, differences, face_of, pixels, shot_of

from mask_lib.sample import crowd, people, portrait
from mask_lib.sample.people import AgeGroup, Gender, Mask

BLACK = (0, 0, 0)
BARE = face_of()._replace(hairstyle="crop", glasses="", earrings=False, makeup=0.0)
DARK = BARE._replace(hair=(20, 16, 16), skin=(240, 205, 180), grey=0.0, wall=(230, 230, 230), scene="wall")


@pytest.mark.parametrize("size", [(384, 512), (96, 128), (120, 100)])
def test_a_portrait_has_the_size_asked_for(size):
    picture = portrait.portrait(face_of(), shot_of(Mask.WORN), *size)
    assert (picture.size, picture.mode) == (size, "RGB")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("hairstyle", people.HAIRSTYLES),
        ("outfit", people.NECKLINES),
        ("glasses", ("", *people.FRAMES)),
        ("scene", people.SCENES),
    ],
)
def test_no_two_look_alike(part, names):
    assert min(differences([BARE._replace(**{part: name}) for name in names])) > 0.2


def test_hair_is_where_its_style_has_it():
    def at(x: float, y: float, **changes) -> float:
        return colour_at(pixels(DARK._replace(**changes), shot_of()), x, y).mean()

    beside = {style: at(1.0, 1.0, hairstyle=style) for style in ("crop", "long", "bob")}
    assert beside["crop"] > max(beside["long"], beside["bob"]) + 60
    assert at(0, -1.85) > at(0, -1.85, hairstyle="bun") + 60  # which sits on top
    assert at(0.1, -1.15, recession=0.75) > at(0.1, -1.15) + 60  # the skin of the crown
    assert at(0.1, -1.15, grey=1.0) > at(0.1, -1.15) + 60


def test_wear_writes_lines_on_the_forehead():
    def roughness(wear: float) -> float:
        forehead = pixels(BARE._replace(wear=wear), shot_of())[38:46, 40:56]
        return float(np.abs(np.diff(forehead.mean(axis=2), axis=0)).mean())

    assert roughness(1.0) > roughness(0.0) + 1


def test_a_broad_smile_shows_teeth_and_earrings_and_makeup_can_be_seen():
    still, smiling = (colour_at(pixels(BARE, shot_of()._replace(smile=smile)), 0, 0.94) for smile in (0.1, 1.0))
    assert smiling.mean() > still.mean() + 10
    assert min(differences([BARE, BARE._replace(makeup=1.0), BARE, BARE._replace(earrings=True)])) > 0.01


def test_light_from_one_side_brightens_that_side_and_exposure_the_whole():
    face, shot = face_of(), shot_of()._replace(light=0.9)
    lit, other = pixels(face, shot), pixels(face, shot._replace(light=-0.9))
    assert (lit - other)[:, 60:].mean() > 0 > (lit - other)[:, :36].mean()
    assert pixels(face, shot._replace(brightness=1.1)).mean() > lit.mean() > 0


@pytest.mark.parametrize(
    ("top", "nose_covered", "mouth_covered"), [(0.14, True, True), (0.66, False, True), (1.1, False, False)]
)
def test_a_mask_covers_the_nose_and_the_mouth_only_where_it_reaches(top, nose_covered, mouth_covered):
    face, shot = face_of(), shot_of()
    blue = shot._replace(mask=Mask.INCORRECT, top=top, kind="cloth", colour=(40, 90, 240))
    bare, masked = pixels(face, shot), pixels(face, blue)
    blueness = {y: (colour_at(masked, 0, y) - colour_at(bare, 0, y))[2] for y in (0.38, 0.92, 1.38)}
    assert (blueness[0.38] > 30) == nose_covered
    assert (blueness[0.92] > 30) == mouth_covered
    assert blueness[1.38] > 30


def test_masks_of_every_kind_cover_the_face_and_differ_even_in_one_colour():
    face, shot = face_of(), shot_of(Mask.WORN)._replace(colour=(120, 150, 180))
    bare, pictures = pixels(face, shot_of()), [pixels(face, shot._replace(kind=kind)) for kind in people.MASKS]
    assert min(np.abs(picture - bare)[60:85, 35:60].mean() for picture in pictures) > 20
    assert min(np.abs(one - other).mean() for one, other in pairwise(pictures)) > 0.2


@pytest.mark.parametrize("scene", people.SCENES)
def test_a_scene_stays_with_the_person_and_moves_with_the_camera(scene):
    def backdrop(seed: int = 1, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        face, shot = face_of()._replace(scene=scene, seed=seed), shot_of()._replace(shift=shift)
        return np.asarray(portrait.paint_scene(face, shot, (384, 512))).astype(int)

    here = backdrop()
    assert here.shape == (512, 384, 3)
    np.testing.assert_array_equal(here, backdrop())
    assert np.abs(here - backdrop(shift=(0.05, 0.04))).mean() > 0.2
    assert np.abs(here - backdrop(seed=2)).mean() > 0.2


# People


@pytest.mark.parametrize("count", [6, 7, 24, 40, 120, 2700])
def test_groups_are_allotted_by_quota_with_a_tenth_at_least_in_each(count):
    sizes = crowd.group_sizes(count)
    assert sum(sizes.values()) == count
    assert min(sizes.values()) >= max(1, count // 10)
    assert sizes[Gender.FEMALE, AgeGroup.MIDDLE] == max(sizes.values())
    invented = crowd.invent_people(crowd.stream(3), count, 0)
    assert Counter((person.gender, crowd.age_group(person.age)) for person in invented) == sizes


def mean_of(cue: str, years: int = 40, gender: Gender = Gender.FEMALE) -> float:
    return float(np.mean([getattr(face_of(seed, years, gender), cue) for seed in range(40)]))


@pytest.mark.parametrize("cue", ["wear", "grey"])
def test_hair_greys_and_faces_wear_with_the_years(cue):
    young, middle, old = (mean_of(cue, years) for years in (22, 45, 68))
    assert young + 0.1 < middle < old - 0.1


def test_hair_recedes_and_beards_grow_on_men_only():
    women, men = ([face_of(seed, 50, gender) for seed in range(40)] for gender in (Gender.FEMALE, Gender.MALE))
    assert all(face.recession == 0 and not face.beard for face in women)
    assert any(face.recession > 0.1 for face in men)
    assert {face.beard for face in men} > {"", "stubble"}
    assert mean_of("brow", gender=Gender.MALE) > mean_of("brow") + 0.01


def test_an_incorrect_mask_hangs_below_a_worn_one():
    tops = {mask: [people.invent_shot(np.random.default_rng(seed), mask).top for seed in range(40)] for mask in Mask}
    assert max(tops[Mask.WORN]) < 0.2 < 0.6 < min(tops[Mask.INCORRECT])


@pytest.mark.parametrize("stage", people.AGE_STAGES)
@pytest.mark.parametrize("gender", Gender)
def test_a_stage_of_life_names_known_hairstyles_and_outfits(stage, gender):
    assert set() < set(stage.hairstyles[gender]) <= set(people.HAIRSTYLES)
    assert set() < set(stage.outfits[gender]) <= set(people.NECKLINES)
