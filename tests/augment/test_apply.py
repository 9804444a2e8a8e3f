"""Each operation does what torchvision's own does, to each photo by its own parameters, from the seed alone."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from mask_lib.augment import apply, color, geometric
from mask_lib.augment.geometric import AFFINE, NAMES
from mask_lib.augment.policy import OPERATIONS, PRESET_POLICIES, Policy, Step, read_policy, write_policy

HEIGHT, WIDTH = 60, 44
BILINEAR = {"interpolation": InterpolationMode.BILINEAR}
STILL = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | BILINEAR


def affine(photos, **changes) -> torch.Tensor:
    return vision.affine(photos, **(STILL | changes))


def slant(value: float) -> float:
    """The angle of a shear in degrees."""
    return math.degrees(math.atan(value))


def eight_bits(operation):
    """The operation on uint8, as torchvision's policies have it."""
    return lambda photos, value: operation(in_bytes(photos), value).float() / 255


# What torchvision is asked for a value in the operation's unit; where its result must agree, and how closely.
#  - MOVED: bilinear on both sides, in the same float32; the coordinates are rounded differently, which shows most
#    where noise has its steepest edges. Compared where nothing from beyond the edge is read: torchvision fills it
#    with black, ours mirrors.
#  - FLOAT: the same arithmetic in float32, in another order.
MOVED, FLOAT = 2e-3, 1e-5
STRENGTHS = [-0.99, -0.3, 0.7]
AGAINST_TORCHVISION = {
    "flip": (lambda photos, value: vision.horizontal_flip(photos), [0.0], MOVED),
    "rotate": (lambda photos, value: vision.rotate(photos, value, **BILINEAR), [-135.0, -10.0, 33.0], MOVED),
    "shear_x": (lambda photos, value: affine(photos, shear=[slant(value), 0.0]), [-0.5, 0.99], MOVED),
    "shear_y": (lambda photos, value: affine(photos, shear=[0.0, slant(value)]), [-0.5, 0.99], MOVED),
    "shift_x": (lambda photos, value: affine(photos, translate=[round(value * WIDTH), 0]), [-0.11, 0.07], MOVED),
    "shift_y": (lambda photos, value: affine(photos, translate=[0, round(value * HEIGHT)]), [-0.08, 0.05], MOVED),
    "scale": (lambda photos, value: affine(photos, scale=math.exp(value)), [-math.log(2), 0.1, math.log(2)], MOVED),
    "brightness": (lambda photos, value: vision.adjust_brightness(photos, 1 + value), STRENGTHS, FLOAT),
    "contrast": (lambda photos, value: vision.adjust_contrast(photos, 1 + value), STRENGTHS, FLOAT),
    "saturation": (lambda photos, value: vision.adjust_saturation(photos, 1 + value), STRENGTHS, FLOAT),
    "gamma": (lambda photos, value: vision.adjust_gamma(photos, math.exp(value)), [-1.0, 0.5, 1.09], FLOAT),
    "sharpness": (lambda photos, value: vision.adjust_sharpness(photos, 1 + value), STRENGTHS, FLOAT),
    "autocontrast": (lambda photos, value: vision.autocontrast(photos), [0.0], FLOAT),
    "invert": (lambda photos, value: vision.invert(photos), [0.0], FLOAT),
    "solarize": (eight_bits(lambda photos, value: vision.solarize(photos, 255 * value)), [0.0, 0.3, 0.7, 1.0], FLOAT),
    "posterize": (eight_bits(lambda photos, value: vision.posterize(photos, int(value))), [2.0, 3.0, 5.0, 8.0], FLOAT),
    "equalize": (eight_bits(lambda photos, value: vision.equalize(photos)), [0.0], FLOAT),
    # The windows differ: beyond three deviations the tail is 0.3%.
    "blur": (lambda photos, value: vision.gaussian_blur(photos, 25, value * WIDTH), [0.005, 0.01, 0.02], 5e-3),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 3, channels: int = 3, smooth: bool = False) -> torch.Tensor:
    """(count, channels, 60, 44) float32 of whole 8-bit levels, not using the whole range."""
    levels = torch.randint(20, 230, (count, channels, HEIGHT, WIDTH), generator=seeded())
    if smooth:
        levels = vision.gaussian_blur(levels.float(), [9, 9], [2.0, 2.0]).round()
    return levels.float() / 255


def in_bytes(photos: torch.Tensor) -> torch.Tensor:
    """Whole 8-bit levels as uint8."""
    return (photos * 255).round().byte()


