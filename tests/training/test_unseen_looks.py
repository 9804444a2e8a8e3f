"""A run trains a fold once more without some looks, and what it says of those stands beside what it says of others."""

import re

import numpy as np
import pandas as pd
import pytest
import toys

from mask_lib.base import files, labels
from mask_lib.ensemble import blending, inference
from mask_lib.models import looks
from mask_lib.training import averaging, comparison, loop, run_folder

HELD_OUT = {4: "worn 2"}  # a class of the toy, and the look that stands for it


@pytest.fixture(scope="module")
def folders(prepared):
    """A data and an output folder with the toy prepared, its photos of one class a look that is held out."""
    table = toys.table()
    found = table[["path"]].assign(attribute="mask", look=table["label"].map(HELD_OUT).fillna("worn 1"))
    files.write_csv(found.assign(held_out=found["look"] == "worn 2"), looks.path_of(prepared[1]))
    return prepared


@pytest.fixture(scope="module")
def trained(folders):
    """The toy and a frozen run, both asked about looks never seen."""
    data, output = folders
    toys.train(data, output, unseen_looks=True, epochs=8)
    frozen = {"head": "frozen", "epochs": 1, "attribute_loss": 0.0}
    toys.train(data, output, unseen_looks=True, run="frozen", **frozen)
    for run in ("toy", "frozen"):
        (output / "runs" / run / "scores.json").write_text('{"folds": [{"fold": 0}, {"fold": 1}]}')
    return output


def test_the_looks_are_known_to_the_folds_and_not_to_the_one_beside_them(trained):
    table = run_folder.unseen_looks(trained / "runs/toy")
    assert set(table["look"]) == {"", "worn 2"}
    unseen = table["look"] != ""
    assert set(table.loc[unseen, "label"]) == set(HELD_OUT)
    whole = run_folder.out_of_fold(trained / "runs/toy").set_index("path").loc[table["path"]].reset_index()
    right = {name: one["label"] == one[labels.probability_columns()].to_numpy().argmax(axis=1)
             for name, one in (("asked", table), ("whole", whole))}  # fmt: skip
    assert not right["asked"][unseen].any() and right["asked"][~unseen].mean() > 0.7
    assert right["whole"][unseen].mean() > 0.7


def test_where_no_value_has_several_looks_the_run_says_so_and_ends_well(tmp_path, capsys):
    data, output = tmp_path / "data", tmp_path / "output"
    toys.prepare(data, output)
    found = toys.table()[["path"]].assign(attribute="mask", look="worn 1", held_out=False)
    files.write_csv(found, looks.path_of(output))
    toys.train(data, output, unseen_looks=True, epochs=1)
    assert "no look that can be held out" in capsys.readouterr().out
    assert (output / "runs/toy/fold1/oof.csv").exists() and run_folder.unseen_looks(output / "runs/toy") is None


def test_a_finished_one_is_not_trained_again_and_changes_nothing_of_the_run(folders, trained, monkeypatch):
    monkeypatch.setattr(loop.FoldTraining, "train_step", None)  # a call would fail
    before = toys.results(trained)
    toys.train(*folders, unseen_looks=True, epochs=8)
    toys.train(*folders, epochs=8)  # the run is the same without
    assert toys.results(trained) == before


def test_training_it_anew_leaves_the_runs_scores(folders, trained, tmp_path):
    scores = (trained / "runs/toy/scores.json").read_bytes()
    (trained / "runs/toy/looks/checkpoint/last.safetensors").unlink()
    (trained / "runs/toy/looks/checkpoint/previous.safetensors").unlink(missing_ok=True)
    with toys.stopped_after(1):
        toys.train(*folders, unseen_looks=True, epochs=8)
    assert run_folder.unseen_looks(trained / "runs/toy") is None  # what it said is of weights that are gone
    toys.train(*folders, unseen_looks=True, epochs=8)
    assert run_folder.unseen_looks(trained / "runs/toy") is not None
    assert (trained / "runs/toy/scores.json").read_bytes() == scores


