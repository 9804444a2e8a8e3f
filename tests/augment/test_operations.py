"""Each operation of a policy does what torchvision's own does, to each photo by its own parameters, from the seed."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from mask_lib.augment import draws, geometric, operations
from mask_lib.augment.policy import OPERATIONS, PRESET_POLICIES, Policy, Step

HEIGHT, WIDTH = 60, 44
BILINEAR = {"interpolation": InterpolationMode.BILINEAR}
STILL = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | BILINEAR


def sheared(photos, across: float, down: float) -> torch.Tensor:
    return vision.affine(
        photos, **(STILL | {"shear": [math.degrees(math.atan(across)), math.degrees(math.atan(down))]})
    )


def eight_bits(operation):
    """The operation on uint8, as torchvision's policies have it."""

    def through(photos: torch.Tensor, value: float) -> torch.Tensor:
        return operation(in_bytes(photos), value).float() / 255

    return through


# What torchvision is asked for a value in the operation's unit; where its result must agree, and how closely.
#  - MOVED: bilinear on both sides, in the same float32; the coordinates are rounded differently, which shows most
#    where noise has its steepest edges. Compared where nothing from beyond the edge is read: torchvision fills it
#    with black, ours mirrors.
#  - FLOAT: the same arithmetic in float32, in another order.
MOVED, FLOAT = 2e-3, 1e-5
AGAINST_TORCHVISION = {
    "flip": (lambda photos, value: vision.horizontal_flip(photos), [0.0], MOVED),
    "rotate": (lambda photos, value: vision.rotate(photos, value, **BILINEAR), [-135.0, -10.0, 33.0], MOVED),
    "shear_x": (lambda photos, value: sheared(photos, value, 0), [-0.5, 0.99], MOVED),
    "shear_y": (lambda photos, value: sheared(photos, 0, value), [-0.5, 0.99], MOVED),
    "shift_x": (
        lambda photos, value: vision.affine(photos, **(STILL | {"translate": [round(value * WIDTH), 0]})),
        [-5 / WIDTH, 3 / WIDTH],  # torchvision shifts by whole pixels
        MOVED,
    ),
    "shift_y": (
        lambda photos, value: vision.affine(photos, **(STILL | {"translate": [0, round(value * HEIGHT)]})),
        [-5 / HEIGHT, 3 / HEIGHT],
        MOVED,
    ),
    "scale": (
        lambda photos, value: vision.affine(photos, **(STILL | {"scale": math.exp(value)})),
        [-math.log(2), 0.1, math.log(2)],
        MOVED,
    ),
    "brightness": (lambda photos, value: vision.adjust_brightness(photos, 1 + value), [-0.99, -0.3, 0.7], FLOAT),
    "contrast": (lambda photos, value: vision.adjust_contrast(photos, 1 + value), [-0.99, -0.3, 0.7], FLOAT),
    "saturation": (lambda photos, value: vision.adjust_saturation(photos, 1 + value), [-0.99, -0.3, 0.7], FLOAT),
    "gamma": (lambda photos, value: vision.adjust_gamma(photos, math.exp(value)), [-1.0, 0.5, 1.09], FLOAT),
    "sharpness": (lambda photos, value: vision.adjust_sharpness(photos, 1 + value), [-0.99, -0.3, 0.7], FLOAT),
    "autocontrast": (lambda photos, value: vision.autocontrast(photos), [0.0], FLOAT),
    "invert": (lambda photos, value: vision.invert(photos), [0.0], FLOAT),
    "solarize": (
        eight_bits(lambda photos, value: vision.solarize(photos, 255 * value)),
        [0.0, 0.3, 0.7, 1.0],
        FLOAT,
    ),
    "posterize": (
        eight_bits(lambda photos, value: vision.posterize(photos, int(value))),
        [2.0, 3.0, 5.0, 8.0],
        FLOAT,
    ),
    "equalize": (eight_bits(lambda photos, value: vision.equalize(photos)), [0.0], FLOAT),
    "blur": (
        lambda photos, value: vision.gaussian_blur(photos, [25, 25], [value * WIDTH] * 2),
        [0.02, 0.05, 0.08],  # torchvision's fixed window is wider than three of these deviations: the tail is 0.3%
        5e-3,
    ),
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
    return operations.perform(photos.clone(), name, torch.full((len(photos),), value), seeded())


def only(name: str, probability: float = 1.0, magnitude: float | None = None) -> Policy:
    return Policy("only", ((Step(name, probability, magnitude),),))


def test_every_operation_is_implemented_and_all_of_torchvision_s_are_compared():
    assert set(OPERATIONS) == {"identity"} | set(geometric.MOVING) | set(operations.CHANGING)
    ours_alone = {"identity", "shift", "grid_distortion", "elastic_distortion", "motion_blur", "erase"}
    assert set(AGAINST_TORCHVISION) == set(OPERATIONS) - ours_alone


@pytest.mark.parametrize("as_given", [lambda photos: photos, in_bytes], ids=["float", "bytes"])
@pytest.mark.parametrize("name", AGAINST_TORCHVISION)
def test_an_operation_does_what_torchvision_does(name, as_given):
    theirs, values, tolerance = AGAINST_TORCHVISION[name]
    photos = noise(smooth=name in geometric.MOVING)
    for value in values:
        found, wanted = performed(as_given(photos), name, value), theirs(photos, value)
        if name in geometric.MOVING:
            inside = theirs(torch.ones_like(photos), value) > 0.9999
            assert inside.float().mean() > 0.2
            found, wanted = found[inside], wanted[inside]
        torch.testing.assert_close(
            found, wanted, atol=tolerance, rtol=0, msg=lambda text, value=value: f"{value}: {text}"
        )


@pytest.mark.parametrize("name", ["brightness", "contrast", "autocontrast", "solarize", "equalize", "sharpness"])
def test_grey_photos_are_changed_as_torchvision_changes_them(name):
    theirs, values, tolerance = AGAINST_TORCHVISION[name]
    photos = noise(channels=1)
    torch.testing.assert_close(performed(photos, name, values[-1]), theirs(photos, values[-1]), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("name", "dim"), [("shift_x", 3), ("shift_y", 2)])
def test_a_shift_alone_copies_whole_pixels_and_mirrors_what_comes_in(name, dim):
    photos = noise()
    for pixels in (-7, -1, 0, 1, 7):
        side = photos.shape[dim]
        mirrored = torch.cat([photos.flip(dim), photos, photos.flip(dim)], dim)
        wanted = mirrored.narrow(dim, side - pixels, side)
        assert torch.equal(performed(photos, name, (pixels + 0.3) / side), wanted), pixels


def test_a_field_of_displacements_is_read_as_torchvision_reads_it():
    photos = noise(1, smooth=True)
    by = 0.1 * (2 * torch.rand(1, 2, 6, 5, generator=seeded()) - 1)
    by = torch.nn.functional.interpolate(by, size=(HEIGHT, WIDTH), mode="bicubic")
    wanted = vision.elastic(photos, by.permute(0, 2, 3, 1), **BILINEAR)
    inside = vision.elastic(torch.ones_like(photos), by.permute(0, 2, 3, 1), **BILINEAR) > 0.9999
    torch.testing.assert_close(geometric.displaced(photos, by)[inside], wanted[inside], atol=MOVED, rtol=0)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photos_stay_photos(name, channels):
    photos = noise(4, channels)
    found = operations.apply(photos.clone(), only(name), seeded(1))
    assert (found.shape, found.dtype) == (photos.shape, torch.float32)
    assert found.isfinite().all()
    assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-6
    changed = name != "identity" and (name != "saturation" or channels == 3)
    assert torch.equal(found, photos) != changed


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("as_given", [torch.clone, in_bytes], ids=["float", "bytes"])
@pytest.mark.parametrize("preset", ["randaugment", "trivialaugment", "seed"])
def test_the_seed_gives_the_photos_whatever_the_size_of_the_parts(preset, as_given, size, monkeypatch):
    photos = noise(24)
    first = operations.apply(as_given(photos), PRESET_POLICIES[preset], seeded(3))
    monkeypatch.setattr(operations, "at_a_time", lambda photos: size)
    again = operations.apply(as_given(photos), PRESET_POLICIES[preset], seeded(3))
    torch.testing.assert_close(first, again, atol=2e-5, rtol=0)
    assert not torch.equal(first, operations.apply(as_given(photos), PRESET_POLICIES[preset], seeded(4)))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_photos_that_wait_for_different_operations_are_moved_together(count, monkeypatch):
    """Their rows come from several shares of the batch; one by one they are moved alike."""
    ends = [(Step("sharpness"), Step("rotate"), Step(name)) for name in ("contrast", "equalize", "blur")]
    policy = Policy("ends", tuple(ends))
    for seed in range(8):
        for photos in (noise(count), in_bytes(noise(count))):
            together = operations.apply(photos.clone(), policy, seeded(seed))
            with monkeypatch.context() as patch:
                patch.setattr(operations, "at_a_time", lambda photos: 1)
                alone = operations.apply(photos.clone(), policy, seeded(seed))
            # Equalizing may take a rounding to the next level; a blur's window is the widest one's.
            assert ((together - alone).abs() > 5e-3).float().mean() < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [*OPERATIONS, "trivialaugment", "randaugment", "seed"])
