"""Each photo gets parameters of its own, from the seed alone, and stays a photo of a face."""

import dataclasses

import numpy as np
import pytest
import torch

from mask_lib.augment import apply
from mask_lib.augment.policy import OPERATIONS, PRESET_POLICIES, Policy, Step, read_policy, write_policy

HEIGHT, WIDTH = 96, 64


@pytest.fixture
def photos() -> torch.Tensor:
    """(8, 3, 96, 64) uint8 noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_strength(monkeypatch, **settings) -> None:
    """Let the preset `faces` do only what `settings` say."""
    monkeypatch.setitem(apply.PRESETS, "faces", apply.Strength(**settings))


def shape_on_black(inside: torch.Tensor) -> torch.Tensor:
    """(16, 3, H, W) uint8: the same white shape, an (H, W) bool, on black."""
    return (inside * 255).to(torch.uint8).expand(16, 3, HEIGHT, WIDTH)


def centred_rows_and_columns() -> tuple[torch.Tensor, torch.Tensor]:
    """Distances of the pixels from the photo's middle, in pixels, (H, 1) and (1, W)."""
    return torch.arange(HEIGHT)[:, None] - (HEIGHT - 1) / 2, torch.arange(WIDTH)[None] - (WIDTH - 1) / 2


def spreads(batch: torch.Tensor) -> np.ndarray:
    """(B, 2) standard deviations in pixels of each photo's white along its shortest and longest axis."""
    rows, columns = (one.expand(HEIGHT, WIDTH).numpy().ravel() for one in centred_rows_and_columns())
    white = batch.mean(dim=1).flatten(1).numpy()
    covariances = [np.cov(np.stack([rows, columns]), aweights=one) for one in white]
    return np.sqrt(np.linalg.eigvalsh(np.stack(covariances)))


