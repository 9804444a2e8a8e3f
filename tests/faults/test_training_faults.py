"""Checkpoints that disks, kills, signals and people damage, and two trainings of one run at once."""

import errno
import functools
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import safetensors
import torch
import toys
from amount import amount
from safetensors.torch import load_file, save_file
from tiny_project import write_notebook

from mask_lib.base import config, files, interrupts
from mask_lib.models import build, checkpoint, devices, predict, weights
from mask_lib.training import dataset, loop, optimizer

FOLD = Path("runs", "toy", "fold0")
LAST, PREVIOUS = FOLD / "checkpoint" / loop.LAST, FOLD / "checkpoint" / loop.PREVIOUS
ONE_FOLD = {"folds": (0,), "epochs": 3}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    assert toys.exit_code(data, output, **ONE_FOLD) == 0
    return output


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """A fold that was killed in its third epoch, with the checkpoints of the ends of the first two."""
    output = tmp_path_factory.mktemp("killed")
    assert toys.exit_code(data, output, kill_at=5, seconds=1e9, **ONE_FOLD) == -signal.SIGKILL
    assert (output / LAST).exists() and (output / PREVIOUS).exists()
    return output


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(killed, tmp_path, dirs_exist_ok=True)


def manifest_of(path: Path) -> dict:
    with safetensors.safe_open(path, framework="pt") as opened:
        return json.loads(opened.metadata()["manifest"])


def rewritten(path: Path, change) -> None:
    """Change a checkpoint's manifest as somebody would who also mends its digest."""
    manifest = manifest_of(path)
    change(manifest)
    manifest.pop("digest")
    save_file(load_file(path), path, {"manifest": checkpoint.signed(manifest)})


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path, offset: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


