"""Photos reach the device as the store holds them, in a precision the device has."""

import os
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from mask_lib.data import store
from mask_lib.models import devices

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def photos() -> store.Store:
    """Six photos, 5 high and 4 wide."""
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    return store.Store(images, {f"{row}.png": row for row in range(6)}, "content", store.Frame(4, 5))


@pytest.mark.parametrize("rows", [[0], [5, 0, 5], np.array([2, 1]), range(6), []], ids=str)
def test_a_batch_holds_the_rows_asked_for(photos, rows):
    batch = devices.DevicePhotos(photos, CPU).batch(rows)
    assert batch.dtype == torch.uint8
    assert batch.shape == (len(rows), 3, 5, 4)
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), photos.images[list(rows)])
    assert batch.is_contiguous(memory_format=torch.channels_last) or not len(rows)


def test_a_batch_is_a_copy_and_a_row_beyond_the_store_an_error(photos):
    source = devices.DevicePhotos(photos, CPU)
    before = source.batch([1]).clone()
    source.batch([1]).zero_()
    assert torch.equal(source.batch([1]), before)
    with pytest.raises(IndexError):
        source.batch([6])


@pytest.mark.parametrize(
    ("free_bytes", "kept_bytes", "fits"), [(721, 0, True), (720, 0, False), (0, 0, False), (100, 621, True)]
)
def test_photos_move_to_a_gpu_if_they_fill_less_than_half_of_its_free_memory(
    photos, monkeypatch, free_bytes, kept_bytes, fits
):
    """What torch keeps without using it is free as well."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5000 + kept_bytes)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5000)
    on_gpu = types.SimpleNamespace(device=GPU, store=photos)
    assert photos.images.nbytes == 360
    assert devices.DevicePhotos._fits(on_gpu) is fits
    assert devices.DevicePhotos(photos, CPU).resident is None


def gpu_of(monkeypatch, capability, built):
    """torch sees a GPU of a capability and has code for what is `built`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla V100-SXM2-32GB")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built.split())


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((7, 5), "sm_75 sm_80"),
        ((8, 6), "sm_75 sm_80"),
        ((12, 1), "sm_120"),
        ((9, 0), "sm_90a"),
        ((12, 0), "compute_90"),
    ],
)
def test_a_gpu_that_the_build_has_code_for_is_taken(monkeypatch, capability, built):
    gpu_of(monkeypatch, capability, built)
    assert devices.pick_device() == GPU


@pytest.mark.parametrize(
    ("capability", "built"),
    [((7, 0), "sm_75 sm_80 compute_80"), ((8, 0), "sm_75 sm_86"), ((10, 0), "sm_50 sm_90"), ((9, 0), "sm_120")],
)
def test_a_gpu_without_code_for_it_is_an_error_with_the_way_out(monkeypatch, capability, built):
    gpu_of(monkeypatch, capability, built)
    words = (
        rf"V100-SXM2-32GB has compute capability {capability[0]}\.{capability[1]}; torch .* code for {built.split()[0]}"
    )
    with pytest.raises(OSError, match=rf"{words}.*make setup TORCH=cuda12.*CUDA_VISIBLE_DEVICES= "):
        devices.pick_device()


def test_a_gpu_that_torch_cannot_see_is_an_error_unless_it_is_hidden_on_purpose(nvidia_smi, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")

    def refused(words, visible=None):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(OSError, match=words + ".*`make setup TORCH=cuda12`"):
            devices.pick_device()

    nvidia_smi("GPU 0: Tesla V100 (UUID: GPU-aa)\n")
    refused(r"Tesla V100 .* 535\.104\.05, .*torch \S+ for CUDA 13\.2")
    refused(r"CUDA_VISIBLE_DEVICES is 7\): GPU 0: Tesla V100", "7")
    for visible in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert devices.pick_device() == CPU
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    nvidia_smi("Failed to initialize NVML: Driver/library version mismatch\n", status=18)
    refused("CUDA_VISIBLE_DEVICES is not set.*version mismatch")
    nvidia_smi("No devices were found\n", status=6)
    assert devices.pick_device() == CPU


def test_the_summary_tells_device_memory_precision_and_where_the_photos_lie(photos, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    on_cpu = devices.summary(devices.DevicePhotos(photos, CPU), "auto")
    assert on_cpu == "Device: CPU, 1 thread; precision float32; photos read from disk"
    properties = types.SimpleNamespace(total_memory=32 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla V100")
    source = types.SimpleNamespace(
        device=GPU, resident=torch.empty((2000, 2**10, 2**10, 3), dtype=torch.uint8, device="meta")
    )
    words = "Device: Tesla V100, 32.0 GiB; precision float16; 2,000 photos resident, 5.9 GiB"
    assert devices.summary(source, "float16") == words


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_precision_asked_for_is_kept_and_auto_takes_what_the_device_is_good_at(monkeypatch, has_bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert (devices.dtype_for("auto", GPU), devices.dtype_for("auto", CPU)) == (dtype, torch.float32)
    for precision, asked in devices.DTYPES.items():
        assert devices.dtype_for(precision, CPU) == devices.dtype_for(precision, GPU) == asked


def test_peak_memory_is_in_bytes_and_at_least_what_is_used_now_and_counted_anew_on_a_gpu_alone(monkeypatch):
    held = np.ones(2**22)  # 32 MiB
    used = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert used > held.nbytes
    assert 0.95 * used <= devices.peak_memory_bytes(CPU) < 100 * used  # the kernel counts pages a little late
    counted = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", counted.append)
    devices.reset_peak_memory(CPU)
    devices.reset_peak_memory(GPU)
    assert counted == [GPU]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("share", [0.5, 0.0], ids=["resident", "from disk"])
def test_a_gpu_gets_the_same_batches(photos, monkeypatch, share):
    monkeypatch.setattr(devices, "SHARE_FOR_PHOTOS", share)
    source = devices.DevicePhotos(photos, GPU)
    assert (source.resident is not None) == bool(share)
    batch = source.batch([3, 0, 3])
    assert batch.device.type == "cuda"
    assert torch.equal(batch.cpu(), devices.DevicePhotos(photos, CPU).batch([3, 0, 3]))


def test_for_a_gpu_what_a_step_needs_is_made_by_one_thread_one_step_ahead():
    made, threads = [], set()

    def make(number: int) -> int:
        threads.add(threading.current_thread())
        made.append(number)
        return 10 * number if number < 4 else 1 // 0

    ready = devices.one_ahead(make, range(9), torch.device("cuda"))
    assert next(ready) == 0
    assert [next(ready) for _ in range(3)] == [10, 20, 30] and max(made) <= 4  # no more than one ahead
    with pytest.raises(ZeroDivisionError):
        next(ready)
    assert len(threads) == 1 and threads.isdisjoint({threading.current_thread()})
    assert not any(thread.is_alive() for thread in threads)
    assert list(devices.one_ahead(make, range(3), CPU)) == [0, 10, 20]
    assert threading.current_thread() in threads


def test_tensors_of_several_types_travel_as_one():
    tensors = [torch.arange(5), torch.rand(3, 2), torch.tensor([True, False, True]), torch.empty(0, 4)]
    packed = devices.Packed.of(tensors, CPU)
    assert packed.data.dtype == torch.uint8 and packed.data.ndim == 1
    for sent, received in zip(tensors, packed.on(CPU), strict=True):
        assert sent.dtype == received.dtype and torch.equal(sent, received)
