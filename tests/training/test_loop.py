"""The loop learns, resumes to the same bits from a kill at any step, and refuses what would mix runs."""

import contextlib
import itertools
import json
import math
import signal

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from safetensors.torch import load_file

from mask_lib.augment import apply, policy
from mask_lib.base import config, files, labels, scores
from mask_lib.data import splits, store
from mask_lib.ensemble import inference
from mask_lib.models import checkpoint, devices, networks, predict, weights
from mask_lib.training import dataset, loop

STEPS = 2 * 2 * 2  # epochs x folds x steps an epoch


def results(output):
    """Weights, optimizer, history and out-of-fold tables of all folds, without what only tells the time."""
    found = {}
    for fold in sorted((output / "runs" / "toy").glob("fold*")):
        for name in ("last", "best"):
            tensors = load_file(fold / "checkpoint" / f"{name}.safetensors")
            found |= {f"{fold.name}/{name}/{key}": value.numpy().tobytes() for key, value in tensors.items()}
        history = pd.read_csv(fold / "history.csv").drop(columns=list(loop.HISTORY_TIMES))
        found[f"{fold.name}/history"] = history.to_csv(index=False)
        found[f"{fold.name}/oof"] = (fold / "oof.csv").read_bytes()
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toys.write_photos(folder, toys.table())
    return folder


@contextlib.contextmanager
def stopped_after(steps: int):
    """Within it training breaks with StopIteration, which is expected, once so many steps are done."""
    left, train_step = iter(range(steps)), loop.FoldTraining.train_step
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(loop.FoldTraining, "train_step", lambda self, *rest: (next(left), train_step(self, *rest))[1])
        yield


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    assert toys.exit_code(data, output) == 0
    return results(output)


def test_the_kill_test_covers_every_step(unbroken):
    run = config.Run(**toys.SETTINGS)
    counts = [(split["split"] == "train").sum() for split in toys.splits(toys.table()).values()]
    assert sum(run.epochs * dataset.step_count(count, run.batch_size) for count in counts) == STEPS
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
    monkeypatch.setattr(loop.FoldTraining, "train_step", None)  # calling it would raise
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
    with pytest.raises(config.ChangedSettingsError, match=r"learning_rate: 0\.05 → 0\.01.*when_changed: restart"):
        toys.train(data, tmp_path, folds=(0,), learning_rate=0.01)


