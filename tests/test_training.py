"""The loop learns, resumes to the same bits from a kill at any step, and refuses what would mix runs."""

import math
import signal

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from safetensors.torch import load_file

from mask_lib import augment, config, files, models, runs, scores, training

STEPS = 2 * 2 * 2  # epochs x folds x steps an epoch


def results(output):
    """Weights, optimizer, history and out-of-fold tables of all folds, without what only tells the time."""
    found = {}
    for fold in sorted((output / "runs" / "toy").glob("fold*")):
        for name in ("last", "best"):
            tensors = load_file(fold / "checkpoint" / f"{name}.safetensors")
            found |= {f"{fold.name}/{name}/{key}": value.numpy().tobytes() for key, value in tensors.items()}
        history = pd.read_csv(fold / "history.csv").drop(columns=list(training.HISTORY_TIMES))
        found[f"{fold.name}/history"] = history.to_csv(index=False)
        found[f"{fold.name}/oof"] = (fold / "oof.csv").read_bytes()
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.write_photos(folder, toys.table())
    return folder


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    assert toys.exit_code(data, output) == 0
    return results(output)


def test_the_kill_test_covers_every_step(unbroken):
    run = config.Run(**toys.SETTINGS)
    assert sum(runs.step_count(run, split) for split in toys.splits(toys.table()).values()) == STEPS
    assert any(name.startswith("fold1/last/optimizer/") for name in unbroken)


