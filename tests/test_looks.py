"""Whatever a stage of life may choose from is there to be painted."""

import pytest

from mask_lib import looks
from mask_lib.labels import Gender


@pytest.mark.parametrize("stage", looks.AGE_STAGES)
@pytest.mark.parametrize("gender", Gender)
def test_a_stage_of_life_names_known_hairstyles_and_outfits(stage, gender):
    assert stage.hairstyles[gender]
    assert set(stage.hairstyles[gender]) <= set(looks.HAIRSTYLES)
    assert stage.outfits[gender]
    assert set(stage.outfits[gender]) <= set(looks.NECKLINES)


def test_there_is_a_stage_on_each_side_of_each_edge():
    assert len(looks.AGE_STAGES) == len(looks.STAGE_EDGES) + 1
    assert list(looks.STAGE_EDGES) == sorted(looks.STAGE_EDGES)


def test_hair_and_skin_are_known_for_the_same_origins_and_beards_have_odds():
    assert set(looks.SKINS) == set(looks.HAIRS)
    assert len(looks.BEARDS) == len(looks.BEARD_ODDS)
    assert sum(looks.BEARD_ODDS) == pytest.approx(1)
