"""Training goes on only from what was trained alike, and what it makes untrue is gone before it does."""

import json

import pytest

from mask_lib.base import config, files
from mask_lib.training import loop, run_folder

NOW = {
    "run": config.Run(augmentation="faces").settings(),
    "data": "of these photos",
    "policy": {"name": "faces"},
    "years": None,
    "dtype": "torch.float32",
}


def written(**changed) -> dict:
    """A manifest as a checkpoint gives it back."""
    return json.loads(json.dumps({**NOW, **changed}))


def test_what_was_trained_alike_has_no_changes(tmp_path):
    assert loop.changes(written(), NOW) == []
    loop.require_same(written(), NOW, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("run", config.Run(augmentation="faces", epochs=77).settings(), r"epochs: 77 → \d+"),
        ("data", "of others", "the photos, their labels or the split"),
        ("policy", {"name": "other"}, "the policy in faces"),
        ("years", "of some ages", "the ages in years"),
        ("dtype", "torch.bfloat16", "arithmetic in torch.bfloat16, here torch.float32"),
    ],
)
def test_what_changed_is_named_with_the_folder_and_the_ways_out(tmp_path, name, value, words):
    with pytest.raises(config.ChangedSettingsError, match=rf"fold3 was .*settings \({words}\)\. .*restart"):
        loop.require_same(written(**{name: value}), NOW, tmp_path / "fold3")


@pytest.mark.parametrize("name", ["policy", "years", "dtype"])
def test_what_earlier_versions_did_not_write_is_no_change(name):
    before = written()
    del before[name]
    assert loop.changes(before, NOW) == []


def test_ages_that_count_now_and_did_not_before_are_a_change():
    before = written()
    del before["years"]
    assert loop.changes(before, {**NOW, "years": "of some ages"}) == ["the ages in years"]


def test_several_changes_are_all_named():
    found = loop.changes(written(data="of others", dtype="torch.float16"), NOW)
    assert found == ["the photos, their labels or the split", "arithmetic in torch.float16, here torch.float32"]


def test_a_fold_that_trains_on_loses_its_runs_scores_and_its_own_pick_alone(tmp_path):
    for fold in (1, 2):
        files.write_json({}, tmp_path / f"fold{fold}" / run_folder.TRAINED)
    files.write_json({}, tmp_path / "scores.json")
    files.write_json({"trained": "best", "folds": {"1": "swa", "2": "best"}}, tmp_path / run_folder.AVERAGING)
    loop.forget_results(tmp_path / "fold1")
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"fold2/{run_folder.TRAINED}", run_folder.AVERAGING}
    assert files.read_json(tmp_path / run_folder.AVERAGING) == {"trained": "best", "folds": {"2": "best"}}
    loop.forget_results(tmp_path / "fold1")  # again: nothing is there to lose


def test_a_folder_is_put_aside_in_place_of_an_earlier_one(tmp_path):
    for content in ("old", "new"):
        (tmp_path / "fold1").mkdir()
        (tmp_path / "fold1" / content).touch()
        aside = loop.put_aside(tmp_path / "fold1")
    assert aside == tmp_path / "replaced.fold1"
    assert [path.name for path in aside.iterdir()] == ["new"]
    assert not (tmp_path / "fold1").exists()