@pytest.mark.parametrize("preset", apply.PRESETS)
def test_the_same_seed_gives_the_same_photos(photos, preset):
    first, again = (apply.augment(photos, preset, seeded(3)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("preset", ["flip", "faces"])
def test_another_seed_gives_others(photos, preset):
    assert not torch.equal(apply.augment(photos, preset, seeded(3)), apply.augment(photos, preset, seeded(4)))


@pytest.mark.parametrize("preset", apply.PRESETS)
def test_photos_stay_photos(photos, preset):
    before = photos.clone()
    found = apply.augment(photos, preset, seeded())
    assert (found.shape, found.dtype) == (photos.shape, torch.float32)
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(photos, before)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels_will_do(channels):
    photos = torch.full((2, channels, 12, 8), 200, dtype=torch.uint8)
    assert apply.augment(photos, "faces", seeded()).shape == photos.shape


@pytest.mark.parametrize("channels", [1, 4])
def test_a_photo_is_moved_and_lit_alike_whatever_its_channels(channels, monkeypatch):
    """Only saturation is a matter of three colours, and its draws are made for all."""
    grey = torch.randint(60, 140, (8, 1, 24, 16), dtype=torch.uint8, generator=seeded())
    other, colour = (apply.augment(grey.expand(-1, count, -1, -1), "faces", seeded()) for count in (channels, 3))
    torch.testing.assert_close(other, colour[:, :1].expand_as(other), atol=1e-5, rtol=0)


def test_saturation_leaves_four_channels_as_they_are(monkeypatch):
    with_strength(monkeypatch, saturation=0.5)
    photos = torch.randint(0, 256, (8, 4, 24, 16), dtype=torch.uint8, generator=seeded())
    found = apply.augment(photos, "faces", seeded())
    torch.testing.assert_close(found, photos.float() / 255, atol=1e-5, rtol=0)


def test_photos_of_one_batch_differ_in_their_parameters(photos):
    equal = photos[:1].expand(8, -1, -1, -1)
    found = apply.augment(equal, "faces", seeded())
    assert len({one.numpy().tobytes() for one in found}) == 8


def test_none_changes_nothing(photos):
    assert torch.equal(apply.augment(photos, "none", seeded()), photos.float() / 255)


def test_flip_mirrors_about_half_and_does_nothing_else(photos):
    many = photos[:1].expand(200, -1, -1, -1)
    found, plain = apply.augment(many, "flip", seeded()), photos[0].float() / 255
    mirrored = [torch.equal(one, plain.flip(2)) for one in found]
    untouched = [torch.equal(one, plain) for one in found]
    assert sum(mirrored) + sum(untouched) == 200
    assert 70 <= sum(mirrored) <= 130


def test_without_strength_every_step_returns_the_photo(photos, monkeypatch):
    batch, nothing = photos.float() / 255, apply.Strength()
    torch.testing.assert_close(apply.warp(batch, apply.affine(batch, nothing, seeded())), batch, atol=1e-5, rtol=0)
    torch.testing.assert_close(apply.recolour(batch, nothing, seeded()), batch, atol=1e-6, rtol=0)
    assert torch.equal(apply.erase(batch, 0.0, seeded()), batch)


def test_a_mirror_by_the_affine_step_is_a_mirror(photos):
    batch = photos.float() / 255
    found = apply.warp(batch, apply.affine(batch, apply.Strength(flip=1.0), seeded()))
    torch.testing.assert_close(found, batch.flip(3), atol=1e-4, rtol=0)


def test_a_turned_disc_stays_a_disc_though_the_photo_is_not_square(monkeypatch):
    rows, columns = centred_rows_and_columns()
    disc = shape_on_black(rows**2 + columns**2 < 12**2)  # small enough that no mirrored edge comes into view
    with_strength(monkeypatch, degrees=40)
    found = spreads(apply.augment(disc, "faces", seeded()))
    np.testing.assert_allclose(found, 6, rtol=0.02)  # half the radius, along every axis


def test_a_turned_bar_keeps_its_length_and_width(monkeypatch):
    rows, columns = centred_rows_and_columns()
    bar = shape_on_black((rows.abs() < 24) & (columns.abs() < 4))
    with_strength(monkeypatch, degrees=80)
    found = apply.augment(bar, "faces", seeded())
    np.testing.assert_allclose(spreads(found), np.tile(spreads(bar[:1] / 255), (16, 1)), rtol=0.02)
    assert found[:, 0].amax(dim=1).sum(dim=1).std() > 5  # the columns it covers: it did turn


def test_zoom_changes_both_sides_alike_within_its_bounds(monkeypatch):
    rows, columns = centred_rows_and_columns()
    disc = shape_on_black(rows**2 + columns**2 < 20**2)
    with_strength(monkeypatch, scale=0.25)
    found = spreads(apply.augment(disc, "faces", seeded()))
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=0.01)
    assert 10 / 1.26 < found.min() < 9
    assert 11 < found.max() < 10 * 1.26


def test_shifts_go_both_ways_within_their_bounds(monkeypatch):
    rows, columns = centred_rows_and_columns()
    disc = shape_on_black(rows**2 + columns**2 < 10**2)
    with_strength(monkeypatch, shift=0.1)
    white = apply.augment(disc, "faces", seeded())[:, 0]
    for distances, side in ((rows, HEIGHT), (columns, WIDTH)):
        moved = (white * distances).sum(dim=(1, 2)) / white.sum(dim=(1, 2)) / side
        assert -0.101 < moved.min() < -0.03
        assert 0.03 < moved.max() < 0.101


def test_the_edge_is_mirrored_never_black(monkeypatch):
    with_strength(monkeypatch, degrees=30, scale=0.3, shift=0.2, flip=0.5)
    bright = torch.full((16, 3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    assert apply.augment(bright, "faces", seeded()).min() > 0.999


def test_the_preset_for_faces_never_turns_a_face_far():
    strength = apply.PRESETS["faces"]
    matrices = apply.affine(torch.zeros(500, 3, 50, 50), dataclasses.replace(strength, flip=0.0), seeded())
    turns = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 1, 1]))
    assert 10 < turns.abs().max() <= 12 + 1e-4


def test_brightness_scales_each_photo_within_its_bounds(monkeypatch):
    with_strength(monkeypatch, brightness=0.25)
    grey = torch.full((100, 3, 4, 4), 128, dtype=torch.uint8)
    factors = apply.augment(grey, "faces", seeded())[:, 0, 0, 0] / (128 / 255)
    assert 0.75 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.25


def test_contrast_leaves_the_mean_and_saturation_the_grey(photos):
    batch = 0.4 + 0.2 * photos.float() / 255  # in the middle, so that nothing is clipped
    contrasted = apply.recolour(batch, apply.Strength(contrast=0.5), seeded())
    torch.testing.assert_close(contrasted.mean(dim=(1, 2, 3)), batch.mean(dim=(1, 2, 3)))
    assert (contrasted.std(dim=(1, 2, 3)) / batch.std(dim=(1, 2, 3)) - 1).abs().max() > 0.2
    coloured = apply.recolour(batch, apply.Strength(saturation=0.5), seeded())
    torch.testing.assert_close(coloured.mean(dim=1), batch.mean(dim=1))
    assert (coloured - batch).abs().max() > 0.01