def test_the_device_changes_nothing(name):
    policy, photos = PRESET_POLICIES.get(name) or only(name), noise(24)
    there = operations.apply(photos.cuda(), policy, seeded()).cpu()
    # A rounding of the coordinates or of a grey level may go the other way, for a pixel here and there.
    off = (there - operations.apply(photos.clone(), policy, seeded())).abs() > 5e-3
    assert off.float().mean() < 0.01


@pytest.mark.parametrize("name", [name for name, one in OPERATIONS.items() if one.unit])
def test_each_photo_of_a_batch_draws_its_own_magnitude(name):
    photos = noise(1).repeat(8, 1, 1, 1)
    found = operations.apply(photos, only(name), seeded()).flatten(1)
    assert len(found.unique(dim=0)) > 4


@pytest.mark.parametrize("name", [name for name in operations.CHANGING if name != "posterize"])
def test_a_photo_is_treated_as_it_would_be_alone(name):
    photos, values = noise(3), torch.tensor([0.2, 0.5, 0.9]) * OPERATIONS[name].high
    together = operations.CHANGING[name]
    extra, knots = torch.rand(3, 3, generator=seeded()), draws.noise(name, 3, seeded())
    found = together(photos.clone(), geometric.Drawn(values, extra, knots))
    for row in range(3):
        here = slice(row, row + 1)
        alone = together(photos[here].clone(), geometric.Drawn(values[here], extra[here], knots[here]))
        torch.testing.assert_close(found[here], alone, atol=5e-3, rtol=0)  # a blur's window is the widest one's


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_a_step_strikes_its_share_of_the_photos(probability):
    photos = torch.zeros(600, 1, 4, 4)
    struck = operations.apply(photos, only("invert", probability), seeded())[:, 0, 0, 0].mean().item()
    assert struck == pytest.approx(probability, abs=0.06)
    assert probability == 0.25 or struck == probability