def test_changed_photos_refuse_to_resume(data, tmp_path):
    toys.prepare(tmp_path / "data", tmp_path)
    toys.train(tmp_path / "data", tmp_path, folds=(0,))
    photo = tmp_path / "data" / "train" / "images" / "000" / "mask1.png"
    toys.Image.fromarray(np.zeros(toys.FRAME.shape, np.uint8)).save(photo)
    with pytest.raises(config.ChangedSettingsError, match="the photos, their labels or the split"):
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
    manifest = checkpoint.read_manifest(tmp_path / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors")
    history = pd.read_csv(tmp_path / "runs" / "toy" / "fold0" / "history.csv")
    assert manifest["place"]["epoch"] == history["epoch"][history["val_macro_f1"].idxmax()]


def test_validation_sees_photos_as_they_are(data, tmp_path, monkeypatch):
    """The contest's own baseline augments its validation photos; ours must give the same answer twice."""
    calls = []
    plain = apply.augment
    monkeypatch.setattr(apply, "augment", lambda photos, *rest: calls.append(len(photos)) or plain(photos, *rest))
    toys.train(data, tmp_path, folds=(0,), epochs=1)
    split = toys.splits(toys.table())[0]
    assert sum(calls) == (split["split"] == "train").sum()


def test_a_loss_that_is_no_number_stops_training_with_advice(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "loss_of", lambda logits, *rest: logits.sum() * math.nan)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        toys.train(data, tmp_path, folds=(0,))


FEATURES = {
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01},
    "focal and mixup": {"loss": "focal", "mixing": "mixup", "label_smoothing": 0.0},
    "f1 and cutmix": {"loss": "f1", "mixing": "cutmix", "mixing_alpha": 0.5},
    "smoothed age and halves": {"attribute_label_smoothing": (0.0, 0.0, 0.2), "mixing": "cutmix_half"},
    "weighted, with the old": {"sampling": "weighted", "mixing": "cutmix_old", "loss": "f1_cross_entropy"},
    "layers and ice": {"layer_decay": 0.5, "frozen_epochs": 1, "optimizer": "adamw", "learning_rate": 0.01},
    "plateau": {"schedule": "plateau", "plateau_epochs": 1, "epochs": 4, "learning_rate": 0.2},
    "early stop": {"early_stop_epochs": 1, "epochs": 6, "learning_rate": 0.2},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_resumes_to_the_same_bits(data, tmp_path, feature):
    changes = FEATURES[feature]
    whole = toys.train(data, tmp_path / "whole", folds=(0,), **changes)
    toys.train(data, tmp_path / "plain", folds=(0,), epochs=len(whole.history))
    assert results(tmp_path / "whole") != results(tmp_path / "plain")  # it does something at all
    for stop_at in (1, 2 * len(whole.history) - 1):  # an epoch has two steps
        with stopped_after(stop_at):
            toys.train(data, tmp_path / str(stop_at), 0, folds=(0,), **changes)
        toys.train(data, tmp_path / str(stop_at), 0, folds=(0,), **changes)
        assert results(tmp_path / str(stop_at)) == results(tmp_path / "whole")


ALL_AT_ONCE = {
    "folds": (0,),
    "epochs": 4,
    "schedule": "plateau",
    "plateau_epochs": 1,
    "early_stop_epochs": 2,
    "frozen_epochs": 1,
    "layer_decay": 0.7,
    "sampling": "weighted",
    "loss": "f1_cross_entropy",
    "attribute_label_smoothing": (0.0, 0.1, 0.2),
    "mixing": "cutmix_old",
}


def test_a_kill_changes_no_bit_with_all_features_at_once(data, tmp_path):
    assert toys.exit_code(data, tmp_path / "whole", **ALL_AT_ONCE) == 0
    for kill_at in (1, 2, 5):  # in the frozen epoch, at its end, after it
        assert toys.exit_code(data, tmp_path / str(kill_at), kill_at, **ALL_AT_ONCE) == -signal.SIGKILL
        assert toys.exit_code(data, tmp_path / str(kill_at), **ALL_AT_ONCE) == 0
        assert results(tmp_path / str(kill_at)) == results(tmp_path / "whole")


@pytest.fixture
def no_progress(monkeypatch):
    """Every epoch's validation gives the same probabilities."""

    def even(self, part):
        return np.full((len(self.rows[part]), labels.class_count()), 1 / labels.class_count(), np.float32)

    monkeypatch.setattr(loop.FoldTraining, "predict", even)


def test_without_progress_a_plateau_run_learns_ever_slower(data, tmp_path, no_progress):
    changes = {"schedule": "plateau", "plateau_epochs": 2, "epochs": 7, "learning_rate": 0.01, "warmup_epochs": 0.0}
    history = toys.train(data, tmp_path, folds=(0,), **changes).history
    assert history["learning_rate"].tolist() == pytest.approx([0.01] * 3 + [0.001] * 2 + [0.0001] * 2)


def test_without_progress_a_run_stops_early_and_is_finished(data, tmp_path, no_progress, monkeypatch):
    changes = {"early_stop_epochs": 2, "epochs": 9, "folds": (0,)}
    first = toys.train(data, tmp_path, **changes)
    assert first.history["epoch"].tolist() == [1, 2, 3]
    (tmp_path / "runs" / "toy" / "fold0" / "oof.csv").unlink()  # killed before it was written
    monkeypatch.setattr(loop.FoldTraining, "train_step", None)  # calling it would raise
    for _ in range(2):
        again = toys.train(data, tmp_path, **changes)
        pd.testing.assert_frame_equal(again.history, first.history)
        pd.testing.assert_frame_equal(again.out_of_fold, first.out_of_fold, check_exact=True)


def checkpoint_of(output, fold=0):
    return checkpoint.read_checkpoint(output / "runs" / "toy" / f"fold{fold}" / "checkpoint" / "last.safetensors")[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_epochs_leave_the_backbone_bit_for_bit(data, tmp_path, optimizer):
    changes = {"optimizer": optimizer, "weight_decay": 0.1, "folds": (0,), "epochs": 2}
    toys.train(data, tmp_path / "frozen", frozen_epochs=2, **changes)
    toys.train(data, tmp_path / "thawed", frozen_epochs=1, **changes)
    first = weights.first_weights(config.Run(**toys.SETTINGS), dataset.step_seed(0, 0, 0, 0))
    frozen, thawed = checkpoint_of(tmp_path / "frozen"), checkpoint_of(tmp_path / "thawed")
    assert {name for name in first if not torch.equal(first[name], frozen[name])} == {"fc.weight", "fc.bias"}
    assert not any(torch.equal(first[name], thawed[name]) for name in first if name.endswith("running_mean"))
    assert not torch.equal(first["conv1.0.weight"], thawed["conv1.0.weight"])


def test_a_frozen_fold_leaves_the_next_one_as_if_it_were_alone(data, tmp_path):
    toys.train(data, tmp_path / "both", folds=(0, 1), frozen_epochs=1)
    toys.train(data, tmp_path / "alone", folds=(1,), frozen_epochs=1)
    both, alone = checkpoint_of(tmp_path / "both", fold=1), checkpoint_of(tmp_path / "alone", fold=1)
    assert all(torch.equal(both[name], alone[name]) for name in alone)


def test_the_history_tells_the_runs_learning_rate_whatever_the_layers_are(data, tmp_path):
    changes = {"folds": (0,), "epochs": 1, "schedule": "constant", "warmup_epochs": 0.0}
    history = toys.train(data, tmp_path, layer_decay=0.3, learning_rate=0.02, **changes).history
    assert history["learning_rate"].tolist() == pytest.approx([0.02])


def test_cutmix_old_loads_partners_from_all_training_photos_and_none_from_validation(data, tmp_path, monkeypatch):
    asked = []
    batch = devices.DevicePhotos.batch
    monkeypatch.setattr(
        devices.DevicePhotos, "batch", lambda self, rows: asked.append((self.store, rows)) or batch(self, rows)
    )
    toys.train(data, tmp_path, folds=(0,), epochs=1, mixing="cutmix_old")
    split = toys.splits(toys.table())[0].set_index("path")
    opened, rows = asked[0]
    paths = {row: path for path, row in opened.row_of.items()}
    loaded = split.loc[[paths[row] for row in rows]]
    assert (loaded["split"] == "train").all()
    half = len(loaded) // 2
    assert set(labels.decode_all(loaded["label"].to_numpy()[half:])["age"]) == {2}


def test_cutmix_old_without_anybody_old_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(toys, "splits", lambda photos: splits.make_splits(photos.assign(label=0), 2, 0.2))
    with pytest.raises(ValueError, match=r"cutmix_old.*of age 60\+"):
        toys.train(data, tmp_path, folds=(0,), mixing="cutmix_old")


def test_a_finished_fold_needs_no_first_weights(data, tmp_path, monkeypatch):
    first = toys.train(data, tmp_path, folds=(0,))
    monkeypatch.setattr(weights, "first_weights", None)  # the hub may be out of reach by now
    pd.testing.assert_frame_equal(toys.train(data, tmp_path, folds=(0,)).out_of_fold, first.out_of_fold)


def test_half_precision_trains_too(data, tmp_path):
    result = toys.train(data, tmp_path, folds=(0,), precision="bfloat16")
    assert result.history["train_loss"].map(math.isfinite).all()
    state, _ = checkpoint.read_checkpoint(tmp_path / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors")
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


def test_a_run_resumes_only_with_the_policy_it_began_with(data, tmp_path):
    """The settings name the file alone: what is in it may have changed."""
    path = policy.write_policy(policy.PRESET_POLICIES["trivialaugment"], tmp_path / "policy.json")
    first = toys.train(data, tmp_path, augmentation=str(path), folds=(0,))
    policy.write_policy(policy.PRESET_POLICIES["trivialaugment"], path)
    again = toys.train(data, tmp_path, augmentation=str(path), folds=(0,))
    pd.testing.assert_frame_equal(first.history, again.history)
    policy.write_policy(policy.PRESET_POLICIES["seed"], path)
    with pytest.raises(config.ChangedSettingsError, match=r"the policy in .*policy\.json"):
        toys.train(data, tmp_path, augmentation=str(path), folds=(0,))


def test_a_run_without_its_policy_s_file_is_refused_before_it_trains(data, tmp_path):
    with pytest.raises(ValueError, match=r"missing\.json cannot be read as a policy"):
        toys.train(data, tmp_path, augmentation=str(tmp_path / "missing.json"), folds=(0,))


AVERAGES = {"folds": (0,), "epochs": 3, "keep_epochs": 2, "ema_decay": 0.8}


def weights_in(output):
    """Every checkpoint of fold 0, byte for byte but for the manifest, which tells the time."""
    found = {}
    for path in sorted((output / "runs" / "toy" / "fold0" / "checkpoint").iterdir()):
        found |= {f"{path.stem}/{name}": value.numpy().tobytes() for name, value in load_file(path).items()}
    return found


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("averaged")
    return output, toys.train(data, output, **AVERAGES)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("seconds", [0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_moving_averages_and_kept_epochs_resume_to_the_same_bits(data, averaged, tmp_path, steps, seconds):
    output, whole = averaged
    with stopped_after(steps):
        toys.train(data, tmp_path, seconds, **AVERAGES)
    resumed = toys.train(data, tmp_path, seconds, **AVERAGES)
    assert weights_in(tmp_path) == weights_in(output)
    times = list(loop.HISTORY_TIMES)
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns=times), whole.history.drop(columns=times), check_exact=True
    )


def test_only_the_last_epochs_stay_on_disk_each_as_training_left_it(averaged):
    folder = averaged[0] / "runs" / "toy" / "fold0" / "checkpoint"
    assert sorted(path.stem for path in folder.iterdir()) == ["best", "ema", "epoch002", "epoch003", "last"]
    last, kept = (checkpoint.read_checkpoint(folder / f"{name}.safetensors")[0] for name in ("last", "epoch003"))
    assert all(torch.equal(kept[name], value) for name, value in last.items())
    kept = [checkpoint.read_manifest(folder / f"epoch00{epoch}.safetensors")["place"]["epoch"] for epoch in (2, 3)]
    assert kept == [2, 3]
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
    assert checkpoint.read_manifest(path)["place"]["epoch"] == history["epoch"][best]
    predicted = scores.summarise(*scores.from_probabilities(chosen.out_of_fold))
    assert predicted["macro_f1"] == pytest.approx(history["val_ema_macro_f1"][best])
    assert not chosen.out_of_fold.equals(averaged[1].out_of_fold)


def test_training_anew_removes_scores_and_averages_that_became_untrue(data, tmp_path):
    toys.train(data, tmp_path, folds=(0, 1), epochs=1)
    folder = tmp_path / "runs" / "toy"
    stale = [folder / "scores.json", folder / "averaging.json", folder / "fold0" / "oof.swa.csv"]
    others = [folder / "fold1" / "oof.swa.csv", folder / "fold1" / "oof.csv", folder / "fold0" / "history.csv"]
    for path in (*stale, others[0]):
        files.write_json({"trained": "best", "folds": {"0": {"picked": "swa"}}}, path)
    toys.train(data, tmp_path, folds=(0, 1), epochs=1)  # all is finished: nothing is trained
    assert all(path.exists() for path in stale)
    (folder / "fold0" / "oof.csv").unlink()
    toys.train(data, tmp_path, folds=(0, 1), epochs=1)
    assert not any(path.exists() for path in stale) and all(path.exists() for path in others)


# Heads and ages.


def with_ages(parts: dict[int, pd.DataFrame], years: dict[int, float]) -> dict[int, pd.DataFrame]:
    """Everybody of a group has the same age."""
    groups = {fold: labels.decode_all(split["label"])["age"] for fold, split in parts.items()}
    return {fold: split.assign(age=[float(years[group]) for group in groups[fold]]) for fold, split in parts.items()}


@pytest.fixture
def aged_toys(monkeypatch):
    """The toy's splits carry ages: everybody in the middle group is 58."""
    plain = toys.splits
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos), {0: 24, 1: 58, 2: 60}))


