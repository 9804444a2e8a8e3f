"""Invented people tell group, gender and age, and their portraits show what is described, in brush lines as asked."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from portraits import colour_at, differences, face_of, pixels, shot_of

from mask_lib.sample import backdrops, brush, crowd, people, portrait
from mask_lib.sample.people import AgeGroup, Gender, Mask

BLACK = (0, 0, 0)
BARE = replace(face_of(), hairstyle="crop", glasses="", earrings=False, makeup=0.0)
DARK = replace(BARE, hair=(20, 16, 16), skin=(240, 205, 180), grey=0.0, wall=(230, 230, 230), scene="wall")


@pytest.mark.parametrize("size", [(384, 512), (96, 128), (120, 100)])
def test_the_same_face_and_shot_give_the_same_picture_of_the_size_asked_for(size):
    picture, again = (portrait.portrait(face_of(), shot_of(Mask.WORN), *size) for _ in range(2))
    assert (picture.size, picture.mode) == (size, "RGB")
    assert picture.tobytes() == again.tobytes()


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
    assert min(differences([replace(BARE, **{part: name}) for name in names])) > 0.2


def test_hair_is_where_its_style_has_it():
    def at(x: float, y: float, **changes) -> float:
        return colour_at(pixels(replace(DARK, **changes), shot_of()), x, y).mean()

    beside = {style: at(1.0, 1.0, hairstyle=style) for style in ("crop", "long", "bob")}
    assert beside["crop"] > max(beside["long"], beside["bob"]) + 60
    assert at(0, -1.85) > at(0, -1.85, hairstyle="bun") + 60  # which sits on top
    assert at(0.1, -1.15, recession=0.75) > at(0.1, -1.15) + 60  # the skin of the crown
    assert at(0.1, -1.15, grey=1.0) > at(0.1, -1.15) + 60


def test_wear_writes_lines_on_the_forehead():
    def roughness(wear: float) -> float:
        forehead = pixels(replace(BARE, wear=wear), shot_of())[38:46, 40:56]
        return float(np.abs(np.diff(forehead.mean(axis=2), axis=0)).mean())

    assert roughness(1.0) > roughness(0.0) + 1


def test_a_broad_smile_shows_teeth_and_earrings_and_makeup_can_be_seen():
    still, smiling = (colour_at(pixels(BARE, replace(shot_of(), smile=smile)), 0, 0.94) for smile in (0.1, 1.0))
    assert smiling.mean() > still.mean() + 10
    assert min(differences([BARE, replace(BARE, makeup=1.0), BARE, replace(BARE, earrings=True)])) > 0.01


def test_light_from_one_side_brightens_that_side_and_exposure_the_whole():
    face, shot = face_of(), replace(shot_of(), light=0.9)
    lit, other = pixels(face, shot), pixels(face, replace(shot, light=-0.9))
    assert (lit - other)[:, 60:].mean() > 0 > (lit - other)[:, :36].mean()
    assert pixels(face, replace(shot, brightness=1.1)).mean() > lit.mean() > 0


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


def test_masks_of_every_kind_cover_the_face_and_differ_even_in_one_colour():
    face, shot = face_of(), replace(shot_of(Mask.WORN), colour=(120, 150, 180))
    bare, pictures = pixels(face, shot_of()), [pixels(face, replace(shot, kind=kind)) for kind in people.MASKS]
    assert min(np.abs(picture - bare)[60:85, 35:60].mean() for picture in pictures) > 20
    assert min(np.abs(one - other).mean() for one, other in pairwise(pictures)) > 0.2


@pytest.mark.parametrize("scene", people.SCENES)
def test_a_scene_stays_with_the_person_and_moves_with_the_camera(scene):
    def backdrop(seed: int = 1, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        face, shot = replace(face_of(), scene=scene, seed=seed), replace(shot_of(), shift=shift)
        return np.asarray(backdrops.paint_scene(face, shot, (384, 512))).astype(int)

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


@pytest.mark.parametrize("race", people.SKINS)
def test_every_origin_has_its_own_colours(race):
    face = people.invent_face(np.random.default_rng(0), Gender.MALE, race, 30)
    light, dark = people.SKINS[race]
    assert all(low <= part <= high for low, part, high in zip(dark, face.skin, light, strict=True))
    assert face.hair in people.HAIRS[race]


def test_an_incorrect_mask_hangs_below_a_worn_one():
    tops = {mask: [people.invent_shot(np.random.default_rng(seed), mask).top for seed in range(40)] for mask in Mask}
    assert max(tops[Mask.WORN]) < 0.2 < 0.6 < min(tops[Mask.INCORRECT])


@pytest.mark.parametrize("stage", people.AGE_STAGES)
@pytest.mark.parametrize("gender", Gender)
def test_a_stage_of_life_names_known_hairstyles_and_outfits(stage, gender):
    assert set() < set(stage.hairstyles[gender]) <= set(people.HAIRSTYLES)
    assert set() < set(stage.outfits[gender]) <= set(people.NECKLINES)


# Brush lines


def drawn(draw, **pose) -> np.ndarray:
    """(200, 200) booleans: what `draw` blackened on white, through a pen of 50 pixels a unit in the middle."""
    image = Image.new("RGB", (200, 200), "white")
    draw(brush.Pen(image, (100, 100), 50, **pose))
    return np.asarray(image)[..., 0] < 128


def middle(black: np.ndarray) -> tuple[float, float]:
    """Mean x and y of what is black, in head units."""
    rows, columns = np.nonzero(black)
    return (columns.mean() - 100) / 50, (rows.mean() - 100) / 50


def test_a_shape_lies_where_it_is_put_and_a_side_mirrors_it():
    spot = brush.oval(0.5, -0.4, 0.2, 0.2)
    assert middle(drawn(lambda pen: pen.fill(spot, BLACK))) == pytest.approx((0.5, -0.4), abs=0.02)
    assert middle(drawn(lambda pen: pen.fill(spot, BLACK, side=-1))) == pytest.approx((-0.5, -0.4), abs=0.02)


def test_a_pose_turns_the_picture_and_moves_the_middle_of_the_face_more_than_its_rim():
    right, centre = brush.oval(1.0, 0.0, 0.1, 0.1), brush.oval(0.0, 0.0, 0.1, 0.1)
    assert middle(drawn(lambda pen: pen.fill(right, BLACK), angle=90)) == pytest.approx((0, 1), abs=0.03)
    moves = [middle(drawn(lambda pen, spot=spot: pen.fill(spot, BLACK), lean=(0.2, 0)))[0] for spot in (centre, right)]
    assert moves[0] == pytest.approx(0.2, abs=0.03)
    assert moves[1] == pytest.approx(1.0, abs=0.03)


def test_a_brush_line_has_its_full_width_in_the_middle_and_the_asked_share_at_its_ends():
    line = [(x, 0.0) for x in np.linspace(-1.5, 1.5, 31)]
    black = drawn(lambda pen: pen.stroke(line, BLACK, 0.8, ends=(0.25, 1.0)))
    heights = black.sum(axis=0)[[27, 100, 173]]
    assert heights.tolist() == pytest.approx([0.25 * 0.8 * 50, 0.8 * 50, 0.8 * 50], abs=2)