def test_members_and_their_blend_are_told_on_both_sides(trained):
    recipe = blending.Recipe((0.5, 0.5))
    table = blending.look_table(trained, ["toy", "frozen"], recipe)
    assert list(table["run"]) == ["toy", "frozen", "ensemble"] and set(table["attribute"]) == {"mask"}
    one, other = (run_folder.unseen_looks(trained / "runs" / run) for run in ("toy", "frozen"))
    columns, unseen = labels.probability_columns(), (one["look"] != "").to_numpy()
    blend = (one[columns].to_numpy() + other[columns].to_numpy()) / 2
    right = labels.decode_all(blend.argmax(axis=1))["mask"] == labels.decode_all(one["label"].to_numpy())["mask"]
    row = table.set_index("run").loc["ensemble"]
    assert row["unseen"] == pytest.approx(right[unseen].mean()) and row["known"] == pytest.approx(right[~unseen].mean())
    assert row["photos"] == unseen.sum() and (row["unseen_low"] <= row["unseen"] <= row["unseen_high"])
    assert list(comparison.looks_for_people(table)["looks never seen"].str[:5]) == [f"{x:.3f}" for x in table["unseen"]]


def test_averages_are_asked_too_and_what_is_told_is_of_the_weights_in_use(folders):
    folder = folders[1] / "runs/averaged"
    toys.train(*folders, run="averaged", unseen_looks=True, epochs=8, keep_epochs=2, checkpoint_choice="swa")
    (folder / "scores.json").write_text('{"folds": [{"fold": 0}, {"fold": 1}]}')
    found = averaging.average_run(*folders, "averaged")
    assert list(found.looks) == ["averaged, last", "averaged, swa"]
    pd.testing.assert_frame_equal(found.looks["averaged, swa"], run_folder.unseen_looks(folder))
    assert run_folder.looks_in_use(folder)[0].name == "swa.safetensors"


def test_what_is_told_is_by_the_views_that_the_run_predicted_with(folders, trained):
    by_one = run_folder.unseen_looks(trained / "runs/toy")
    predicted = inference.predict_run(*folders, "toy", inference.Tta(4), "test_val")["looks"]
    table = blending.on_looks(trained, ["toy"])["toy"]
    columns = labels.probability_columns()
    assert (table["look"] == by_one["look"]).all() and not np.allclose(table[columns], by_one[columns], atol=1e-3)
    np.testing.assert_allclose(table[columns], predicted[columns], atol=1e-6)
    told = inference.looks_by_views(trained, ["toy"], 4)
    assert list(told["run"]) == ["toy, 1 view", "toy, 4 views"]
    note = trained / "inferences/toy.looks.json"
    note.write_text('{"out_of_fold": {"0": "another"}}')
    with pytest.raises(ValueError, match=r"toy.looks.csv is stale: run toy was trained or averaged anew since"):
        blending.on_looks(trained, ["toy"])
    (trained / "inferences/toy.looks.csv").unlink()


def test_members_that_were_asked_about_other_looks_are_not_blended(trained):
    tables = blending.on_looks(trained, ["toy", "frozen"])
    changed = tables | {"frozen": tables["frozen"].assign(look="")}
    assert blending.blended_on_looks(changed, ["toy", "frozen"], blending.Recipe((0.5, 0.5))) is None
    assert blending.blended_on_looks(tables, ["toy", "frozen", "third"], blending.Recipe((0.5, 0.5))) is None


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        (
            0.70,
            "On looks held out from training: a gets mask right on 99.0% of photos whose look it knows, and on 70.0% ",
        ),
        (0.985, "On looks held out from training no run is provably worse: a gets mask right on 99.0% "),
    ],
)
def test_who_loses_is_said(unseen, words):
    row = {"run": "a", "attribute": "mask", "known": 0.99, "unseen": unseen, "unseen_low": unseen - 0.01}
    assert comparison.look_summary(pd.DataFrame([row | {"unseen_high": unseen + 0.01}])).startswith(words)
    assert comparison.look_summary(pd.DataFrame()) == ""