DAMAGE = {
    "cut short": truncated,
    "empty": lambda path: path.write_bytes(b""),
    "no checkpoint": lambda path: path.write_text("<html>login</html>"),
    "a bit of a tensor": lambda path: flipped(path, path.stat().st_size - 11),
    "a bit of the manifest": lambda path: flipped(path, path.read_bytes().index(b"learning_rate") + 2, bit=0),
    "an epoch beyond the run": lambda path: rewritten(path, lambda it: it["place"].update(epoch=99)),
    "a step beyond the epoch": lambda path: rewritten(path, lambda it: it["place"].update(step=99)),
    "an epoch that is text": lambda path: rewritten(path, lambda it: it["place"].update(epoch="two")),
    "a history too short": lambda path: rewritten(path, lambda it: it["place"].update(history=[])),
    "no place": lambda path: rewritten(path, lambda it: it.pop("place")),
    "another format": lambda path: rewritten(path, lambda it: it.update(format=7)),
    "a list for a manifest": lambda path: save_file({}, path, {"manifest": "[1]"}),
    "bare weights": lambda path: save_file(checkpoint.read_checkpoint(path)[0], path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(data, unbroken, stopped, damage):
    damage(stopped / LAST)
    with pytest.warns(UserWarning, match=r"last\.safetensors is damaged .*goes on from previous\.safetensors"):
        toys.train(data, stopped, **ONE_FOLD)
    assert toys.results(stopped) == toys.results(unbroken)


def test_with_both_damaged_refuse_says_what_to_do_and_restart_begins_anew(data, unbroken, stopped):
    for path in (LAST, PREVIOUS):
        truncated(stopped / path)
    with pytest.raises(OSError, match=r"last\.safetensors is damaged.*previous\.safetensors is damaged.*restart"):
        toys.train(data, stopped, **ONE_FOLD)
    toys.train(data, stopped, when_changed="restart", **ONE_FOLD)
    assert toys.results(stopped) == toys.results(unbroken)
    assert (stopped / "runs" / "toy" / "replaced.fold0" / "checkpoint" / loop.LAST).exists()


def test_a_kill_between_the_two_renames_loses_nothing(data, unbroken, stopped):
    (stopped / LAST).unlink()
    toys.train(data, stopped, **ONE_FOLD)
    assert toys.results(stopped) == toys.results(unbroken)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(unbroken, tmp_path):
    whole, place = (unbroken / LAST).read_bytes(), random.Random(0)
    path, expected = tmp_path / "a.safetensors", checkpoint.read_all(unbroken / LAST)
    head = 8 + int.from_bytes(whole[:8], "little")
    offsets = place.sample(range(len(whole)), amount(100, 1_000)) + place.sample(range(head), amount(60, 600))
    refused = 0
    for offset in offsets:
        path.write_bytes(whole)
        flipped(path, offset, place.randrange(8))
        try:
            found = checkpoint.read_all(path)
        except OSError as error:
            refused += 1
            assert "a.safetensors" in str(error)
        else:  # blanks that fill up the head
            assert offset < head and found.manifest == expected.manifest
            assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())
    assert refused >= len(offsets) - 2
    assert all(offset < head for offset in offsets[refused:]) or refused == len(offsets)


@pytest.mark.parametrize("number", range(amount(3, 200)))
def test_training_killed_at_a_random_moment_resumes_to_the_same_bits(data, unbroken, tmp_path, number):
    where = random.Random(number)
    kill_at, in_write = where.randrange(1, 7), where.random() < 0.5
    code = toys.exit_code(data, tmp_path, kill_at, in_write, seconds=where.choice([0, 1e9]), **ONE_FOLD)
    assert code == -signal.SIGKILL
    assert toys.exit_code(data, tmp_path, **ONE_FOLD) == 0
    assert toys.results(tmp_path) == toys.results(unbroken)
    assert not list((tmp_path / "runs").rglob(".*.tmp*"))  # those of the killed process are gone


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_leaves_the_old_checkpoint(data, unbroken, stopped, monkeypatch, code):
    before = (stopped / LAST).read_bytes()

    def refuse(tensors, path, metadata):
        Path(path).write_bytes(b"half a file")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        toys.train(data, stopped, **ONE_FOLD)
    monkeypatch.undo()
    assert (stopped / LAST).read_bytes() == before
    toys.train(data, stopped, **ONE_FOLD)
    assert toys.results(stopped) == toys.results(unbroken)


def test_a_second_training_of_the_same_run_is_refused_and_told_who_holds_it(data, tmp_path, unbroken):
    lock, context = (tmp_path / FOLD).with_name(".fold0.lock"), multiprocessing.get_context("forkserver")
    holding = context.Event()
    holder = context.Process(target=hold, args=(lock, holding))
    holder.start()
    assert holding.wait(100)
    with pytest.raises(files.BusyError, match=rf"fold 0 of toy is being trained by process {holder.pid} on "):
        toys.train(data, tmp_path, **ONE_FOLD)
    holder.kill()
    holder.join()
    toys.train(data, tmp_path, **ONE_FOLD)  # a lock ends with its process
    assert toys.results(tmp_path) == toys.results(unbroken)


def hold(lock: Path, holding) -> None:
    with files.lock(lock, wait=False):
        holding.set()
        time.sleep(600)


@pytest.mark.parametrize("number", interrupts.SIGNALS[: amount(1, 4)])
def test_a_signal_ends_headless_training_after_its_step_with_all_of_it_on_disk(data, unbroken, tmp_path, number):
    tests = Path(toys.__file__).parent
    source = (
        f"import sys, pathlib, time\nsys.path.insert(0, {str(tests)!r})\nimport toys\n"
        "from mask_lib.training import loop\n"
        "step = loop.FoldTraining.train_step\n"
        "def slow(self, *rest):\n"
        f"    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "    time.sleep(1)\n"
        "    return step(self, *rest)\n"
        "loop.FoldTraining.train_step = slow\n"
        f"toys.train(pathlib.Path({str(data)!r}), pathlib.Path({str(tmp_path)!r}), 1e9, folds=(0,), epochs=3)"
    )
    command = [sys.executable, "-m", "mask_lib.headless", str(write_notebook(tmp_path / "a.ipynb", source))]
    process = subprocess.Popen(
        [*command, str(tmp_path / "out.ipynb")], cwd=files.PROJECT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.05)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family * 2 if number == signal.SIGTERM else family[:1]:  # as SLURM does at a time limit
        member.send_signal(number)
    _, said = process.communicate(timeout=100)
    # Beside its device and progress, and what the kernel may say of its interrupt.
    lines = [line for line in said.splitlines() if line and not re.search(r"^Device: |step/s|\[IPKernelApp\]", line)]
    assert process.returncode == 128 + number
    assert len(lines) == 2 and "Traceback" not in said
    assert signal.Signals(number).name in lines[0] and "all of it on disk: run it again" in lines[0]
    assert "out.failed.ipynb" in lines[1]
    assert checkpoint.read_manifest(tmp_path / LAST)["place"]["step"] == 1
    assert toys.exit_code(data, tmp_path, **ONE_FOLD) == 0
    assert toys.results(tmp_path) == toys.results(unbroken)


def test_an_error_in_training_lets_go_of_photos_network_and_optimizer(data, tmp_path, monkeypatch):
    held = []

    def fail(self, *rest):
        held.extend(map(weakref.ref, (self, self.network, self.optimizer, self.data.photos)))
        raise RuntimeError("stop")

    monkeypatch.setattr(loop.FoldTraining, "train_step", fail)
    kept = None
    try:
        toys.train(data, tmp_path, **ONE_FOLD)
    except RuntimeError as error:
        kept = error  # as a notebook does, for %debug
    assert kept.__traceback__ is not None and len(held) == 4
    assert [one() for one in held] == [None] * 4


def test_many_epochs_leave_no_memory_threads_or_files_behind(data, tmp_path, monkeypatch):
    process, seen, finish = psutil.Process(), [], loop.FoldTraining.finish_epoch

    def noted(self, folder):
        finish(self, folder)
        seen.append((process.memory_info().rss, process.num_threads(), process.num_fds()))

    monkeypatch.setattr(loop.FoldTraining, "finish_epoch", noted)
    toys.train(data, tmp_path, folds=(0,), epochs=amount(24, 200), keep_epochs=2, ema_decay=0.9, mixing="mixup")
    memory, threads, opened = np.array(seen).T
    quarter = len(seen) // 4
    assert memory[-quarter:].max() <= 1.05 * memory[quarter : 2 * quarter].max()
    assert threads[-1] <= threads[quarter] and opened[-1] <= opened[quarter]


def test_the_first_interrupt_waits_and_the_second_does_not(request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test worker may ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt), interrupts.deferred() as is_asked:
        assert not is_asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_kernel_that_ends_by_a_signal_is_not_interrupted_again_by_the_one_its_runner_passes_on(request, monkeypatch):
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        request.addfinalizer(functools.partial(signal.signal, number, signal.signal(number, handler)))
    monkeypatch.setenv("MASK_LIB_HEADLESS", "1")
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)  # would raise here


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_first_weights_that_are_no_numbers_are_refused_by_name(tmp_path, broken):
    state = weights.initial_state("test_resnet", "none", seed=0)
    state["conv1.0.weight"][0, 0, 0, 0] = broken
    checkpoint.write_checkpoint(tmp_path / "w.safetensors", state, {})
    with pytest.raises(ValueError, match=r"w\.safetensors holds numbers that are not finite, in conv1\.0\.weight"):
        weights.initial_state("test_resnet", str(tmp_path / "w.safetensors"), seed=0)