def performed(photos: torch.Tensor, name: str, value: float) -> torch.Tensor:
    return apply.operated(photos, name, torch.full((len(photos),), value), seeded())


def only(name: str, probability: float = 1.0, magnitude=None) -> Policy:
    return Policy("only", ((Step(name, probability, magnitude),),))


def test_all_operations_of_torchvision_are_compared():
    ours_alone = {"identity", "shift", "grid_distortion", "elastic_distortion", "motion_blur", "erase"}
    assert set(AGAINST_TORCHVISION) == set(OPERATIONS) - ours_alone


@pytest.mark.parametrize(
    ("channels", "as_given"),
    [(3, torch.clone), (3, in_bytes), (1, torch.clone)],
    ids=["colours", "colours in bytes", "grey"],
)
@pytest.mark.parametrize("name", AGAINST_TORCHVISION)
def test_an_operation_does_what_torchvision_does(name, channels, as_given):
    theirs, values, tolerance = AGAINST_TORCHVISION[name]
    photos = noise(channels=channels, smooth=name in AFFINE)
    for value in values:
        found, wanted = performed(as_given(photos), name, value), theirs(photos, value)
        if name in AFFINE:
            inside = theirs(torch.ones_like(photos), value) > 0.9999
            assert inside.float().mean() > 0.2
            found, wanted = found[inside], wanted[inside]
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0, msg=lambda text, at=value: f"{at}: {text}")


