"""Packed results give the same answers elsewhere, with evaluation photos alone, and tell what is wrong with them."""

import dataclasses
import json
import shutil
import tarfile

import kernelless
import pandas as pd
import pytest
import toy_ensemble
from photo_files import FRUIT

from mask_lib.base import files, labels, results
from mask_lib.data import layout, photos, splits, store
from mask_lib.ensemble import blending, inference, members, pack, voting
from mask_lib.models import predict
from mask_lib.training import run_folder

COLUMNS = labels.probability_columns()
FRAME = store.Frame(32, 32)  # of the features that find people
VIEWS = {"toy": ({}, predict.Tta(4)), "frozen": (toy_ensemble.FROZEN, predict.Tta())}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder and an output folder with two runs and their ensemble, in which photos of a person voted."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toy_ensemble.write(data, output, VIEWS)
    files.write_csv(pd.DataFrame(columns=layout.TRAIN_COLUMNS), data / "train" / "train.csv")
    ensemble(data, output)
    return data, output


def ensemble(data, output):
    """What 07_ensemble writes, the recipe with it."""
    ids = layout.eval_ids(data)
    found = members.read_members(output, ids=ids, split=inference.todays_split(output))
    _, choice = blending.decide(output, found, [1.0, 3.0])
    recipe = dataclasses.replace(choice.recipe, temperature=1.5, photo_weights=(0.5, 0.5))
    tables = [recipe.blend_tables(found, which) for which in ("test", "test_val")]
    vote = voting.hold_vote("always", data, output, (*tables, choice.out_of_fold), FRAME)
    assert vote.has_voted and not vote.test.equals(tables[0])
    files.write_csv(members.make_submission(vote.test, ids), output / "submissions" / "submission.csv")
    pack.write_recipe(output, found, recipe, vote)


@pytest.fixture(scope="module")
def archive(trained, tmp_path_factory):
    return pack.pack(trained[1], tmp_path_factory.mktemp("away") / "results.tar.gz")


@pytest.fixture
def unpacked(trained, archive, tmp_path):
    """A folder with eval/ alone, and the archive unpacked."""
    shutil.copytree(trained[0] / "eval", tmp_path / "data" / "eval")
    shutil.unpack_archive(archive, tmp_path / "theirs", filter="data")
    return tmp_path / "data", tmp_path / "theirs"


def test_the_notebooks_give_the_same_bytes_for_the_evaluation_photos_alone(trained, unpacked, shell, capsys):
    data, output = unpacked
    where = {"data_dir": str(data), "output_dir": str(output)}
    kernelless.executed(shell, "06_inference", **where)
    names, _ = kernelless.executed(shell, "07_ensemble", **where)
    for name in ("inferences/toy.test.csv", "inferences/frozen.test.csv", "submissions/submission.csv"):
        assert (output / name).read_bytes() == (trained[1] / name).read_bytes(), name
    assert names["vote"].has_voted and names["estimate"] is None and names["ensemble"].stack("test_val").shape[1] == 0
    assert not (output / "submissions" / "submission.csv.leak.csv").exists()
    said = capsys.readouterr().out
    assert "toy came packed, and test_val is left out, for its photos and labels are not here" in said
    shown = names["leaks"].leak_summary(names["copies"], output)
    assert shown == "Nobody looked for copies of training photos, which are not here, so there is no second submission."


def test_the_archive_tells_nothing_of_a_single_photo(trained, archive):
    data, output = trained
    with tarfile.open(archive) as opened:
        held = {member.name: opened.extractfile(member).read() for member in opened}
    assert set(held) == {
        "results.json",
        "vote.safetensors",
        *(f"runs/{run}/{name}" for run in VIEWS for name in ("config.json", "scores.json")),
        *(f"runs/{run}/fold{fold}/checkpoint/best.safetensors" for run in VIEWS for fold in (0, 1)),
    }
    table = photos.read_photos(output / "tables" / "photos.csv")
    for text in (*table["path"], *table["person"][table["person"] != ""].map("{}/".format), str(data), str(output)):
        assert not [name for name, content in held.items() if text.encode() in content], text


def test_test_val_is_there_where_its_photos_are_and_is_left_out_where_others_are(trained, unpacked, capsys):
    data, output = unpacked
    shutil.copytree(trained[1] / "tables", output / "tables")
    shutil.copytree(trained[0] / "train", data / "train")
    found = inference.predict_run(inference.find_data(data, output, True), output, "toy")
    expected = (trained[1] / "inferences" / "toy.test_val.csv").read_bytes()
    assert (output / "inferences" / "toy.test_val.csv").read_bytes() == expected and len(found["test_val"])
    splits.write_splits(splits.make_splits(photos.read_labeled(output), 2, 0.2, seed=7), output)
    assert inference.predict_run(data, output, "toy")["test_val"].empty
    assert "are not here: " in capsys.readouterr().out