def members_that_disagree_on_looks() -> tuple[blending.OutOfFold, dict[str, pd.DataFrame]]:
    """Two members, out of fold and on looks never seen: `deep` knows the person better, `wide` masks that are new."""
    random, people = np.random.default_rng(0), 400
    photos = pd.DataFrame({"path": [f"{one}" for one in range(people)], "person": np.arange(people)})
    photos = photos.assign(label=random.integers(0, 18, people))
    truth, rows = photos["label"].to_numpy(), np.arange(people)

    def member(person: float, mask: float, sure: float) -> np.ndarray:
        found, right = np.full((people, 18), 0.02), [random.random(people) < share for share in (person, mask)]
        found[rows, np.where(right[0], truth, truth // 6 * 6 + (truth + 1) % 6)] += 0.2
        found = labels.with_photo_attributes(found, np.roll(found, 6, axis=1)) if mask == 0 else found
        wrong = (truth + 6 * ~right[1]) % 18
        found[rows, wrong // 6 * 6 + found.argmax(axis=1) % 6] += sure
        return found / found.sum(axis=1, keepdims=True)

    known = np.stack([member(0.9, 0.99, 2.0), member(0.5, 0.97, 0.5)])
    unseen = np.stack([member(0.9, 0.6, 2.0), member(0.5, 0.97, 0.5)])
    found = blending.OutOfFold(["deep", "wide"], photos, known)
    asked = [blending.with_probabilities(photos.assign(look="worn 2"), one) for one in unseen]
    return found, dict(zip(found.names, asked, strict=True))


def test_masks_are_answered_by_weights_that_know_new_ones_and_people_by_the_mean():
    found, asked = members_that_disagree_on_looks()
    choice, plain = blending.choose_recipe(found, looks=asked), blending.choose_recipe(found)
    assert plain.recipe.photo_weights == () and choice.recipe.weights == plain.recipe.weights
    assert sum(choice.recipe.photo_weights) == pytest.approx(1) and choice.recipe.photo_weights[1] > 0.5
    said = (
        r"for mask take its accuracy from (\d+)\.\d% to (\d+)\.\d% on looks never seen, and from [\d.]+% to [\d.]+% out"
    )
    before, after = map(int, re.search(said, choice.reason).groups())
    assert before < 70 and after > 90
    answers = labels.decode_all(choice.recipe.blend(found.probabilities).argmax(axis=1))
    by_photo = np.tensordot(choice.recipe.photo_weights, found.probabilities, axes=1)
    as_photo, as_mean = (labels.marginals(one) for one in (by_photo, plain.recipe.blend(found.probabilities)))
    assert (answers["mask"] == as_photo["mask"].argmax(axis=1)).mean() > 0.97
    assert (answers["age"] == as_mean["age"].argmax(axis=1)).mean() > 0.97
    unseen = blending.blended_on_looks(asked, found.names, choice.recipe)
    table = comparison.look_table({"ensemble": pd.concat([unseen, unseen.assign(look="")])})
    assert table["unseen"].item() > 0.95
    # Nested: what is reported is by recipes that answer masks so too.
    nested = labels.marginals(choice.out_of_fold[labels.probability_columns()].to_numpy())["mask"]
    assert (nested.argmax(axis=1) == as_photo["mask"].argmax(axis=1)).mean() > 0.97


def test_a_member_that_is_much_worse_on_known_looks_does_not_answer_them_all():
    found, asked = members_that_disagree_on_looks()
    found.probabilities[1] = np.roll(found.probabilities[1], 6, axis=1)  # always another mask
    assert blending.choose_recipe(found, looks=asked).recipe.photo_weights == ()


def test_the_recipe_without_a_member_keeps_how_the_others_answer_masks():
    recipe = blending.Recipe((0.2, 0.3, 0.5), photo_weights=(0.0, 0.25, 0.75))
    assert recipe.without(0).photo_weights == (0.25, 0.75) and recipe.without(2).photo_weights == (0.0, 1.0)
    assert blending.Recipe((0.5, 0.5), photo_weights=(0.0, 1.0)).without(1).photo_weights == ()