@pytest.mark.parametrize("name", ["weights.pth", "model.pt", "model.bin", "folder/x.ckpt"])
def test_weights_of_another_format_are_refused_at_once_with_how_to_convert_them(name):
    with pytest.raises(ValueError, match=rf"weights = '{name}'.*\.safetensors file.*save_file\(torch\.load"):
        config.Run(weights=name)


def test_no_batch_holds_a_single_photo_where_that_can_be():
    for count, size in itertools.product(range(2, 40), range(1, 9)):
        run, train_labels = config.Run(batch_size=size), np.zeros(count, np.int64)
        sizes = [len(one) for one in dataset.batches(run, 0, 0, train_labels, train_labels == 0)]
        assert sum(sizes) == count and len(sizes) == dataset.step_count(count, size)
        assert size == 1 or min(sizes) > 1
        assert max(sizes) <= max(size, 3)


def test_a_batch_of_one_is_refused_before_training_where_a_network_normalises_over_it():
    run = config.Run(architecture="test_resnet", weights="none", image_width=16, image_height=16, batch_size=1)
    with pytest.raises(ValueError, match=r"batch_size = 1: .* needs 2 photos"):
        weights.require_fits(run)
    weights.require_fits(run.replace(batch_size=2))


@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
def test_weight_decay_does_not_reach_what_a_network_says_never_to_decay(layer_decay):
    network = build.build_network("vit_tiny_patch16_224", size=(32, 32))
    never = {id(one) for name, one in network.named_parameters() if name in network.no_weight_decay()}
    assert never
    run = config.Run(weight_decay=0.05, layer_decay=layer_decay)
    for group in optimizer.parameter_groups(network, run):
        assert not group["weight_decay"] or not never & {id(one) for one in group["params"]}


def test_prediction_takes_batches_that_fit_what_trained_and_halves_them_where_memory_is_short(capsys):
    sizes = [predict.batch_size_of(config.Run(batch_size=size)) for size in (1, 8, 32, 256)]
    assert sizes == [2, 16, 64, 64]

    def answer(rows):
        if len(rows) > 5:
            raise torch.OutOfMemoryError
        return rows

    found = list(devices.in_batches(np.arange(50), 16, answer))
    np.testing.assert_array_equal(np.concatenate(found), np.arange(50))
    assert max(map(len, found)) == 4 and "from here on 4" in capsys.readouterr().out
    with pytest.raises(torch.OutOfMemoryError):
        list(devices.in_batches(np.arange(3), 2, lambda rows: answer(np.arange(9))))


def test_two_folds_of_a_run_can_be_trained_at_once(data, tmp_path):
    context = multiprocessing.get_context("forkserver")
    asked = [(data, tmp_path, None, False, 1e9, {"folds": (fold,)}) for fold in (0, 1)]
    each = [context.Process(target=toys.train_and_die, args=one) for one in asked]
    for process in each:
        process.start()
    for process in each:
        process.join(300)
    assert [process.exitcode for process in each] == [0, 0]
    assert all((tmp_path / "runs" / "toy" / f"fold{fold}" / "oof.csv").exists() for fold in (0, 1))
