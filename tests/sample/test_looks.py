"""Whatever a stage of life may choose from is there to be painted."""

import pytest

from mask_lib.base.labels import Gender
from mask_lib.sample import people


@pytest.mark.parametrize("stage", people.AGE_STAGES)
@pytest.mark.parametrize("gender", Gender)
def test_a_stage_of_life_names_known_hairstyles_and_outfits(stage, gender):
    assert stage.hairstyles[gender]
    assert set(stage.hairstyles[gender]) <= set(people.HAIRSTYLES)
    assert stage.outfits[gender]
    assert set(stage.outfits[gender]) <= set(people.NECKLINES)


def test_there_is_a_stage_on_each_side_of_each_edge():
    assert len(people.AGE_STAGES) == len(people.STAGE_EDGES) + 1
    assert list(people.STAGE_EDGES) == sorted(people.STAGE_EDGES)


def test_hair_and_skin_are_known_for_the_same_origins_and_beards_have_odds():
    assert set(people.SKINS) == set(people.HAIRS)
    assert len(people.BEARDS) == len(people.BEARD_ODDS)
    assert sum(people.BEARD_ODDS) == pytest.approx(1)
