"""Networks of any head judge policies, with the weights that their training chose."""

import numpy as np
import pytest
import searching
import toys

from mask_lib.augment import policy
from mask_lib.base import scores
from mask_lib.models import devices, predict
from mask_lib.models.checkpoint import read_checkpoint
from mask_lib.training import policy_search


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.prepare(folder, folder)
    return folder


def judge_of(data, output, **network) -> tuple[policy_search.DensityScorer, policy_search.SearchData]:
    material = searching.material(data, output)
    material.folder.mkdir(parents=True)
    (judge,) = policy_search.search_judges(searching.settings(network=network), material)
    return judge, material


def test_a_run_that_names_no_folds_has_a_judge_for_each(data, tmp_path):
    material = searching.material(data, tmp_path)
    material.folder.mkdir(parents=True)
    run = searching.settings().network_for(1, run="all", folds=[])
    found = policy_search.judges(run, material.splits, material.photos, material.folder)
    assert [judge.fold for judge in found] == sorted(material.splits) == [0, 1]
    held_out = [set(judge.rows) for judge in found]
    assert all(held_out) and not held_out[0] & held_out[1]


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"head": "attention"}, "best"),
        ({"head": "three", "dropout": 0.2}, "best"),
        ({"checkpoint_choice": "ema", "ema_decay": 0.5}, "ema"),
    ],
    ids=["attention", "three heads", "moving average"],
)
def test_a_judge_is_the_network_that_its_training_chose(data, tmp_path, changes, chosen):
    judge, material = judge_of(data, tmp_path, **changes)
    checkpoint = material.folder / "runs" / policy_search.PLAIN / "fold0" / "checkpoint" / f"{chosen}.safetensors"
    weights = read_checkpoint(checkpoint)[0]
    assert all(np.array_equal(weights[name], value) for name, value in judge.network.state_dict().items())
    loaded = predict.load_network(*read_checkpoint(checkpoint), devices.pick_device())
    expected = loaded.predict(judge.source, judge.rows)
    of_truth = np.log(expected[np.arange(len(judge.labels)), judge.labels])
    found = judge.score(policy.PRESET_POLICIES["none"])
    assert found["log_likelihood"] == pytest.approx(of_truth.mean(), abs=1e-4)
    assert found["macro_f1"] == scores.summarise(judge.labels, expected.argmax(axis=1))["macro_f1"]


def test_an_average_that_no_search_makes_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"search_network, checkpoint_choice = 'swa'.*write best, last or ema"):
        searching.settings(network={"checkpoint_choice": "swa", "keep_epochs": 1})
