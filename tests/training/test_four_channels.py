"""Four-channel images go the whole way: combined, learned, resumed to the same bits, predicted; so do grey ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from PIL import Image
from safetensors.torch import load_file

from mask_lib.base import config, labels
from mask_lib.data import photos, rgby, splits, store
from mask_lib.ensemble import inference
from mask_lib.models import checkpoint, predict
from mask_lib.training import dataset, runs

FOUR = store.Frame(toys.FRAME.width, toys.FRAME.height, channels=4)


def as_four_files(painted: Path, source: Path) -> None:
    """Each photo below `painted` as its four single-channel files below `source`."""
    for path in painted.rglob("*.png"):
        target = source / path.relative_to(painted)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            for colour, band in zip(rgby.COLOURS, image.split(), strict=True):
                band.save(target.with_name(f"{target.stem}_{colour}.png"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data folder whose photos `rgby` combined, and an output folder with a finished run."""
    folder = tmp_path_factory.mktemp("prepared")
    data, output = folder / "data", folder / "output"
    toys.prepare(data, output, channels=4)
    for split in ("train", "eval"):
        images = data / split / "images"
        as_four_files(images, folder / "source" / split)
        shutil.rmtree(images)
        assert not len(rgby.combine(folder / "source" / split, images).problems)
    runs.write_scores(toys.train(data, output, image_channels=4))
    return data, output


def checkpoint_of(output: Path, fold: int = 0, name: str = "last") -> Path:
    return output / "runs" / "toy" / f"fold{fold}" / "checkpoint" / f"{name}.safetensors"


def test_a_run_of_four_channels_resumes_to_the_same_bits_and_its_checkpoint_predicts(trained, tmp_path):
    data, output = trained
    with toys.stopped_after(3):
        toys.train(data, tmp_path, checkpoint_seconds=0, image_channels=4)
    assert checkpoint_of(tmp_path).exists()
    toys.train(data, tmp_path, checkpoint_seconds=0, image_channels=4)
    assert toys.results(tmp_path) == toys.results(output)
    test, test_val = inference.predict_run(data, output, "toy", predict.Tta(num_tta=4)).values()
    assert (len(test), len(test_val)) == (12, 6)
    manifest = checkpoint.read_manifest(checkpoint_of(output))
    assert manifest["run"]["image_channels"] == len(manifest["preprocessing"]["mean"]) == 4


def test_four_channels_are_learned_and_yellow_counts(tmp_path):
    toys.write_photos(tmp_path, toys.table(people=48), channels=4)
    settings = {"epochs": 15, "augmentation": "none", "dropout": 0.0, "image_channels": 4}
    result = toys.train(tmp_path, tmp_path, people=48, **settings)
    truth, predicted = result.truth_and_prediction()
    assert (truth == predicted).mean() > 0.9
    loaded = predict.load_network(*checkpoint.read_checkpoint(checkpoint_of(tmp_path)), torch.device("cpu"))
    told_by_yellow = toys.CLASSES[3]
    photo = torch.from_numpy(toys.paint(told_by_yellow, np.random.default_rng(1), 4)).permute(2, 0, 1)[None].float()
    red_instead = photo[:, [3, 1, 2, 0]]
    with torch.inference_mode():
        batch = loaded.preprocessing.prepared(torch.cat([photo, red_instead]) / 255)
        seen, otherwise = loaded.network.eval()(batch).argmax(dim=1).tolist()
    assert seen == told_by_yellow != otherwise


def test_a_run_or_a_store_of_other_channels_is_refused(trained, tmp_path):
    data, output = trained
    shutil.copytree(output / "runs", tmp_path / "runs")
    with pytest.raises(config.ChangedSettingsError, match="image_channels: 4 → 3"):
        toys.train(data, tmp_path, image_channels=3)
    opened = dataset.open_photos(data, output, photos.read_labeled(output), FOUR)
    with pytest.raises(ValueError, match="image_channels = 3: the store's photos have 4"):
        runs.train_run(config.Run(**toys.SETTINGS), splits.read_splits(output), opened, output)


def test_ordinary_photos_can_be_learned_in_grey_but_not_in_four_channels(tmp_path):
    toys.prepare(tmp_path, tmp_path)
    with pytest.raises(OSError, match=r"mask1\.png: its mode is RGB, and image_channels = 4 takes RGBA alone"):
        toys.train(tmp_path, tmp_path, image_channels=4)
    runs.write_scores(toys.train(tmp_path, tmp_path, image_channels=1, folds=(0,)))
    test = inference.predict_run(tmp_path, tmp_path, "toy")["test"]
    assert test[labels.probability_columns()].notna().all(axis=None)
    assert load_file(checkpoint_of(tmp_path))["conv1.0.weight"].shape[1] == 1