def test_erasing_greys_one_rectangle_of_the_promised_size():
    batch = torch.full((300, 3, HEIGHT, WIDTH), 0.9)
    grey = apply.erase(batch, 1.0, seeded()) == 0.5
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    for one in grey[:, 0]:
        tall, wide = one.any(dim=1).sum().item(), one.any(dim=0).sum().item()
        assert one.sum().item() == tall * wide  # one full rectangle
        assert (tall + 1) * (wide + 1) / one.numel() >= 0.02
        assert (tall - 1) * (wide - 1) / one.numel() <= 0.15


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_strikes_its_share_of_the_photos(probability):
    batch = torch.full((400, 1, 16, 16), 0.9)
    struck = (apply.erase(batch, probability, seeded()) == 0.5).flatten(1).any(dim=1).float().mean().item()
    assert struck == pytest.approx(probability, abs=0.08)
    assert probability not in (0.0, 1.0) or struck == probability


def test_draws_fill_their_range():
    drawn = apply.draw(1000, seeded(), -2, 3)
    assert drawn.shape == (1000,)
    assert -2 <= drawn.min() < -1.9
    assert 2.9 < drawn.max() < 3


@pytest.mark.parametrize("preset", apply.PRESETS)
def test_a_preview_is_an_array_of_pictures(photos, preset):
    found = apply.preview(photos, preset)
    assert (found.shape, found.dtype) == ((8, HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_array_equal(found, apply.preview(photos, preset, seed=0))


def test_a_preview_without_augmentation_is_the_photo(photos):
    np.testing.assert_array_equal(apply.preview(photos, "none"), photos.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(("preset", "total"), [("none", 23041.00830), ("flip", 23048.80046), ("faces", 22401.30429)])
def test_the_first_presets_give_what_they_always_gave(preset, total):
    """Runs of before the policies must resume and repeat; a sum weighted by place is told from any other's."""
    levels = torch.arange(8 * 3 * 24 * 16).reshape(8, 3, 24, 16).mul(7919).remainder(256).byte()
    found = apply.augment(levels, preset, seeded(11)).double()
    assert (found * torch.arange(found.numel()).view(found.shape).remainder(11)).sum().item() == pytest.approx(total)


def test_a_preset_a_policy_and_its_file_are_one(photos, tmp_path):
    path = write_policy(PRESET_POLICIES["seed"], tmp_path / "seed.json")
    wanted = apply.augment(photos, "seed", seeded())
    for policy in (PRESET_POLICIES["seed"], str(path)):
        assert torch.equal(apply.augment(photos, policy, seeded()), wanted)
    faces = read_policy(write_policy(PRESET_POLICIES["faces"], tmp_path / "faces.json"))
    assert torch.equal(apply.augment(photos, faces, seeded()), apply.augment(photos, "faces", seeded()))


def test_a_policy_that_only_bears_a_preset_s_name_does_what_it_says(photos):
    inverted = Policy("none", ((Step("invert"),),))
    torch.testing.assert_close(apply.augment(photos, inverted, seeded()), 1 - photos.float() / 255)


@pytest.mark.parametrize("preset", PRESET_POLICIES)
def test_every_preset_leaves_the_given_photos_alone(photos, preset):
    before = photos.clone()
    found = apply.augment(photos, preset, seeded())
    assert torch.equal(photos, before)
    assert (found.shape, found.dtype) == (photos.shape, torch.float32)


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"did you mean trivialaugment"):
        apply.augment(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "trivial_augment", seeded())


def test_examples_show_every_operation_five_times(photos):
    images, titles = apply.examples(photos)
    assert len(images) == len(titles) == 5 * len(OPERATIONS)
    assert {image.shape for image in images} == {(HEIGHT, WIDTH, 3)}
    at = titles.index("rotate 0")
    assert titles[at : at + 5] == ["rotate 0", "rotate 0.25", "rotate 0.5", "rotate 0.75", "rotate 1"]
    changes = [np.abs(images[at + place].astype(int) - images[at]).mean() for place in range(5)]
    assert changes[0] == 0
    assert min(changes[1:]) > 10
    assert not np.array_equal(images[0], images[1])  # without a magnitude: five photos