def opened_toys(data) -> devices.DevicePhotos:
    opened = store.open_store(data / "store", data / "train" / "images", list(toys.table()["path"]), toys.FRAME)
    return devices.DevicePhotos(opened, torch.device("cpu"))


HEADS = {
    "attention": {"head": "attention", "per_image_norm": True},
    "three": {"head": "three", "head_loss_weights": (0.5, 1.0, 2.0)},
    "ordinal": {"head": "three", "age_target": "ordinal", "old_from": 58},
    "ordinal, mixed": {"head": "three", "age_target": "ordinal", "mixing": "mixup", "mixing_probability": 1.0},
    "old from 58, mixed": {"old_from": 58, "mixing": "cutmix_old", "mixing_probability": 1.0},
    "custom": {"architecture": networks.CUSTOM},
}


@pytest.mark.usefixtures("aged_toys")
@pytest.mark.parametrize("name", HEADS)
def test_any_head_resumes_to_the_same_bits_and_its_checkpoint_alone_predicts(data, tmp_path, name):
    settings = {"folds": (0,), "attribute_loss": 0.0, **HEADS[name]}
    whole = toys.train(data, tmp_path / "whole", **settings)
    assert whole.history["train_loss"].map(math.isfinite).all()
    with stopped_after(3):
        toys.train(data, tmp_path / "broken", 0, **settings)
    resumed = toys.train(data, tmp_path / "broken", 0, **settings)
    pd.testing.assert_frame_equal(whole.out_of_fold, resumed.out_of_fold, check_exact=True)
    path = tmp_path / "whole" / "runs" / "toy" / "fold0" / "checkpoint" / "best.safetensors"
    paths, columns = list(whole.out_of_fold["path"]), labels.probability_columns()
    found = inference.mean_over_folds({0: path}, opened_toys(data), paths, predict.ONE_VIEW, tmp_path, "val")
    np.testing.assert_allclose(found, whole.out_of_fold[columns].to_numpy(), atol=1e-6)
    if settings.get("head") == "three":
        np.testing.assert_allclose(labels.joint(labels.marginals(found)), found, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 6), (18,)])