@pytest.mark.parametrize(("name", "dim"), [("shift_x", 3), ("shift_y", 2)])
def test_a_shift_alone_is_by_whole_pixels_and_mirrors_what_comes_in_even_twice(name, dim):
    photos, side = noise(), {2: HEIGHT, 3: WIDTH}[dim]
    mirrored = torch.cat([photos, photos.flip(dim), photos, photos.flip(dim), photos], dim)
    for pixels in (-7, -1, 0, 1, 7, side * 3 // 2):  # ten steps of a policy may add up to more than a side
        wanted = mirrored.narrow(dim, 2 * side - pixels, side)
        torch.testing.assert_close(performed(photos, name, (pixels + 0.3) / side), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photos_stay_photos(name, channels):
    photos = noise(4, channels)
    before = photos.clone()
    found = apply.augment(photos, only(name), seeded(1))
    assert (found.shape, found.dtype) == (photos.shape, torch.float32)
    assert found.isfinite().all()
    assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-6
    assert torch.equal(found, photos) == (name == "identity" or (name == "saturation" and channels != 3))
    assert torch.equal(photos, before)


@pytest.mark.parametrize("preset", PRESET_POLICIES)
def test_the_seed_gives_the_photos(preset):
    photos = in_bytes(noise(24))
    first, again, other = (apply.augment(photos, preset, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (preset == "none")
    for same in (photos.float() / 255, photos.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(first, apply.augment(same, preset, seeded(3)), atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", [*OPERATIONS, "trivialaugment", "randaugment", "seed", "faces"])
def test_the_device_changes_nothing(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    policy, photos = PRESET_POLICIES.get(name) or only(name), noise(24)
    there = apply.augment(photos.cuda(), policy, seeded()).cpu()
    # A rounding of the coordinates or of a grey level may go the other way, for a pixel here and there.
    off = (there - apply.augment(photos, policy, seeded())).abs() > 5e-3
    assert off.float().mean() < 0.01


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_photo_is_changed_as_it_would_be_alone(name):
    photos, number = noise(3), torch.full((3, 1), NAMES.index(name))
    values = torch.tensor([0.2, 0.5, 0.9]) * OPERATIONS[name].high
    parameters = torch.rand(3, 1, 100, generator=seeded())
    parameters[:, 0, 0] = values
    together = apply.perform(photos, apply.arranged(number, parameters, photos.shape[1:]))
    for row in range(3):
        here = slice(row, row + 1)
        alone = apply.perform(photos[here], apply.arranged(number[here], parameters[here], photos.shape[1:]))
        torch.testing.assert_close(together[here], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_a_step_is_taken_by_its_share_of_the_photos(probability):
    taken = apply.augment(torch.zeros(600, 1, 4, 4), only("invert", probability), seeded())[:, 0, 0, 0].mean().item()
    assert taken == pytest.approx(probability, abs=0.06)
    assert probability == 0.25 or taken == probability


def test_every_sub_policy_is_as_likely_as_any_other():
    policy = Policy("four", ((), (Step("invert"),), (Step("invert"), Step("invert")), (Step("solarize", 1, 1.0),)))
    operation, _ = apply.draw(policy, 4000, seeded())
    drawn = [tuple(NAMES[number] for number in row) for row in operation.tolist()]
    for wanted in [("identity",) * 2, ("invert", "identity"), ("invert",) * 2, ("solarize", "identity")]:
        assert drawn.count(wanted) / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_drawn_magnitude_has_31_steps_and_a_sign():
    values = apply.draw(only("rotate"), 3000, seeded())[1][..., 0]
    found = np.unique(values.numpy().round(3))
    assert len(found) == 61  # 30 to each side, and 0
    np.testing.assert_allclose(found, np.linspace(-135, 135, 61), atol=0.01)
    assert (values > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_given_magnitude_is_kept_and_a_range_filled():
    assert set(apply.draw(only("rotate", 1.0, 0.2), 50, seeded())[1][:, 0, 0].tolist()) == {-27.0, 27.0}
    assert set(apply.draw(only("solarize", 1.0, 0.25), 50, seeded())[1][:, 0, 0].tolist()) == {0.75}
    values = apply.draw(only("erase", 1.0, (0.2, 0.6)), 2000, seeded())[1][:, 0, 0] / 0.15
    np.testing.assert_allclose(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), [0.2, 0.3, 0.4, 0.5, 0.6], atol=0.02)


def test_steps_are_taken_in_their_order():
    photos, steps = noise(4), (Step("solarize", 1, 0.5), Step("posterize", 1, 1.0))
    first = apply.augment(photos, Policy("a", (steps,)), seeded())
    wanted = performed(performed(photos, "solarize", 0.5), "posterize", 2.0)
    torch.testing.assert_close(first, wanted, atol=FLOAT, rtol=0)
    assert not torch.equal(first, apply.augment(photos, Policy("b", (steps[::-1],)), seeded()))


def test_affine_operations_that_follow_one_another_are_one_resampling():
    photos, steps = noise(2, smooth=True), (Step("shift_x", 1, 0.5), Step("rotate", 1, 0.1), Step("shear_y", 1, 0.2))
    operation, parameters = apply.draw(Policy("three", (steps,)), 2, seeded(5))
    assert geometric.compose(operation, parameters, HEIGHT, WIDTH)[0].tolist() == [[0, 0, NAMES.index("warp")]] * 2
    found = apply.augment(photos, Policy("three", (steps,)), seeded(5))
    one_by_one = photos
    for place, step in enumerate(steps):
        one_by_one = apply.operated(one_by_one, step.operation, parameters[:, place, 0], seeded())
    inside = (slice(None), slice(None), slice(20, 40), slice(15, 30))
    torch.testing.assert_close(found[inside], one_by_one[inside], atol=0.06, rtol=0)  # thrice resampled is softer


def test_what_comes_between_affine_operations_parts_them_and_what_undoes_itself_is_none():
    names = ("rotate", "identity", "shear_x", "invert", "flip", "flip")
    operation = torch.tensor([[NAMES.index(name) for name in names]])
    found, _ = geometric.compose(operation, torch.full((1, 6, 6), 0.3), HEIGHT, WIDTH)
    assert [NAMES[number] for number in found[0]] == ["identity", "identity", "warp", "invert", "identity", "identity"]


def test_the_edge_is_mirrored_never_black():
    bright = torch.ones(8, 3, HEIGHT, WIDTH)
    for name in [*AFFINE, "grid_distortion", "elastic_distortion", "blur", "motion_blur"]:
        assert apply.augment(bright, only(name), seeded()).min() > 0.999, name


def test_a_motion_blur_smears_along_one_line():
    dot = torch.zeros(1, 1, 141, 141)
    dot[0, 0, 70, 70] = 1
    found = color.motion_blur(dot, torch.tensor([10 / 141]), torch.tensor([[0.25]]))[0, 0]  # 45 degrees
    assert found.sum().item() == pytest.approx(1, abs=1e-4)
    rows, columns = (found > 0.01).nonzero().T
    assert (rows - columns).abs().max() <= 1
    assert rows.max() - rows.min() == pytest.approx(10 * math.sin(math.pi / 4), abs=2)


def test_distortions_grow_with_their_value_and_spare_nothing_at_0():
    photos = noise(4, smooth=True)
    for name in ("grid_distortion", "elastic_distortion"):
        still, mild, wild = (performed(photos, name, share * OPERATIONS[name].high) for share in (0.0, 0.2, 1.0))
        torch.testing.assert_close(still, photos, atol=1e-4, rtol=0)
        assert 0.002 < (mild - photos).abs().mean() < (wild - photos).abs().mean()


def test_a_grid_distortion_moves_no_edge():
    found = performed(torch.linspace(0, 1, WIDTH).expand(6, 1, HEIGHT, WIDTH), "grid_distortion", 0.8)
    assert found[..., 0].max() < 0.03
    assert found[..., -1].min() > 0.97
    assert (found.diff(dim=3) > -1e-6).all()  # nothing folds over


def test_erasing_greys_one_rectangle_of_the_promised_size():
    grey = apply.augment(torch.full((300, 3, 96, 64), 0.9), only("erase", 1.0, (0.02 / 0.15, 1.0)), seeded()) == 0.5
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    for one in grey[:, 0]:
        tall, wide = one.any(dim=1).sum().item(), one.any(dim=0).sum().item()
        assert one.sum().item() == tall * wide  # one full rectangle
        assert (tall + 1) * (wide + 1) / one.numel() >= 0.02
        assert (tall - 1) * (wide - 1) / one.numel() <= 0.15


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 1, 1), (2, 3, 2, 5), (1, 1, 3, 2), (40, 6, 8, 8)])
@pytest.mark.parametrize("preset", ["trivialaugment", "seed", "randaugment", "faces"])
def test_tiny_photos_and_no_photos_will_do(shape, preset):
    for photos in (torch.rand(shape, generator=seeded()), torch.full(shape, 128, dtype=torch.uint8)):
        for seed in range(4):
            found = apply.augment(photos, preset, seeded(seed))
            assert found.shape == shape
            assert found.isfinite().all()


# Presets


def test_faces_are_changed_mildly_and_both_ways():
    operation, parameters = apply.draw(PRESET_POLICIES["faces"], 2000, seeded())
    most = dict.fromkeys(("brightness", "contrast", "saturation"), 0.25)
    most |= {"shift_x": 0.06, "shift_y": 0.06, "rotate": 12, "scale": math.log(1.15)}
    for name, value in most.items():
        values = parameters[..., 0][operation == NAMES.index(name)]
        assert (values.min() / value, values.max() / value) == pytest.approx((-1, 1), abs=0.01), name


@pytest.mark.parametrize("channels", [1, 4])
def test_faces_are_moved_and_lit_alike_whatever_their_channels(channels):
    """Saturation alone asks for three colours, and changes no grey."""
    grey = torch.randint(60, 140, (8, 1, 24, 16), dtype=torch.uint8, generator=seeded())
    other, colour = (apply.augment(grey.expand(-1, count, -1, -1), "faces", seeded()) for count in (channels, 3))
    torch.testing.assert_close(other, colour[:, :1].expand_as(other), atol=1e-3, rtol=0)


def test_a_preset_a_policy_and_its_file_are_one(tmp_path):
    photos, path = in_bytes(noise(8)), write_policy(PRESET_POLICIES["faces"], tmp_path / "faces.json")
    wanted = apply.augment(photos, "faces", seeded())
    for policy in (PRESET_POLICIES["faces"], read_policy(path), str(path)):
        assert torch.equal(apply.augment(photos, policy, seeded()), wanted)
    inverted = Policy("none", ((Step("invert"),),))  # a preset's name alone makes no preset
    torch.testing.assert_close(apply.augment(photos, inverted, seeded()), 1 - photos.float() / 255)


# Pictures


def test_a_preview_is_an_array_of_pictures():
    photos = in_bytes(noise(8))
    np.testing.assert_array_equal(apply.preview(photos, "none"), photos.permute(0, 2, 3, 1).numpy())
    assert apply.preview(photos, "faces").dtype == np.uint8


def test_examples_show_every_operation_five_times():
    images, titles = apply.examples(in_bytes(noise(8)))
    assert len(images) == len(titles) == 5 * len(OPERATIONS)
    at = titles.index("rotate 0")
    assert titles[at : at + 5] == ["rotate 0", "rotate 0.25", "rotate 0.5", "rotate 0.75", "rotate 1"]
    changes = [np.abs(images[at + place].astype(int) - images[at]).mean() for place in range(5)]
    assert changes[0] == 0 and min(changes[1:]) > 10
    assert not np.array_equal(images[0], images[1])  # without a magnitude: five photos
