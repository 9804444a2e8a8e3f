"""Each recipe of the seeds, for a GPU and for faces builds, trains a step at its real size, saves, resumes, predicts.

On two random photos and from random weights, since a build server has no GPU and no hub.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mask_lib.augment import search
from mask_lib.base import config, files, plain_yaml
from mask_lib.data import store
from mask_lib.headless import cells, parameters
from mask_lib.models import build, checkpoint, devices, weights
from mask_lib.training import loop

PARAMS = files.PROJECT / "notebooks" / "params"
NOTEBOOKS = {
    (name, run): files.PROJECT / "notebooks" / f"{notebook}.ipynb"
    for name in ("seed", "seed_hpa", "gpu", "demo", "faces")
    for run, notebook in parameters.planned_runs(plain_yaml.read(PARAMS / f"{name}.yml")).items()
}
RECIPES = {f"{name}: {run}": (name, run) for name, run in NOTEBOOKS if name.startswith("seed")}
OURS = {f"{name}: {run}": (name, run) for name, run in NOTEBOOKS if name in ("gpu", "faces") and "frozen" not in run}
config.import_plugins(plain_yaml.read(PARAMS / "faces.yml")["plugins"])


def settings_of(name: str, run: str) -> config.Run:
    """A run as its training notebook reads it from the recipe's file."""
    notebook = NOTEBOOKS[name, run]
    given = parameters.resolve(notebook, [PARAMS / f"{name}.yml"], {"run": run})
    if given.get("augmentation") == config.SEARCHED:  # and the search came to nothing better
        given["augmentation"] = search.FALLBACK
    return config.Run.from_parameters({**cells.declared_parameters(notebook), **given})


def fold_of(run: config.Run) -> loop.FoldTraining:
    """A fold with one photo of noise to train on and one to validate."""
    split = pd.DataFrame({"path": ["train", "val"], "person": ["a", "b"], "label": [4, 17], "split": ["train", "val"]})
    split["age"] = [61, 59]
    frame = store.Frame.of_run(run)
    images = np.random.default_rng(0).integers(0, 256, (2, *frame.shape), dtype=np.uint8)
    photos = store.Store(images, {"train": 0, "val": 1}, "noise", frame)
    return loop.FoldTraining(run, 0, split, devices.DevicePhotos(photos, torch.device("cpu")))


def test_the_recipes_are_those_of_the_seeds():
    assert plain_yaml.read(PARAMS / "seed.yml")["fold_count"] == 3
    ours = ("resnet152", "vit_base_patch16_224", "custom_model")
    of_hpa = {"resnet34": "resnet34", "inception_v3_attention": "inception_v3", "seresnext50_attention": "se_resnext50"}
    assert set(RECIPES.values()) == {*(("seed", run) for run in ours), *(("seed_hpa", run) for run in of_hpa)}
    for run in ours:
        found = settings_of("seed", run)
        assert (found.image_width, found.image_height, found.epochs, found.batch_size) == (224, 224, 2, 16)
        assert (found.optimizer, found.learning_rate, found.momentum, found.head) == ("sgd", 0.001, 0.9, "linear")
        assert found.architecture == run
    for run, architecture in of_hpa.items():
        found, side = settings_of("seed_hpa", run), 512 if run == "resnet34" else 1024
        assert (found.architecture, found.image_width, found.image_height) == (architecture, side, side)
        if run != "resnet34":
            assert (found.head, found.per_image_norm) == ("attention", True)
            assert found.keep_epochs == found.epochs == 10  # the pipeline averages its last ten
    inception = settings_of("seed_hpa", "inception_v3_attention")
    assert (inception.aux_loss, inception.batch_size, inception.accumulate_steps) == (0.4, 8, 2)


def test_the_networks_of_the_protein_atlas_train_with_what_the_search_of_the_pipeline_finds():
    search_alone, hpa = (plain_yaml.read(PARAMS / f"{name}.yml") for name in ("search", "seed_hpa"))
    assert hpa["augmentation"] == config.SEARCHED
    own = {name: hpa[name] for name in ("data_dir", "output_dir")}
    assert {name: hpa.get(name) for name in search_alone} == search_alone | own


def test_an_experiment_that_is_shipped_averages_epochs():
    assert 0 < settings_of("demo", "quick").keep_epochs <= settings_of("demo", "quick").epochs


def test_the_recipe_for_a_gpu_has_a_frozen_member_beside_fine_tuned_ones():
    runs = {run: settings_of("gpu", run) for name, run in NOTEBOOKS if name == "gpu"}
    assert [run for run, settings in runs.items() if settings.head == "frozen"] == ["frozen"]
    frozen = runs.pop("frozen").replace(weights="none")
    assert build.of_run(frozen)(torch.zeros(1, 3, 224, 224)).shape == (1, 18)
    assert {settings.head for settings in runs.values()} == {"three"} and len({one.seed for one in runs.values()}) > 1


@pytest.mark.parametrize("run", ["frozen", "frozen_faces"])
def test_the_frozen_members_for_faces_answer_by_two_stages(run: str):
    settings = settings_of("faces", run)
    network = build.of_run(settings.replace(weights="none"))
    assert settings.head == "frozen" and len(network.heads) == 2
    assert network(torch.zeros(2, 3, settings.image_height, settings.image_width)).shape == (2, 18)


@pytest.mark.parametrize("recipe", [*RECIPES, *OURS])
def test_a_recipe_takes_a_step_at_its_real_size_saves_resumes_and_predicts(tmp_path: Path, recipe: str):
    run = settings_of(*(RECIPES | OURS)[recipe]).replace(weights="none")
    fold, last = fold_of(run), tmp_path / "fold0" / "checkpoint" / "last.safetensors"
    network = build.of_run(run).to(memory_format=torch.channels_last)
    network.load_state_dict(weights.first_weights(run, seed=0))
    fold.start(network, network.train())
    name, weight = max(network.get_classifier().named_parameters(), key=lambda one: one[1].numel())
    before = weight.detach().clone()
    # Twice the photo: a batch of one would upset batch normalisation where maps are one pixel.
    copies = 1 if run.image_width > 512 else 2
    parts = fold.data.drawn(np.zeros(copies, dtype=int), seed=0)
    loss = fold.train_step(parts, epoch=1, number=0, step_count=1)
    assert loss.isfinite() and not torch.equal(weight, before)
    fold.progress.step = 1
    fold.save(last, with_optimizer=True)
    trained = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()

    again = fold_of(run)
    again.start(network, network)
    again.resume(checkpoint.read_all(last))
    assert torch.equal(dict(network.get_classifier().named_parameters())[name], trained)
    assert again.progress.step == 1 and again.optimizer.state_dict()["state"]
    probabilities = again.predict("val")
    assert probabilities.shape == (1, 18)
    np.testing.assert_allclose(probabilities.sum(), 1, atol=1e-5)
    assert build.Preprocessing(**checkpoint.read_manifest(last)["preprocessing"]) == fold.preprocessing
