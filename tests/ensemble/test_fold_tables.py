"""A temperature found on one network's answers is applied to each network, not to their mean."""

import numpy as np
import opinions
import pandas as pd
import pytest

from mask_lib.base import files
from mask_lib.ensemble import blending, calibration
from mask_lib.ensemble.blending import Recipe
from mask_lib.ensemble.members import Members

FOLDS, IDS = 3, ["b.jpg", "a.jpg", "c.jpg"]
RECIPE = Recipe((1.0,), (2.0,))


def networks(seed: int = 0) -> np.ndarray:
    """(K, N, 18) of networks that are sure of different things."""
    return np.random.default_rng(seed).dirichlet(np.full(18, 0.2), (FOLDS, len(IDS)))


def table_of(probabilities: np.ndarray, key: str = "ImageID") -> pd.DataFrame:
    return pd.DataFrame({key: IDS}).join(pd.DataFrame(probabilities, columns=opinions.COLUMNS))


def members_of(*tables: pd.DataFrame, own: bool = True) -> Members:
    names = ["deep", "wide"][: len(tables)]
    return Members(names, [1.0] * len(tables), {"test": list(tables)}, [own] * len(tables))


@pytest.fixture
def output(tmp_path):
    """A finished run of three folds, each network's own answers in an order of their own."""
    files.write_json({"folds": [{"fold": fold} for fold in range(FOLDS)]}, tmp_path / "runs" / "deep" / "scores.json")
    for fold, one in enumerate(networks()):
        path = tmp_path / "inferences" / "models" / "deep" / f"fold{fold}.test.0123abcd.csv"
        files.write_csv(table_of(one, "path").iloc[::-1], path)
        files.write_csv(table_of(one, "path").iloc[:1], path.with_name(f"fold{fold}.test_val.0123abcd.csv"))
    return tmp_path


def expected_of_each() -> np.ndarray:
    return calibration.tempered(networks(), 2).mean(axis=0)


def expected_of_mean() -> np.ndarray:
    return calibration.tempered(networks().mean(axis=0), 2)


def blended(output, members, recipe=RECIPE) -> np.ndarray:
    found = blending.blended(recipe, output, members, "test")
    assert found["ImageID"].tolist() == IDS
    return found[opinions.COLUMNS].to_numpy()


def test_each_network_is_tempered_before_the_mean(output):
    members = members_of(table_of(networks().mean(axis=0)))
    np.testing.assert_allclose(blended(output, members), expected_of_each())
    assert np.abs(expected_of_each() - expected_of_mean()).max() > 0.01


def test_members_without_files_of_their_own_beside_one_with_them(output):
    other = np.random.default_rng(1).dirichlet(np.ones(18), len(IDS))
    members = members_of(table_of(networks().mean(axis=0)), table_of(other))
    found = blended(output, members, Recipe((0.5, 0.5), (2.0, 3.0)))
    np.testing.assert_allclose(found, (expected_of_each() + calibration.tempered(other, 3)) / 2)


@pytest.mark.parametrize("fault", ["gone", "two of one fold", "of other weights", "unfinished", "from elsewhere"])
def test_what_does_not_make_up_the_table_is_tempered_as_a_whole(output, fault):
    folder = output / "inferences" / "models" / "deep"
    if fault == "gone":
        (folder / "fold1.test.0123abcd.csv").unlink()
    elif fault == "two of one fold":
        files.write_csv(table_of(networks()[1], "path"), folder / "fold1.test.ffff.csv")
    elif fault == "of other weights":
        files.write_csv(table_of(networks(7)[1], "path"), folder / "fold1.test.0123abcd.csv")
    elif fault == "unfinished":
        (output / "runs" / "deep" / "scores.json").unlink()
    members = members_of(table_of(networks().mean(axis=0)), own=fault != "from elsewhere")
    np.testing.assert_allclose(blended(output, members), expected_of_mean())


def test_a_photo_that_no_network_saw_is_the_mean_of_the_others(output):
    """As 06_inference answers a photo that could not be read."""
    for fold, one in enumerate(networks()):
        files.write_csv(
            table_of(one, "path").iloc[:2], output / "inferences" / "models" / "deep" / f"fold{fold}.test.0123abcd.csv"
        )
    filled = networks()
    filled[:, 2] = filled[:, :2].mean(axis=1)
    found = blended(output, members_of(table_of(filled.mean(axis=0))))
    np.testing.assert_allclose(found, calibration.tempered(filled, 2).mean(axis=0))


def test_without_temperatures_no_file_is_read(output, monkeypatch):
    monkeypatch.setattr(blending, "of_networks", None)
    table = table_of(networks().mean(axis=0))
    for recipe in (Recipe((1.0,)), Recipe((1.0,), (1.0,))):
        np.testing.assert_array_equal(blended(output, members_of(table), recipe), table[opinions.COLUMNS])
