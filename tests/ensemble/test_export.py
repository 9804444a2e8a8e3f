"""The exported file answers as the program does, whatever the size of the photo, and its example runs."""

import json
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
import toy_ensemble
from photo_files import noise
from PIL import Image
from toy_ensemble import FROZEN

from mask_lib.base import files, labels
from mask_lib.data import store
from mask_lib.ensemble import blending, export, pack, predict
from mask_lib.models import pillow_resize
from mask_lib.models.predict import Tta

SIZES = [(24, 16), (1, 1), (7, 90), (300, 20), (97, 64), (64, 131)]  # height, width
GREY = {"head": "three", "attribute_loss": 0.0, "image_channels": 1, "per_image_norm": True}
# The networks of an ensemble: other heads, folds, channels, views.
RUNS = {"toy": ({"folds": (0,)}, Tta(4)), "frozen": (FROZEN, Tta()), "grey": ({**GREY, "folds": (0,)}, Tta(8))}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """An output folder with the runs, one of two folds, and the recipe of their ensemble."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    toy_ensemble.write(data, output, RUNS, blending.Recipe((0.5, 0.3, 0.2), 1.5, (0.1, 0.1, 0.8)))
    return output


@pytest.fixture(scope="module")
def model(output, tmp_path_factory):
    return export.export(output, tmp_path_factory.mktemp("model") / "model.onnx")


def photos() -> list[np.ndarray]:
    """Fifty, of several sizes, some smooth."""
    found = [noise(seed, *SIZES[seed % len(SIZES)]) for seed in range(50)]
    return [np.sort(one, axis=0) if seed % 4 else one for seed, one in enumerate(found)]


def test_fifty_photos_of_any_size_are_answered_as_torch_and_the_program_answer_them(output, model):
    recipe = pack.current_recipe(output)
    loaded, blend = predict.load(output, recipe, torch.device("cpu"))
    network, session = export.PhotoNetwork(loaded, blend).eval(), onnxruntime.InferenceSession(model)
    names = [*labels.names(), "classes"]
    assert [one.name for one in session.get_outputs()] == names
    for photo in photos():
        found = session.run(None, {"photo": photo})
        with torch.no_grad():
            expected = network(torch.from_numpy(photo))
        images = {one.frame: store.fit(Image.fromarray(photo), one.frame)[None] for one in loaded}
        own = blend.blend(np.stack([one.probabilities(images[one.frame], torch.device("cpu")) for one in loaded]))
        for name, ours, theirs in zip(names, found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
            np.testing.assert_allclose(ours, own[0] if name == "classes" else labels.marginals(own)[name][0], atol=1e-4)
    words = json.loads(session.get_modelmeta().custom_metadata_map["words"])
    assert words["classes"][17] == labels.describe(17) and words["mask"] == list(labels.attribute("mask").words)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_photos_are_resized_to_the_bit_as_pillow_does(resize, channels):
    generator = np.random.default_rng(channels)
    for _ in range(12):
        height, width, *framed = map(int, generator.integers(1, 300, 4))
        photo, frame = noise(height, height, width, 4 if channels == 4 else 3), store.Frame(*framed, resize, channels)
        try:
            expected = store.fit(Image.fromarray(photo), frame)
        except ValueError:  # Pillow refuses to pad what becomes less than a pixel
            continue
        found = pillow_resize.fit(torch.from_numpy(photo), frame).permute(1, 2, 0)
        np.testing.assert_array_equal(found.numpy(), expected, str((photo.shape, frame)))


def test_four_channels_among_others_cannot_be_exported(output):
    (loaded,), _ = predict.load(output, pack.current_recipe(output, "frozen"), torch.device("cpu"))
    other = predict.Member(loaded.networks, store.Frame(16, 24, channels=4), Tta())
    assert export.PhotoNetwork([other], blending.Recipe((1.0,))).channels == {4}
    with pytest.raises(ValueError, match="some runs take four channels and some do not: export them one by one"):
        export.PhotoNetwork([loaded, other], blending.Recipe((0.5, 0.5)))


def test_the_example_of_the_readme_runs(model, tmp_path):
    text = (files.PROJECT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    Image.fromarray(noise(1, 90, 60)).save(tmp_path / "photo.jpg")
    (tmp_path / "model.onnx").symlink_to(model)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert re.findall(r"^\w+", done.stdout, re.MULTILINE) == [*labels.names(), "classes"], done.stderr