@pytest.mark.parametrize("kill_at", range(1, STEPS + 1))
@pytest.mark.parametrize("seconds", [0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_a_kill_after_any_step_changes_no_bit(data, unbroken, tmp_path, kill_at, seconds):
    assert toys.exit_code(data, tmp_path, kill_at, seconds=seconds) == -signal.SIGKILL
    assert toys.exit_code(data, tmp_path, seconds=seconds) == 0
    assert results(tmp_path) == unbroken


@pytest.mark.parametrize("kill_at", [1, 2, 3, STEPS])
def test_a_kill_while_a_checkpoint_is_written_changes_no_bit(data, unbroken, tmp_path, kill_at):
    assert toys.exit_code(data, tmp_path, kill_at, in_write=True) == -signal.SIGKILL
    assert toys.exit_code(data, tmp_path) == 0
    assert results(tmp_path) == unbroken


@pytest.mark.parametrize("file", ["history.csv", "oof.csv"])
def test_a_kill_before_a_table_is_written_leaves_a_run_that_can_go_on(data, tmp_path, monkeypatch, file):
    write_csv = files.write_csv
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_csv", lambda table, path: 1 / 0 if path.name == file else write_csv(table, path))
        with pytest.raises(ZeroDivisionError):
            toys.train(data, tmp_path, folds=(0,), epochs=1)
    result = toys.train(data, tmp_path, folds=(0,), epochs=1)
    assert len(result.history) == 1
    assert len(result.out_of_fold) > 0


def test_training_again_reads_what_is_there_and_trains_nothing(data, tmp_path, monkeypatch):
    first = toys.train(data, tmp_path)
    monkeypatch.setattr(training.FoldTraining, "train_step", None)  # calling it would raise
    again = toys.train(data, tmp_path)
    pd.testing.assert_frame_equal(first.out_of_fold, again.out_of_fold, check_exact=True)
    pd.testing.assert_frame_equal(first.history, again.history)


def test_more_folds_can_be_added_to_a_run(data, tmp_path):
    toys.train(data, tmp_path, folds=(0,))
    before = (tmp_path / "runs" / "toy" / "fold0" / "oof.csv").read_bytes()
    result = toys.train(data, tmp_path, folds=(0, 1))
    assert set(result.history["fold"]) == {0, 1}
    assert (tmp_path / "runs" / "toy" / "fold0" / "oof.csv").read_bytes() == before


def test_changed_settings_refuse_to_resume_and_are_named(data, tmp_path):
    toys.train(data, tmp_path, folds=(0,))
    with pytest.raises(training.ChangedSettingsError, match=r"learning_rate: 0\.05 → 0\.01.*when_changed: restart"):
        toys.train(data, tmp_path, folds=(0,), learning_rate=0.01)


def test_changed_photos_refuse_to_resume(data, tmp_path):
    toys.prepare(tmp_path / "data", tmp_path)
    toys.train(tmp_path / "data", tmp_path, folds=(0,))
    photo = tmp_path / "data" / "train" / "images" / "000" / "mask1.png"
    toys.Image.fromarray(np.zeros(toys.FRAME.shape, np.uint8)).save(photo)
    with pytest.raises(training.ChangedSettingsError, match="the photos, their labels or the split"):
        toys.train(tmp_path / "data", tmp_path, folds=(0,))


def test_restart_puts_the_old_fold_aside_and_trains_anew(data, tmp_path):
    toys.train(data, tmp_path, folds=(0,))
    old = (tmp_path / "runs" / "toy" / "fold0" / "oof.csv").read_bytes()
    toys.train(data, tmp_path, when_changed="restart", folds=(0,), learning_rate=0.01)
    assert (tmp_path / "runs" / "toy" / "replaced.fold0" / "oof.csv").read_bytes() == old
    assert (tmp_path / "runs" / "toy" / "fold0" / "oof.csv").read_bytes() != old


def test_a_toy_is_learned(tmp_path):
    toys.write_photos(tmp_path, toys.table(people=48))
    result = toys.train(tmp_path, tmp_path, people=48, epochs=15, augmentation="none", dropout=0.0)
    truth, predicted = result.truth_and_prediction()
    assert (truth == predicted).mean() > 0.9
    first, last = (result.history[result.history["epoch"] == epoch]["train_loss"].mean() for epoch in (1, 15))
    assert last < 0.6 * first


def test_out_of_fold_rows_are_the_validation_photos_each_once(data, tmp_path):
    table = toys.train(data, tmp_path).out_of_fold
    expected = [path for split in toys.splits(toys.table()).values() for path in split["path"][split["split"] == "val"]]
    assert sorted(table["path"]) == sorted(expected)


def test_the_best_checkpoint_is_that_of_the_highest_macro_f1(data, tmp_path):
    toys.train(data, tmp_path, folds=(0,), epochs=6, learning_rate=0.2)
    manifest = models.read_manifest(tmp_path / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors")
    history = pd.read_csv(tmp_path / "runs" / "toy" / "fold0" / "history.csv")
    assert manifest["place"]["epoch"] == history["epoch"][history["val_macro_f1"].idxmax()]


def test_validation_sees_photos_as_they_are(data, tmp_path, monkeypatch):
    """The contest's own baseline augments its validation photos; ours must give the same answer twice."""
    calls = []
    plain = augment.augment
    monkeypatch.setattr(augment, "augment", lambda photos, *rest: calls.append(len(photos)) or plain(photos, *rest))
    toys.train(data, tmp_path, folds=(0,), epochs=1)
    split = toys.splits(toys.table())[0]
    assert sum(calls) == (split["split"] == "train").sum()


def test_an_epoch_meets_every_photo_once_in_batches_of_nearly_one_size():
    batches = training.batches(103, 16, seed=0, fold=1, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(103))
    assert {len(batch) for batch in batches} == {14, 15}


def test_order_and_seeds_differ_between_epochs_folds_and_steps():
    orders = {tuple(np.concatenate(training.batches(50, 8, *place))) for place in [(0, 0, 0), (0, 0, 1), (0, 1, 0)]}
    assert len(orders) == 3
    seeds = {
        training.step_seed(*place) for place in [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0)]
    }
    assert len(seeds) == 5


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "step"])
def test_schedules_start_warm_peak_at_one_and_stay_positive(schedule):
    run = config.Run(epochs=10, schedule=schedule, warmup_epochs=1.0)
    factors = [training.learning_rate_factor(run, progress) for progress in np.linspace(0, 9.99, 400)]
    assert factors[0] < 0.01
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert min(factors) > 0
    if schedule != "constant":
        assert factors[-1] < 0.02


def test_a_loss_that_is_no_number_stops_training_with_advice(data, tmp_path):
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        toys.train(data, tmp_path, folds=(0,), learning_rate=1e30, schedule="constant", warmup_epochs=0.0)


def test_adamw_resumes_as_well(data, tmp_path):
    whole = toys.train(data, tmp_path / "whole", folds=(0,), optimizer="adamw", learning_rate=0.01)
    stopping = pytest.MonkeyPatch()
    steps = iter(range(3))
    train_step = training.FoldTraining.train_step
    stopping.setattr(training.FoldTraining, "train_step", lambda self, *rest: (next(steps), train_step(self, *rest))[1])
    with pytest.raises(StopIteration):
        toys.train(data, tmp_path / "broken", 0, folds=(0,), optimizer="adamw", learning_rate=0.01)
    stopping.undo()
    resumed = toys.train(data, tmp_path / "broken", 0, folds=(0,), optimizer="adamw", learning_rate=0.01)
    pd.testing.assert_frame_equal(whole.out_of_fold, resumed.out_of_fold, check_exact=True)


