"""Invented people: the same seed gives the same person, and their looks tell gender, age and mask."""

from dataclasses import replace

import numpy as np
import pytest
from portraits import face_of

from mask_lib.base.labels import Gender, Mask
from mask_lib.sample import people


def mean_of(cue: str, years: int = 40, gender: Gender = Gender.FEMALE) -> float:
    return float(np.mean([getattr(face_of(seed, years, gender), cue) for seed in range(40)]))


def test_the_same_seed_gives_the_same_person_and_another_seed_another():
    assert face_of(1) == face_of(1)
    assert face_of(1) != face_of(2)


def test_hair_greys_and_faces_wear_with_the_years():
    for cue in ("wear", "grey"):
        young, middle, old = (mean_of(cue, years) for years in (22, 45, 68))
        assert young + 0.1 < middle < old - 0.1


def test_hair_recedes_and_beards_grow_on_men_only():
    women, men = ([face_of(seed, 50, gender) for seed in range(40)] for gender in (Gender.FEMALE, Gender.MALE))
    assert all(face.recession == 0 and not face.beard for face in women)
    assert any(face.recession > 0.1 for face in men)
    assert {face.beard for face in men} > {"", "stubble"}
    assert mean_of("brow", gender=Gender.MALE) > mean_of("brow") + 0.01


@pytest.mark.parametrize("race", people.SKINS)
def test_every_origin_has_its_own_colours(race):
    face = people.invent_face(np.random.default_rng(0), Gender.MALE, race, 30)
    light, dark = people.SKINS[race]
    assert all(low <= part <= high for low, part, high in zip(dark, face.skin, light, strict=True))
    assert face.hair in people.HAIRS[race]


def test_an_incorrect_mask_hangs_below_a_worn_one():
    tops = {mask: [people.invent_shot(np.random.default_rng(seed), mask).top for seed in range(40)] for mask in Mask}
    assert max(tops[Mask.WORN]) < 0.2 < 0.6 < min(tops[Mask.INCORRECT])


def test_shadow_is_darker_and_light_lighter_than_the_skin_and_the_hair():
    face = face_of()
    for tone in (people.skin_tone, people.hair_tone):
        assert sum(tone(face, -0.5)) < sum(tone(face, 0)) < sum(tone(face, 0.5))
    assert sum(people.hair_tone(replace(face, grey=1.0))) > sum(people.hair_tone(replace(face, grey=0.0)))


@pytest.mark.parametrize(("light", "side"), [(-0.5, 1), (0.5, -1)])
def test_the_dark_side_is_the_one_away_from_the_light(light, side):
    shot = people.invent_shot(np.random.default_rng(0), Mask.WORN)
    assert replace(shot, light=light).dark_side == side


@pytest.mark.parametrize("stage", people.AGE_STAGES)
@pytest.mark.parametrize("gender", Gender)
def test_a_stage_of_life_names_known_hairstyles_and_outfits(stage, gender):
    assert stage.hairstyles[gender]
    assert set(stage.hairstyles[gender]) <= set(people.HAIRSTYLES)
    assert stage.outfits[gender]
    assert set(stage.outfits[gender]) <= set(people.NECKLINES)