def test_every_sub_policy_is_as_likely_as_any_other():
    policy = Policy("four", ((), (Step("invert"),), (Step("invert"), Step("invert")), (Step("solarize", 1, 1.0),)))
    operation, _, _ = draws.draw(policy, 4000, seeded())
    kinds = {name: number for number, name in enumerate(draws.NAMES)}
    drawn = [tuple(row) for row in operation.tolist()]
    for wanted in [("identity",) * 2, ("invert", "identity"), ("invert",) * 2, ("solarize", "identity")]:
        assert drawn.count(tuple(kinds[name] for name in wanted)) / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_drawn_magnitude_has_31_steps_and_a_sign():
    _, values, _ = draws.draw(only("rotate"), 3000, seeded())
    found = np.unique(values.numpy().round(3))
    assert len(found) == 61  # 30 to each side, and 0
    np.testing.assert_allclose(found, np.linspace(-135, 135, 61), atol=0.01)
    assert (values > 0).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_given_magnitude_is_kept():
    _, values, _ = draws.draw(only("rotate", 1.0, 0.2), 50, seeded())
    assert set(values[:, 0].tolist()) == {-27.0, 27.0}
    _, values, _ = draws.draw(only("solarize", 1.0, 0.25), 50, seeded())
    assert set(values[:, 0].tolist()) == {0.75}


def test_steps_are_taken_in_their_order():
    photos = noise(4)
    steps = (Step("solarize", 1, 0.5), Step("posterize", 1, 1.0))
    first = operations.apply(photos.clone(), Policy("a", (steps,)), seeded())
    wanted = performed(performed(photos, "solarize", 0.5), "posterize", 2.0)
    torch.testing.assert_close(first, wanted, atol=FLOAT, rtol=0)
    assert not torch.equal(first, operations.apply(photos.clone(), Policy("b", (steps[::-1],)), seeded()))


def test_movements_that_follow_one_another_are_one_resampling(monkeypatch):
    calls, sampled = [], geometric.sampled
    monkeypatch.setattr(geometric, "sampled", lambda photos, grid: calls.append(len(photos)) or sampled(photos, grid))
    moving = (Step("rotate", 1, 0.1), Step("brightness", 1, 0.3), Step("shear_x", 1, 0.2), Step("scale", 1, 0.4))
    operations.apply(noise(4), Policy("four", (moving,)), seeded())
    assert calls == [4]


