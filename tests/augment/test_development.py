"""Photos of bytes: the processor's kernels do what PyTorch does, share the work, and take memory nobody holds."""

import gc
import os
import subprocess
import sys

import pytest
import torch

from mask_lib.augment import apply, development, operations
from mask_lib.augment.policy import OPERATIONS, PRESET_POLICIES, Policy, Step

# Bilinear shares of pixels are rounded otherwise, which shows most between the unlike neighbours of noise.
CLOSE = {"atol": 5e-5, "rtol": 0}
POLICIES = {
    **{name: Policy(name, ((Step(name),),)) for name in OPERATIONS},
    **{name: PRESET_POLICIES[name] for name in ("trivialaugment", "randaugment", "seed")},
    "moved, then lit": Policy("a", ((Step("shift_y"), Step("contrast"), Step("shift_x")),)),
    "lit twice": Policy("b", ((Step("brightness"), Step("autocontrast")), (Step("solarize"), Step("contrast")))),
    "moved, then coloured": Policy("c", ((Step("rotate"), Step("saturation")), (Step("shear_y"), Step("invert")))),
    "lit, moved, lit": Policy("d", ((Step("equalize"), Step("shear_x"), Step("contrast"), Step("flip")),)),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos_of(count: int = 24, channels: int = 3, height: int = 31, width: int = 44) -> torch.Tensor:
    """(count, channels, height, width) uint8 noise that does not use the whole range."""
    return torch.randint(20, 230, (count, channels, height, width), generator=seeded(), dtype=torch.uint8)


@pytest.fixture
def threads():
    """Any number of threads may be set; afterwards there are as many as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def by_pytorch(photos: torch.Tensor, policy: Policy, generator: torch.Generator) -> torch.Tensor:
    """What a GPU would make of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(development, "by_kernels", lambda photos: False)
        return operations.apply(photos, policy, generator)


@pytest.mark.parametrize("name", POLICIES)
def test_the_kernels_do_what_pytorch_does(name):
    photos = photos_of()
    before = photos.clone()
    found = operations.apply(photos, POLICIES[name], seeded(3))
    torch.testing.assert_close(found, by_pytorch(photos, POLICIES[name], seeded(3)), **CLOSE)
    assert torch.equal(photos, before)


@pytest.mark.parametrize("name", POLICIES)
def test_bytes_become_what_the_same_photos_in_float_become(name):
    photos = photos_of()
    found = operations.apply(photos, POLICIES[name], seeded(3))
    torch.testing.assert_close(found, operations.apply(photos.float() / 255, POLICIES[name], seeded(3)), **CLOSE)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("side", [(2, 2), (2, 9), (7, 3), (64, 64)])
def test_any_size_and_number_of_channels_will_do(channels, side):
    photos = photos_of(12, channels, *side)
    for name in ("trivialaugment", "randaugment"):
        for given in (photos, photos.contiguous(memory_format=torch.channels_last), photos[::2]):
            found = operations.apply(given, PRESET_POLICIES[name], seeded(5))
            wanted = by_pytorch(given.contiguous(), PRESET_POLICIES[name], seeded(5))
            torch.testing.assert_close(found, wanted, **CLOSE)


def test_a_photo_of_one_level_stays_in_range():
    for level in (0, 128, 255):
        photos = torch.full((40, 3, 8, 8), level, dtype=torch.uint8)
        found = operations.apply(photos, PRESET_POLICIES["trivialaugment"], seeded(1))
        assert found.isfinite().all()
        assert 0 <= found.min() <= found.max() <= 1


def test_levels_are_counted_photo_by_photo(monkeypatch):
    photos, rows = photos_of(6), torch.tensor([4, 1, 5]).numpy()
    wanted = torch.stack(
        [torch.stack([channel.flatten().bincount(minlength=256) for channel in one]) for one in photos]
    )
    assert torch.equal(development.level_counts(photos, rows)[rows, :, 0], wanted[rows])
    monkeypatch.setattr(development, "by_kernels", lambda photos: False)
    assert torch.equal(development.level_counts(photos, rows)[rows, :, 0], wanted[rows])


def test_the_number_of_threads_changes_nothing(threads):
    found = []
    for number in (1, 2, 3):
        threads(number)
        found.append(operations.apply(photos_of(), PRESET_POLICIES["trivialaugment"], seeded(2)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_thread_s_mistake_is_not_swallowed():
    def fail(rows):
        raise ZeroDivisionError("in a thread")

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        development.share_out(fail, torch.arange(4).numpy())


@pytest.mark.parametrize("holding", [lambda batch: batch, lambda batch: batch[3:, 1], lambda batch: batch[2].numpy()])
@pytest.mark.parametrize("preset", ["trivialaugment", "none"])
def test_a_batch_that_somebody_holds_is_never_written_over(holding, preset):
    held = holding(apply.augment(photos_of(), preset, seeded(1)))
    before = torch.as_tensor(held).clone()
    for seed in range(2, 5):
        apply.augment(photos_of(), preset, seeded(seed))
    assert torch.equal(torch.as_tensor(held), before)


def test_the_memory_of_a_batch_that_nobody_holds_is_taken_again():
    gc.collect()  # or what other tests have left comes back in between
    place = apply.augment(photos_of(), "trivialaugment", seeded()).data_ptr()
    assert apply.augment(photos_of(), "trivialaugment", seeded()).data_ptr() == place


def test_another_size_takes_no_memory_that_is_too_small():
    apply.augment(photos_of(4), "trivialaugment", seeded())
    assert apply.augment(photos_of(9), "trivialaugment", seeded()).shape == (9, 3, 31, 44)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own():
    """As a loader's workers do; the threads of the process that forked are not there."""
    wanted = apply.augment(photos_of(), "trivialaugment", seeded(4))
    child = os.fork()
    if not child:
        same = torch.equal(apply.augment(photos_of(), "trivialaugment", seeded(4)), wanted)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_nothing_may_be_written_kernels_are_compiled_without_a_cache():
    code = """
import numba, torch

def njit(cache=False, njit=numba.njit, **options):
    def decorated(function):
        if cache:
            raise RuntimeError("no locator available")  # as in a folder of somebody else's, without a home
        return njit(**options)(function)
    return decorated

numba.njit = njit
from mask_lib import operations, policies
photos = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
print(operations.apply(photos, policies.PRESETS["trivialaugment"], torch.Generator()).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[3, 1, 8, 8]" in done.stdout
