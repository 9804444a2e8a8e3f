"""A step makes the host wait for nothing: all it needs goes to the GPU in one pinned copy, and nothing comes back."""

import fake_cuda
import numpy as np
import pytest
import torch
import toys

from mask_lib.base import config
from mask_lib.data import store
from mask_lib.models import build, devices
from mask_lib.training import loop

ORDINAL = {"head": "three", "attribute_loss": 0.0, "age_target": "ordinal"}
STEPS = {
    **{preset: {"augmentation": preset} for preset in config.AUGMENTATIONS},
    **{mixing: {"mixing": mixing} for mixing in ("mixup", "cutmix", "cutmix_half", "cutmix_old")},
    "f1": {"loss": "f1_cross_entropy", "class_balance": "sqrt", "per_image_norm": True},
    "focal": {"loss": "focal", "attribute_label_smoothing": (0.0, 0.1, 0.2), "head": "attention"},
    "ordinal": ORDINAL,
    "ordinal, mixed": {**ORDINAL, "mixing": "mixup"},
    "accumulated": {
        "accumulate_steps": 2,
        "batch_size": 3,
        "clip_grad_norm": 1.0,
        "optimizer": "adamw",
        "ema_decay": 0.9,
    },
}


def training(device: torch.device, resident: bool = True, **changes) -> loop.FoldTraining:
    """Fold 0 of the toy, at its start."""
    run = config.Run(**{**toys.SETTINGS, "dropout": 0.0, "precision": "float32", **changes})
    table = toys.table()
    split = toys.splits(table)[0].assign(age=40.0)
    images = np.stack([toys.paint(label, np.random.default_rng(row)) for row, label in enumerate(table["label"])])
    photos = store.Store(images, {path: row for row, path in enumerate(table["path"])}, "toy", toys.FRAME)
    found = loop.FoldTraining(run, 0, split, devices.DevicePhotos(photos, device, resident))
    torch.manual_seed(0)
    network = build.of_run(run).train()
    found.start(*[network if device.type == "cpu" else fake_cuda.put(network)] * 2)
    return found


def step(fold: loop.FoldTraining, number: int) -> torch.Tensor:
    """One step of epoch 0."""
    batch = fold.data.batches(0)[number]
    return fold.train_step(fold.data.drawn(batch, fold.seed_of(0, number)), 0, number, 2)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "read from disk"])
@pytest.mark.parametrize("changes", STEPS.values(), ids=STEPS)
def test_no_step_waits_for_the_gpu_and_its_numbers_come_in_one_copy(changes, resident):
    with fake_cuda.machine() as waits:
        fold = training(fake_cuda.GPU, resident, **changes)
        assert (fold.data.photos.resident is not None) == resident
        step(fold, 0)  # constants go there once
        waits.clear()
        waits.copies = 0
        loss = step(fold, 1)
        assert not waits, waits
        assert waits.copies == fold.run.accumulate_steps
        assert loss.item() == pytest.approx(reference(**changes), rel=1e-4)


def reference(**changes) -> float:
    """The loss of the same step on the CPU."""
    fold = training(torch.device("cpu"), **changes)
    step(fold, 0)
    return step(fold, 1).item()


def test_the_counter_counts_what_makes_a_host_wait():
    with fake_cuda.machine() as waits:
        there = torch.zeros(3, device=fake_cuda.GPU)
        ready = torch.arange(3).pin_memory()
        assert not waits and (there + ready.to(fake_cuda.GPU, non_blocking=True)).device == fake_cuda.GPU
        assert not waits and waits.copies == 1
        torch.arange(4).to(fake_cuda.GPU, non_blocking=True)
        ready.to(fake_cuda.GPU)
        torch.tensor([1.0], device=fake_cuda.GPU)
        float(there.sum())
        there[there > 0]
        there.cpu()
        assert sum(waits.values()) == 6
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
