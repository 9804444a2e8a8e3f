"""Test-time views: as many as asked, the photo itself among them, and their answers averaged."""

import numpy as np
import pandas as pd
import pytest
import torch

from mask_lib.base import labels
from mask_lib.data import store
from mask_lib.models import build, devices, predict

KINDS = [(1, "faces"), (4, "faces"), (8, "faces"), (1, "dihedral"), (4, "dihedral"), (8, "dihedral")]


def views(batch: torch.Tensor, *settings) -> list[torch.Tensor]:
    return [view.contiguous() for view in predict.Tta(*settings).views(batch)]


@pytest.mark.parametrize("settings", KINDS)
def test_views_are_as_many_as_asked_and_the_first_is_the_photo_itself(settings):
    batch = torch.rand(2, 3, 20, 14)
    seen = views(batch, *settings)
    assert len(seen) == settings[0]
    assert torch.equal(seen[0], batch)
    assert len({view.numpy().tobytes() for view in seen}) == settings[0]


def test_every_other_view_of_faces_is_the_one_before_mirrored_and_is_not_zoomed_again(monkeypatch):
    zoomed, calls = predict.zoomed, []
    monkeypatch.setattr(predict, "zoomed", lambda *given, **more: calls.append(1) or zoomed(*given, **more))
    seen = views(torch.rand(2, 3, 20, 14), 8)
    for plain, mirrored in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(plain.flip(3), mirrored)
    assert len(calls) == 3  # the fourth is the photo as it is


def test_zooming_keeps_the_middle_drops_the_rim_and_does_the_same_to_every_photo():
    batch = torch.zeros(1, 1, 40, 40)
    batch[..., 0, :] = 1  # the top row
    batch[..., 19:21, 19:21] = 1
    found = predict.zoomed(batch, 0.8)
    assert found[..., :3, :].max() == 0
    assert found[..., 19:21, 19:21].min() > 0.9
    same = predict.zoomed(torch.rand(1, 3, 20, 14).expand(3, -1, -1, -1), 0.9, right=0.05, down=0.02)
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


@pytest.mark.parametrize("count", [4, 8])
def test_the_dihedral_views_move_every_pixel_somewhere_and_are_closed_as_a_group(count):
    batch = torch.arange(2 * 3 * 25, dtype=torch.float32).view(2, 3, 5, 5)
    seen = views(batch, count, "dihedral")
    for view in seen:
        assert torch.equal(view.flatten(2).sort().values, batch.flatten(2).sort().values)
    again = {one.numpy().tobytes() for view in seen for one in views(view, count, "dihedral")}
    assert again == {view.numpy().tobytes() for view in seen}


def test_only_the_transposes_need_a_square():
    tall = store.Frame(width=96, height=128)
    for settings in [(1, "dihedral"), (4, "dihedral"), (8, "faces")]:
        predict.Tta(*settings).check_fits(tall)
    predict.Tta(8, "dihedral").check_fits(store.Frame(96, 96))
    with pytest.raises(ValueError, match=r"must be square.* 96 x 128 pixels: use num_tta = 4"):
        predict.Tta(8, "dihedral").check_fits(tall)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_tta", 2), ("num_tta", "4"), ("num_tta", True), ("tta_views", "flips"), ("tta_average", "max")],
)
def test_what_is_no_setting_of_views_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value!r}: it must be one of {predict.CHOICES[name][0]}, "):
        predict.Tta(**{name: value})


class Brightness(torch.nn.Module):
    """Logits that depend on the photo's upper left corner, so that every view has its own."""

    def forward(self, batch):
        corner = batch[:, :, :3, :3].mean(dim=(1, 2, 3))[:, None]
        return torch.nn.functional.pad(corner * 30, (0, labels.class_count() - 1))


PREPROCESSING = build.Preprocessing(12, 12, "stretch", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def source() -> devices.DevicePhotos:
    images = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3), dtype=np.uint8)
    opened = store.Store(images, {str(row): row for row in range(5)}, "", store.Frame(12, 12))
    return devices.DevicePhotos(opened, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["faces", "dihedral"])
def test_views_are_averaged_as_probabilities_or_as_logits(source, kind):
    seen = views(source.batch(np.arange(5)).float() / 255, 8, kind)
    logits = torch.stack([Brightness()(PREPROCESSING.prepared(view)) for view in seen])
    expected = {"probabilities": logits.softmax(dim=2).mean(dim=0), "logits": logits.mean(dim=0).softmax(dim=1)}
    assert not np.allclose(*expected.values(), atol=1e-3)
    for average, wanted in expected.items():
        tta = predict.Tta(8, kind, average)
        found = predict.Loaded(Brightness(), PREPROCESSING, torch.float32).predict(source, np.arange(5), tta)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert len(np.unique(found[:, 0])) == 5


def test_there_are_as_many_probabilities_as_classes_at_the_time_even_of_no_photos(source):
    with labels.using([labels.Attribute("helmet", ("on", "off"), "ab")]):
        for rows in (np.arange(5), np.arange(0)):
            found = predict.Loaded(Brightness(), PREPROCESSING, torch.float32).predict(source, rows)
            assert found.shape == (len(rows), 2)
            keys = pd.DataFrame({"path": [f"{row}.png" for row in rows]}, index=rows + 7)
            assert list(predict.probability_table(keys, found)) == ["path", "p00", "p01"]
            assert len(predict.probability_table(keys, found).dropna()) == len(rows)