@pytest.mark.parametrize("head", ["linear", "three"])
def test_other_attributes_train_too(data, tmp_path, sizes, head):
    names, smoothing = ("first", "second")[: len(sizes)], (0.1,) * len(sizes)
    words = [tuple(f"{name} {value}" for value in range(size)) for name, size in zip(names, sizes, strict=True)]
    keys = ("abc", "defghi") if len(sizes) > 1 else ("abcdefghijklmnopqr",)
    with labels.using([labels.Attribute(*one) for one in zip(names, words, keys, strict=True)]):
        settings = {"head": head, "attribute_loss": 0.0 if head == "three" else 1.0, "mixing": "cutmix"}
        result = toys.train(data, tmp_path, folds=(0,), attribute_label_smoothing=smoothing, **settings)
    assert result.history["train_loss"].map(math.isfinite).all()
    assert {"val_macro_f1", *(f"val_{name}" for name in names)} <= set(result.history)


def test_a_toy_is_learned_by_three_heads_of_which_one_is_ordinal(tmp_path, monkeypatch):
    plain = toys.splits
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos), {0: 24, 1: 45, 2: 64}))
    toys.write_photos(tmp_path, toys.table(people=48))
    changes = {"head": "three", "age_target": "ordinal", "attribute_loss": 0.0}
    result = toys.train(tmp_path, tmp_path, people=48, epochs=15, augmentation="none", dropout=0.0, **changes)
    truth, predicted = result.truth_and_prediction()
    assert (truth == predicted).mean() > 0.9


