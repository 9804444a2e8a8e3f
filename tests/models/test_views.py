"""Test-time views: as many as asked, the photo itself among them, and their answers averaged."""

import numpy as np
import pytest
import torch

from mask_lib.data import store
from mask_lib.models import build, devices, predict


@pytest.mark.parametrize("count", [1, 4, 8])
def test_views_are_as_many_as_asked_and_the_first_is_the_photo_itself(count):
    batch = torch.rand(2, 3, 20, 14)
    seen = [view(batch) for view in predict.views_of(count)]
    assert len(seen) == count
    assert torch.equal(seen[0], batch)
    assert len({view.numpy().tobytes() for view in seen}) == count


def test_half_of_the_views_are_the_others_mirrored():
    batch = torch.rand(2, 3, 20, 14)
    seen = [view(batch) for view in predict.views_of(8)]
    for plain, mirrored in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(plain.flip(3), mirrored)


@pytest.mark.parametrize("settings", [(1, "faces"), (4, "faces"), (8, "faces"), (4, "dihedral"), (8, "dihedral")])
def test_what_is_shown_are_the_views(settings):
    batch, tta = torch.rand(2, 3, 20, 20), predict.Tta(*settings)
    shown, seen = list(tta.shown(batch)), [view(batch) for view in tta.views()]
    assert torch.equal(shown[0], batch)
    assert sorted(one.numpy().tobytes() for one in shown) == sorted(one.numpy().tobytes() for one in seen)


def test_a_view_and_its_mirror_image_are_zoomed_once(monkeypatch):
    zoomed, calls = predict.zoomed, []
    monkeypatch.setattr(predict, "zoomed", lambda *given, **more: calls.append(1) or zoomed(*given, **more))
    assert len(list(predict.Tta(8).shown(torch.rand(2, 3, 20, 14)))) == 8
    assert len(calls) == 3  # the fourth is the photo as it is


def test_every_photo_of_a_batch_is_zoomed_alike():
    batch = torch.rand(1, 3, 20, 14).expand(3, -1, -1, -1)
    found = predict.zoomed(batch, 0.9, right=0.05, down=0.02)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="num_tta = 3"):
        predict.views_of(3)


def test_zooming_keeps_the_middle_and_drops_the_rim():
    batch = torch.zeros(1, 1, 40, 40)
    batch[..., 0, :] = 1  # the top row
    batch[..., 19:21, 19:21] = 1
    zoomed = predict.zoomed(batch, 0.8)
    assert zoomed[..., :3, :].max() == 0
    assert zoomed[..., 19:21, 19:21].min() > 0.9


@pytest.mark.parametrize("count", [4, 8])
def test_the_dihedral_set_holds_distinct_views_that_move_every_pixel_somewhere(count):
    batch = torch.arange(2 * 3 * 25, dtype=torch.float32).view(2, 3, 5, 5)
    seen = [view(batch) for view in predict.views_of(count, "dihedral")]
    assert len({view.numpy().tobytes() for view in seen}) == count
    assert torch.equal(seen[0], batch)
    for view in seen:
        assert torch.equal(view.flatten(2).sort().values, batch.flatten(2).sort().values)


def test_flipping_or_transposing_twice_is_the_photo_itself():
    batch = torch.rand(2, 3, 6, 6)
    ways = predict.views_of(8, "dihedral")
    for way in ways[:5]:  # four flips, and the transpose of the first of them, which is the plain photo
        assert torch.equal(way(way(batch)), batch)
    turned = ways[5](batch)  # a quarter turn
    assert not torch.equal(ways[5](turned), batch)
    assert torch.equal(ways[5](ways[5](ways[5](turned))), batch)


def test_the_eight_dihedral_views_are_closed_a_group():
    batch = torch.rand(1, 1, 4, 4)
    ways = predict.views_of(8, "dihedral")
    seen = {way(batch).numpy().tobytes() for way in ways}
    assert {way(other(batch)).contiguous().numpy().tobytes() for way in ways for other in ways} == seen


def test_only_the_transposes_need_a_square():
    tall = store.Frame(width=96, height=128)
    for settings in [(1, "dihedral"), (4, "dihedral"), (8, "faces")]:
        predict.Tta(*settings).check_fits(tall)
    predict.Tta(8, "dihedral").check_fits(store.Frame(96, 96))
    with pytest.raises(ValueError, match=r"must be square.* 96 x 128 pixels: use num_tta = 4"):
        predict.Tta(8, "dihedral").check_fits(tall)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_tta": 2}, "num_tta = 2: it must be 1, 4 or 8"),
        ({"num_tta": "4"}, "num_tta = '4' is text"),
        ({"tta_views": "flips"}, "tta_views = 'flips': it must be one of faces, dihedral"),
        ({"tta_average": "max"}, "tta_average = 'max': it must be one of probabilities, logits"),
    ],
)
def test_what_is_no_setting_of_views_is_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        predict.Tta(**wrong)


class Brightness(torch.nn.Module):
    """Logits that depend on the photo's upper left corner, so that every view has its own."""

    def forward(self, batch):
        return torch.nn.functional.pad(batch[:, :, :3, :3].mean(dim=(1, 2, 3))[:, None] * 30, (0, 17))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("kind", ["faces", "dihedral"])
def test_views_are_averaged_as_probabilities_or_as_logits(average, kind):
    images = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3), dtype=np.uint8)
    opened = store.Store(images, {str(row): row for row in range(5)}, "", store.Frame(12, 12))
    source = devices.DevicePhotos(opened, torch.device("cpu"))
    preprocessing = build.Preprocessing(12, 12, "stretch", (0.5,) * 3, (0.5,) * 3)
    tta = predict.Tta(8, kind, average)
    found = predict.predict_probabilities(Brightness(), source, np.arange(5), preprocessing, tta=tta)
    batch = source.batch(np.arange(5)).float() / 255
    logits = np.stack([Brightness()(preprocessing.prepared(view(batch))).numpy() for view in tta.views()])
    logits = logits.mean(axis=0, keepdims=True) if average == "logits" else logits
    expected = (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(np.unique(found[:, 0])) == 5


def test_the_two_averages_differ_where_views_do():
    logits = torch.zeros(2, 1, 18)
    logits[0, 0, 0] = 10.0
    by_probability, by_logit = (
        predict.Tta(4, "faces", how).averaged(logits)[0, 0] for how in ("probabilities", "logits")
    )
    assert by_probability < 0.6 < 0.8 < by_logit