def test_a_finished_fold_needs_no_first_weights(data, tmp_path, monkeypatch):
    first = toys.train(data, tmp_path, folds=(0,))
    monkeypatch.setattr(models, "initial_state", None)  # the hub may be out of reach by now
    pd.testing.assert_frame_equal(toys.train(data, tmp_path, folds=(0,)).out_of_fold, first.out_of_fold)


def test_half_precision_trains_too(data, tmp_path):
    result = toys.train(data, tmp_path, folds=(0,), precision="bfloat16")
    assert result.history["train_loss"].map(math.isfinite).all()
    state, _ = models.read_checkpoint(tmp_path / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors")
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


AVERAGES = {"folds": (0,), "epochs": 3, "keep_epochs": 2, "ema_decay": 0.8}


def weights_in(output):
    """Every checkpoint of fold 0, byte for byte but for the manifest, which tells the time."""
    found = {}
    for path in sorted((output / "runs" / "toy" / "fold0" / "checkpoint").iterdir()):
        found |= {f"{path.stem}/{name}": value.numpy().tobytes() for name, value in load_file(path).items()}
    return found


def stop_after(monkeypatch, steps):
    """Let training break with StopIteration once so many steps are done."""
    left, train_step = iter(range(steps)), training.FoldTraining.train_step
    monkeypatch.setattr(
        training.FoldTraining, "train_step", lambda self, *rest: (next(left), train_step(self, *rest))[1]
    )


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("averaged")
    return output, toys.train(data, output, **AVERAGES)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("seconds", [0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_moving_averages_and_kept_epochs_resume_to_the_same_bits(data, averaged, tmp_path, monkeypatch, steps, seconds):
    output, whole = averaged
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        stop_after(patch, steps)
        toys.train(data, tmp_path, seconds, **AVERAGES)
    resumed = toys.train(data, tmp_path, seconds, **AVERAGES)
    assert weights_in(tmp_path) == weights_in(output)
    times = list(training.HISTORY_TIMES)
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns=times), whole.history.drop(columns=times), check_exact=True
    )


def test_only_the_last_epochs_stay_on_disk_each_as_training_left_it(averaged):
    folder = averaged[0] / "runs" / "toy" / "fold0" / "checkpoint"
    assert sorted(path.stem for path in folder.iterdir()) == ["best", "ema", "epoch002", "epoch003", "last"]
    last, kept = (models.read_checkpoint(folder / f"{name}.safetensors")[0] for name in ("last", "epoch003"))
    assert all(torch.equal(kept[name], value) for name, value in last.items())
    assert [models.read_manifest(folder / f"epoch00{epoch}.safetensors")["place"]["epoch"] for epoch in (2, 3)] == [
        2,
        3,
    ]
    assert not any(name.startswith("optimizer/") for name in load_file(folder / "epoch003.safetensors"))


def test_averages_on_the_side_change_nothing_of_training(data, averaged, tmp_path):
    plain = toys.train(data, tmp_path, folds=(0,), epochs=3)
    beside = weights_in(averaged[0])
    assert all(beside[name] == value for name, value in weights_in(tmp_path).items())
    pd.testing.assert_frame_equal(plain.out_of_fold, averaged[1].out_of_fold, check_exact=True)


def test_the_moving_average_can_be_chosen_and_is_that_of_its_best_epoch(data, averaged, tmp_path):
    chosen = toys.train(data, tmp_path, **AVERAGES, checkpoint_choice="ema")
    path = tmp_path / "runs" / "toy" / "fold0" / "checkpoint" / "ema.safetensors"
    history = chosen.history
    best = history["val_ema_macro_f1"].idxmax()
    assert models.read_manifest(path)["place"]["epoch"] == history["epoch"][best]
    predicted = scores.summarise(*scores.from_probabilities(chosen.out_of_fold))
    assert predicted["macro_f1"] == pytest.approx(history["val_ema_macro_f1"][best])
    assert not chosen.out_of_fold.equals(averaged[1].out_of_fold)


def test_training_anew_forgets_which_average_was_picked(data, tmp_path):
    toys.train(data, tmp_path, folds=(0, 1), epochs=1)
    folder = tmp_path / "runs" / "toy"
    files.write_json({"folds": {"0": {"picked": "swa"}, "1": {"picked": "swa"}}}, folder / "averaging.json")
    (folder / "fold0" / "oof.csv").unlink()
    (folder / "fold0" / "oof.trained.csv").write_text("of weights that are gone")
    toys.train(data, tmp_path, folds=(0, 1), epochs=1)
    assert files.read_json(folder / "averaging.json") == {"folds": {"1": {"picked": "swa"}}}
    assert not (folder / "fold0" / "oof.trained.csv").exists()