@pytest.mark.usefixtures("aged_toys")
def test_only_training_counts_people_of_58_as_old(data, tmp_path):
    """In the toy everybody of the middle group is 58: a network told so finds them old, and is scored wrong."""
    run, split = config.Run(**{**toys.SETTINGS, "old_from": 58}), toys.splits(toys.table())[0]
    fold = loop.FoldTraining(run, 0, split, opened_toys(data))
    groups = {part: set(labels.decode_all(found)["age"]) for part, found in fold.labels.items()}
    assert groups["train"] == {0, 2} and 1 in groups["val"]
    result = toys.train(data, tmp_path, old_from=58)
    assert sorted(result.out_of_fold["label"].unique()) == sorted(toys.CLASSES)


def test_other_ages_refuse_to_resume_where_they_matter(data, tmp_path, monkeypatch):
    plain, years = toys.splits, itertools.cycle([{0: 24, 1: 58, 2: 60}, {0: 24, 1: 40, 2: 60}])
    monkeypatch.setattr(toys, "splits", lambda photos: with_ages(plain(photos), next(years)))
    toys.train(data, tmp_path, folds=(0,), run="moved", old_from=58)
    with pytest.raises(config.ChangedSettingsError, match="the ages in years"):
        toys.train(data, tmp_path, folds=(0,), run="moved", old_from=58)
    toys.train(data, tmp_path, folds=(0,))
    toys.train(data, tmp_path, folds=(0,))  # nobody asked for ages