def test_a_byte_that_is_not_as_packed_and_a_file_that_is_gone_are_named(unpacked):
    data, output = unpacked
    path = output / "runs" / "toy" / "fold1" / "checkpoint" / "best.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"fold1/checkpoint/best\.safetensors is damaged, or was changed since"):
        inference.find_data(data, output, is_listed=True)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"fold1/checkpoint/best\.safetensors, which results\.json lists: unp"):
        pack.current_recipe(output)


def test_results_of_another_task_and_of_other_channels_are_refused_in_words(unpacked):
    data, output = unpacked
    with labels.using(FRUIT), pytest.raises(ValueError, match=r"another task \(mask: worn, .* at hand \(fruit:"):
        inference.find_data(data, output)
    config = output / "runs" / "toy" / "config.json"
    files.write_json({**files.read_json(config), "image_channels": 4}, config)
    about = files.read_json(output / results.NAME)
    about["files"]["runs/toy/config.json"] = files.file_digest(config)
    files.write_json(about, output / results.NAME)
    data = inference.find_data(data, output, is_listed=True)
    with pytest.raises(OSError, match="its mode is RGB, and image_channels = 4 takes RGBA alone"):
        inference.predict_run(data, output, "toy")


def test_a_folder_without_eval_and_an_experiment_without_train_are_refused(trained, unpacked, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty lacks eval"):
        inference.find_data(tmp_path / "empty", unpacked[1])
    with pytest.raises(FileNotFoundError, match="data lacks train"):
        inference.find_data(unpacked[0], trained[1])


def test_only_an_ensemble_of_todays_runs_is_packed(trained, unpacked, tmp_path):
    with pytest.raises(ValueError, match="holds results that came packed: pass on their archive"):
        pack.pack(unpacked[1], tmp_path / "again.tar.gz")
    output = shutil.copytree(trained[1], tmp_path / "changed")
    table = run_folder.in_use(output / "runs" / "toy")[0][1]
    table.write_text(table.read_text() + "\n")
    with pytest.raises(ValueError, match="not made of the run toy as it is now: run 06_inference with run: toy, then"):
        pack.pack(output, tmp_path / "results.tar.gz")
    (output / results.RECIPE).unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*submissions/recipe\.json: run 07_ensemble first"):
        pack.pack(output, tmp_path / "results.tar.gz")
    assert not (tmp_path / "results.tar.gz").exists()


def test_own_weights_and_other_members_are_taken_as_given(unpacked):
    data, output = unpacked
    data = inference.find_data(data, output, is_listed=True)
    for run in VIEWS:
        inference.predict_run(data, output, run)
    found = members.read_members(output, ids=layout.eval_ids(data))
    assert blending.decide(output, found, [])[1].recipe == blending.Recipe((0.25, 0.75), 1.5, (0.5, 0.5))
    assert blending.decide(output, found, [1, 1])[1].recipe == blending.Recipe((0.5, 0.5))
    alone = members.Members(found.names[:1], {name: some[:1] for name, some in found.tables.items()}, [True])
    choice = blending.decide(output, alone, [])[1]
    assert choice.recipe == blending.Recipe((1.0,)) and "frozen cannot be scored" in choice.reason


def test_newer_results_in_the_same_folder_make_predictions_stale(unpacked):
    data, output = unpacked
    inference.predict_run(inference.find_data(data, output, is_listed=True), output, "toy")
    about = json.loads((output / results.NAME).read_text())
    for member in about["recipe"]["members"]:
        member["out_of_fold"] = dict.fromkeys(member["out_of_fold"], "0" * 64)
    files.write_json(about, output / results.NAME)
    with pytest.raises(ValueError, match=r"toy\.test\.csv is stale: run toy was trained or averaged anew"):
        members.read_members(output, [output / "inferences/toy.test.csv"], [output / "inferences/toy.test_val.csv"])


def test_an_archive_from_elsewhere_is_opened_as_safely_as_data(archive, tmp_path):
    with pack.opened(archive) as (output, recipe):
        assert recipe["blend"] == {"weights": [0.25, 0.75], "temperature": 1.5, "photo_weights": [0.5, 0.5]}
        assert run_folder.trained_runs(output) == ["frozen", "toy"]
    assert not output.exists()
    with tarfile.open(tmp_path / "odd.tar.gz", "w:gz") as odd:
        odd.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(ValueError, match="would land outside"), pack.opened(tmp_path / "odd.tar.gz"):
        pass
    with pytest.raises(FileNotFoundError, match=r"no results in .*: give an archive"), pack.opened(tmp_path):
        pass