def test_composed_movements_are_what_they_are_one_by_one():
    photos = noise(2, smooth=True)
    moving = (Step("shift_x", 1, 0.5), Step("rotate", 1, 0.1), Step("shear_y", 1, 0.2))
    generator = seeded(5)
    found = operations.apply(photos.clone(), Policy("three", (moving,)), generator)
    _, values, _ = draws.draw(Policy("three", (moving,)), 2, seeded(5))
    one_by_one = photos.clone()
    for place, step in enumerate(moving):
        one_by_one = operations.perform(one_by_one, step.operation, values[:, place], seeded())
    inside = (slice(None), slice(None), slice(20, 40), slice(15, 30))
    torch.testing.assert_close(found[inside], one_by_one[inside], atol=0.06, rtol=0)  # thrice resampled is softer


@pytest.mark.parametrize("as_given", [lambda photos: photos, in_bytes], ids=["float", "bytes"])
def test_a_shift_by_more_than_a_side_mirrors_at_both_edges(as_given):
    """Ten steps of a policy may add up to it."""
    photos, half = noise(2), WIDTH // 2
    waiting = operations.Waiting(as_given(photos))
    waiting.matrices[:, 0, 2], waiting.moved[:] = -2 * 1.5, True  # one and a half widths to the right
    wanted = torch.cat([photos[..., half:], photos.flip(3)[..., :half]], dim=3)
    torch.testing.assert_close(waiting.finished(), wanted, atol=1e-4, rtol=0)


def test_the_edge_is_mirrored_never_black():
    bright = torch.ones(8, 3, HEIGHT, WIDTH)
    for name in [*geometric.MOVING, "grid_distortion", "elastic_distortion", "blur", "motion_blur"]:
        assert operations.apply(bright.clone(), only(name), seeded()).min() > 0.999, name


def test_a_motion_blur_smears_along_one_line():
    dot = torch.zeros(1, 1, 41, 41)
    dot[0, 0, 20, 20] = 1
    drawn = geometric.Drawn(torch.tensor([10 / 41]), torch.tensor([[0.25, 0, 0]]), torch.zeros(1, 0))  # 45 degrees
    found = operations.CHANGING["motion_blur"](dot, drawn)[0, 0]
    assert found.sum().item() == pytest.approx(1, abs=1e-4)
    rows, columns = (found > 0.01).nonzero().T
    assert (rows - columns).abs().max() <= 1
    assert rows.max() - rows.min() == pytest.approx(10 * math.sin(math.pi / 4), abs=2)


def test_distortions_grow_with_their_value_and_spare_nothing_at_0():
    photos = noise(4, smooth=True)
    for name in ("grid_distortion", "elastic_distortion"):
        high = OPERATIONS[name].high
        still, mild, wild = (performed(photos, name, share * high) for share in (0.0, 0.2, 1.0))
        torch.testing.assert_close(still, photos, atol=1e-4, rtol=0)
        assert 0.002 < (mild - photos).abs().mean() < (wild - photos).abs().mean()


def test_a_grid_distortion_moves_no_edge():
    ramp = torch.linspace(0, 1, WIDTH).expand(6, 1, HEIGHT, WIDTH).clone()
    found = performed(ramp, "grid_distortion", 0.8)
    assert found[..., 0].max() < 0.03
    assert found[..., -1].min() > 0.97
    assert (found.diff(dim=3) > -1e-6).all()  # nothing folds over


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 1, 1), (2, 3, 2, 5), (1, 1, 3, 2)])
@pytest.mark.parametrize("preset", ["trivialaugment", "seed", "randaugment"])
def test_tiny_photos_and_no_photos_will_do(shape, preset):
    for seed in range(8):
        assert (
            operations.apply(torch.rand(shape, generator=seeded()), PRESET_POLICIES[preset], seeded(seed)).shape
            == shape
        )


def test_a_batch_in_another_memory_layout_gives_the_same():
    photos = noise(20)
    for preset in ("trivialaugment", "seed"):
        policy = PRESET_POLICIES[preset]
        first = operations.apply(photos.clone(), policy, seeded())
        other = operations.apply(photos.clone(memory_format=torch.channels_last), policy, seeded())
        torch.testing.assert_close(first, other, atol=1e-5, rtol=0)