# What a checkpoint says it was trained on.

NOW = {
    "run": config.Run(augmentation="faces").settings(),
    "data": "of these photos",
    "policy": {"name": "faces"},
    "years": None,
    "dtype": "torch.float32",
}


def written(**changed) -> dict:
    """A manifest as a checkpoint gives it back."""
    return json.loads(json.dumps({**NOW, **changed}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"run": config.Run(augmentation="faces", epochs=77).settings()}, r"epochs: 77 → \d+"),
        ({"data": "of others"}, "the photos, their labels or the split"),
        ({"policy": {"name": "other"}}, "the policy in faces"),
        ({"years": "of some ages"}, "the ages in years"),
        ({"dtype": "torch.bfloat16"}, "arithmetic in torch.bfloat16, here torch.float32"),
        ({"data": "of others", "years": "of some"}, "the photos, their labels or the split; the ages in years"),
    ],
)
def test_what_changed_is_named_with_the_folder_and_the_ways_out(tmp_path, changed, words):
    loop.require_same(written(), NOW, tmp_path)
    with pytest.raises(config.ChangedSettingsError, match=rf"fold3 was .*settings \({words}\)\. .*restart"):
        loop.require_same(written(**changed), NOW, tmp_path / "fold3")


def test_what_is_not_asked_about_is_no_change():
    asked = {name: NOW[name] for name in ("run", "data", "policy")}
    assert loop.changes(written(dtype="torch.float16"), asked) == []
