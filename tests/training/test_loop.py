"""The loop learns, resumes to the same bits from a kill at any step, and refuses what would mix runs."""

import functools
import math
import signal
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from safetensors.torch import load_file

from mask_lib.augment import apply, policy
from mask_lib.base import config, files, labels, scores
from mask_lib.ensemble import inference
from mask_lib.models import build, checkpoint, devices, networks, predict, weights
from mask_lib.training import dataset, loop, step

TRAIN_COUNTS = [(split["split"] == "train").sum() for split in toys.splits(toys.table()).values()]
STEPS = sum(toys.SETTINGS["epochs"] * dataset.step_count(count, toys.SETTINGS["batch_size"]) for count in TRAIN_COUNTS)
STEP = loop.FoldTraining.train_step
THREE = {"head": "three", "attribute_loss": 0.0}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken")
    assert toys.exit_code(data, output) == 0
    found = toys.results(output)
    assert any(name.startswith("fold1/last/optimizer/") for name in found)
    return found


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """What so many epochs of fold 0 leave without any feature."""

    @functools.cache
    def trained(epochs):
        output = tmp_path_factory.mktemp("plain")
        toys.train(data, output, folds=(0,), epochs=epochs)
        return toys.results(output)

    return trained


def fold_of(output, fold=0):
    return output / "runs" / "toy" / f"fold{fold}"


def weights_of(output, name="last", fold=0):
    return checkpoint.read_checkpoint(fold_of(output, fold) / "checkpoint" / f"{name}.safetensors")[0]


def place_of(output, name):
    return checkpoint.read_manifest(fold_of(output) / "checkpoint" / f"{name}.safetensors")["place"]


def give_ages(monkeypatch, years):
    """The toy's splits carry ages: everybody of a group is of the age that `years` says."""
    plain = toys.splits

    def aged(split):
        return split.assign(age=[float(years[group]) for group in labels.decode_all(split["label"])["age"]])

    monkeypatch.setattr(toys, "splits", lambda photos: {fold: aged(one) for fold, one in plain(photos).items()})


@pytest.fixture
def aged_toys(monkeypatch):
    """Everybody in the middle group is 58."""
    give_ages(monkeypatch, {0: 24, 1: 58, 2: 60})


def opened_toys(data):
    return devices.DevicePhotos(toys.opened(data), torch.device("cpu"))


@pytest.mark.parametrize("kill_at", range(1, STEPS + 1))
@pytest.mark.parametrize("seconds", [0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_a_kill_after_any_step_changes_no_bit(data, unbroken, tmp_path, kill_at, seconds):
    assert toys.exit_code(data, tmp_path, kill_at, seconds=seconds) == -signal.SIGKILL
    assert toys.exit_code(data, tmp_path, seconds=seconds) == 0
    assert toys.results(tmp_path) == unbroken


@pytest.mark.parametrize("kill_at", [1, 2, 3, STEPS])
def test_a_kill_while_a_checkpoint_is_written_changes_no_bit(data, unbroken, tmp_path, kill_at):
    assert toys.exit_code(data, tmp_path, kill_at, in_write=True) == -signal.SIGKILL
    assert toys.exit_code(data, tmp_path) == 0
    assert toys.results(tmp_path) == unbroken


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


def test_training_again_trains_nothing_and_a_fold_more_leaves_what_both_at_once_had(
    data, unbroken, tmp_path, monkeypatch
):
    first = toys.train(data, tmp_path, folds=(0,))
    with monkeypatch.context() as patch:
        patch.setattr(loop.FoldTraining, "train_step", None)  # calling it would raise
        patch.setattr(weights, "first_weights", None)  # the hub may be out of reach by now
        again = toys.train(data, tmp_path, folds=(0,))
    pd.testing.assert_frame_equal(first.out_of_fold, again.out_of_fold, check_exact=True)
    pd.testing.assert_frame_equal(first.history, again.history)
    both = toys.train(data, tmp_path)
    assert toys.results(tmp_path) == unbroken
    validated = [split["path"][split["split"] == "val"] for split in toys.splits(toys.table()).values()]
    assert sorted(both.out_of_fold["path"]) == sorted(pd.concat(validated))


def test_with_other_settings_photos_policy_or_ages_a_run_begins_anew_if_at_all(tmp_path, monkeypatch):
    years, file = {0: 24, 1: 58, 2: 60}, tmp_path / "policy.json"
    give_ages(monkeypatch, years)
    toys.write_photos(tmp_path, toys.table())
    settings = {"folds": (0,), "old_from": 58, "augmentation": str(file)}

    def refused(words, **changes):
        words = rf"fold0 was trained with other settings \({words}\)\. .*when_changed: restart"
        with pytest.raises(config.ChangedSettingsError, match=words):
            toys.train(tmp_path, tmp_path, **settings, **changes)

    for _ in range(2):  # the same policy, written again, is no change
        policy.write_policy(policy.PRESET_POLICIES["trivialaugment"], file)
        toys.train(tmp_path, tmp_path, **settings)
    refused(r"learning_rate: 0\.05 → 0\.01", learning_rate=0.01)
    years[1] = 59
    refused("the ages in years")
    policy.write_policy(policy.PRESET_POLICIES["seed"], file)
    refused(r"the policy in \S*policy\.json; the ages in years")
    toys.Image.fromarray(np.zeros(toys.FRAME.shape, np.uint8)).save(tmp_path / "train/images/000/mask1.png")
    refused("the photos, their labels or the split; the policy.*")
    old = (fold_of(tmp_path) / "oof.csv").read_bytes()
    toys.train(tmp_path, tmp_path, when_changed="restart", **settings)
    assert (tmp_path / "runs" / "toy" / "replaced.fold0" / "oof.csv").read_bytes() == old
    assert (fold_of(tmp_path) / "oof.csv").read_bytes() != old


@pytest.fixture
def without_onednn():
    """On some CPUs oneDNN's bfloat16 gradients of maps as small as the toy's are not finite."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.usefixtures("without_onednn")
def test_only_training_goes_on_in_the_arithmetic_it_began_in_and_a_finished_run_opens_in_any(data, tmp_path):
    def train(precision):
        with mock.patch.object(devices, "dtype_for", lambda *given: devices.DTYPES[precision]):
            return toys.train(data, tmp_path, folds=(0,)).out_of_fold

    with toys.stopped_after(2), mock.patch.object(devices, "dtype_for", lambda *given: torch.bfloat16):
        toys.train(data, tmp_path, 0, folds=(0,))
    with pytest.raises(config.ChangedSettingsError, match=r"arithmetic in torch\.bfloat16, here torch\.float32"):
        train("float32")
    trained, before = train("bfloat16"), files.file_digest(fold_of(tmp_path) / "checkpoint" / "last.safetensors")
    pd.testing.assert_frame_equal(train("float32"), trained)  # read, as on a machine without a GPU
    (fold_of(tmp_path) / "oof.csv").unlink()
    columns = labels.probability_columns()
    np.testing.assert_allclose(train("float32")[columns], trained[columns], atol=0.02)
    assert files.file_digest(fold_of(tmp_path) / "checkpoint" / "last.safetensors") == before


OPEN_ENDED = [{"schedule": "constant"}, {"schedule": "plateau"}, {"schedule": "step", "step_epochs": 1}]


@pytest.mark.parametrize("changes", OPEN_ENDED, ids=["constant", "plateau", "step"])
def test_more_epochs_go_on_from_the_last_where_the_schedule_does_not_count_them(data, tmp_path, changes):
    changes = {"folds": (0,), "warmup_epochs": 0.0, **changes}
    toys.train(data, tmp_path / "all", epochs=3, **changes)
    toys.train(data, tmp_path / "more", epochs=2, **changes)
    with mock.patch.object(loop.FoldTraining, "train_step", autospec=True, side_effect=STEP) as stepped:
        toys.train(data, tmp_path / "more", epochs=3, **changes)
    assert stepped.call_count == 2  # of the third epoch alone
    assert toys.results(tmp_path / "more") == toys.results(tmp_path / "all")
    with pytest.raises(config.ChangedSettingsError, match="epochs: 3 → 2"):
        toys.train(data, tmp_path / "more", epochs=2, **changes)


def test_more_epochs_are_another_run_where_the_schedule_counts_them(data, tmp_path):
    toys.train(data, tmp_path, folds=(0,))
    with pytest.raises(config.ChangedSettingsError, match=r"epochs: 2 → 3 \(which the schedule cosine depends on\)"):
        toys.train(data, tmp_path, folds=(0,), epochs=3)


def test_accumulated_batches_give_the_update_of_one_and_are_photos_of_one_step(data, tmp_path):
    """Without batch normalisation, dropout and the loss of a whole batch, it is the same sum."""
    same = {"folds": (0,), "epochs": 1, "dropout": 0.0, "architecture": "test_efficientnet_ln", "augmentation": "none"}
    one = toys.train(data, tmp_path / "one", batch_size=6, **same)
    two = toys.train(data, tmp_path / "two", batch_size=3, accumulate_steps=2, **same)
    np.testing.assert_allclose(two.history["train_loss"], one.history["train_loss"], rtol=1e-5)
    first, second = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_clipped_gradient_moves_the_weights_no_further_than_the_learning_rate_times_its_norm(data, tmp_path):
    changes = {"folds": (0,), "epochs": 1, "momentum": 0.0, "schedule": "constant", "warmup_epochs": 0.0}
    toys.train(data, tmp_path, clip_grad_norm=0.01, learning_rate=0.5, **changes)
    begun = weights.first_weights(config.Run(**toys.SETTINGS), dataset.step_seed(0, 0, 0, 0))
    ended = weights_of(tmp_path)
    learned = dict(build.of_run(config.Run(**toys.SETTINGS)).named_parameters())
    moved = math.sqrt(sum((ended[name] - begun[name]).square().sum().item() for name in learned))
    assert 0 < moved <= 1.001 * 0.5 * 0.01 * dataset.step_count(TRAIN_COUNTS[0], toys.SETTINGS["batch_size"])


def test_steps_drawn_by_a_thread_one_ahead_give_the_same_bits(data, plain, tmp_path, monkeypatch):
    """As for a GPU."""
    ahead = devices.one_ahead
    monkeypatch.setattr(devices, "one_ahead", lambda make, items, device: ahead(make, items, torch.device("cuda")))
    toys.train(data, tmp_path, folds=(0,), epochs=2)
    assert toys.results(tmp_path) == plain(2)


def test_too_little_memory_says_what_to_lower(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        loop.FoldTraining, "update", mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(MemoryError, match=r"6 photos of 16 x 24 pixels, test_resnet\): lower batch_size"):
        toys.train(data, tmp_path, folds=(0,))


def test_a_note_of_progress_tells_how_far_training_is(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.0)
    with toys.stopped_after(3):
        toys.train(data, tmp_path, folds=(0,))
    found = files.read_json(fold_of(tmp_path) / "progress.json")
    assert [found[name] for name in ("epoch", "epochs", "step", "steps")] == [1, 2, 1, 2]
    assert found["photos_per_second"] > 0 and 0 <= found["best_macro_f1"] <= 1


@pytest.mark.smoke
@pytest.mark.parametrize("changes", [{}, {**THREE, "age_target": "ordinal"}], ids=["one head", "three, one ordinal"])
def test_a_toy_is_learned(tmp_path, monkeypatch, changes):
    give_ages(monkeypatch, {0: 24, 1: 45, 2: 64})
    toys.write_photos(tmp_path, toys.table(people=48))
    result = toys.train(tmp_path, tmp_path, people=48, epochs=15, augmentation="none", dropout=0.0, **changes)
    truth, predicted = result.truth_and_prediction()
    assert (truth == predicted).mean() > 0.9
    first, last = (result.history[result.history["epoch"] == epoch]["train_loss"].mean() for epoch in (1, 15))
    assert last < 0.6 * first


def test_the_best_checkpoint_is_that_of_the_highest_macro_f1(data, tmp_path):
    history = toys.train(data, tmp_path, folds=(0,), epochs=6, learning_rate=0.2).history
    assert place_of(tmp_path, "best")["epoch"] == history["epoch"][history["val_macro_f1"].idxmax()]


def test_validation_sees_photos_as_they_are(data, tmp_path, monkeypatch):
    """The contest's own baseline augments its validation photos; ours must give the same answer twice."""
    calls, plain = [], apply.perform
    monkeypatch.setattr(apply, "perform", lambda photos, *rest: calls.append(len(photos)) or plain(photos, *rest))
    toys.train(data, tmp_path, folds=(0,), epochs=1)
    assert sum(calls) == TRAIN_COUNTS[0]


def test_a_loss_that_is_no_number_stops_training_with_advice(data, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "loss_of", lambda logits, *rest: logits.sum() * math.nan)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        toys.train(data, tmp_path, folds=(0,))


@pytest.mark.smoke
@pytest.mark.usefixtures("without_onednn")
def test_half_precision_trains_too(data, tmp_path, capsys):
    result = toys.train(data, tmp_path, folds=(0,), precision="bfloat16")
    assert result.history["train_loss"].map(math.isfinite).all()
    assert {value.dtype for value in weights_of(tmp_path, "best").values()} == {torch.float32, torch.int64}
    assert "precision bfloat16; photos read from disk" in capsys.readouterr().out


# Every feature and every head.

FEATURES = {
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01},
    "focal and mixup": {"loss": "focal", "mixing": "mixup", "label_smoothing": 0.0},
    "f1 and cutmix": {"loss": "f1", "mixing": "cutmix", "mixing_alpha": 0.5},
    "smoothed age and halves": {"attribute_label_smoothing": (0.0, 0.0, 0.2), "mixing": "cutmix_half"},
    "weighted, with the old": {"sampling": "weighted", "mixing": "cutmix_old", "loss": "f1_cross_entropy"},
    "layers and ice": {"layer_decay": 0.5, "frozen_epochs": 1, "optimizer": "adamw", "learning_rate": 0.01},
    "plateau": {"schedule": "plateau", "plateau_epochs": 1, "epochs": 4, "learning_rate": 0.2},
    "early stop": {"early_stop_epochs": 1, "epochs": 6, "learning_rate": 0.2},
    "attention": {"head": "attention", "per_image_norm": True},
    "three": {**THREE, "head_loss_weights": (0.5, 1.0, 2.0)},
    "ordinal": {**THREE, "age_target": "ordinal", "old_from": 58},
    "ordinal, mixed": {**THREE, "age_target": "ordinal", "mixing": "mixup", "mixing_probability": 1.0},
    "old from 58, mixed": {"old_from": 58, "mixing": "cutmix_old", "mixing_probability": 1.0},
    "three attention": {**THREE, "head": "three_attention", "age_target": "ordinal", "mixing": "mixup"},
    "auxiliary": {"architecture": "toy_inception", "aux_loss": 0.4, "frozen_epochs": 1, "layer_decay": 0.5},
    "auxiliary attention": {"architecture": "toy_inception", "aux_loss": 0.4, "head": "attention", "ema_decay": 0.9},
    "custom": {"architecture": networks.CUSTOM},
    "accumulated, clipped": {"accumulate_steps": 2, "batch_size": 3, "clip_grad_norm": 0.1, "mixing": "cutmix_old"},
    "paths, checkpointed": {"drop_path": 0.5, "checkpoint_activations": True},
    "steps": {"schedule": "step", "step_epochs": 1},
}
ALL_AT_ONCE = (
    {"folds": (0,), "epochs": 4, "schedule": "plateau", "plateau_epochs": 1, "early_stop_epochs": 2}
    | {"frozen_epochs": 1, "layer_decay": 0.7, "sampling": "weighted", "mixing": "cutmix_old"}
    | {"loss": "f1_cross_entropy", "attribute_label_smoothing": (0.0, 0.1, 0.2)}
)


@pytest.mark.usefixtures("aged_toys")
@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_and_head_resumes_to_the_same_bits_and_its_checkpoint_alone_predicts(
    data, plain, tmp_path, feature
):
    changes = {"folds": (0,), **FEATURES[feature]}
    whole = toys.train(data, tmp_path / "whole", **changes)
    assert whole.history["train_loss"].map(math.isfinite).all()
    assert toys.results(tmp_path / "whole") != plain(len(whole.history))  # it does something at all
    for stop_at in (1, 2 * len(whole.history) - 1):  # an epoch has two steps
        with toys.stopped_after(stop_at):
            toys.train(data, tmp_path / str(stop_at), 0, **changes)
        toys.train(data, tmp_path / str(stop_at), 0, **changes)
        assert toys.results(tmp_path / str(stop_at)) == toys.results(tmp_path / "whole")
    best = {0: fold_of(tmp_path / "whole") / "checkpoint" / "best.safetensors"}
    paths, expected = list(whole.out_of_fold["path"]), whole.out_of_fold[labels.probability_columns()].to_numpy()
    found = inference.mean_over_folds(best, opened_toys(data), paths, predict.ONE_VIEW, tmp_path, "val")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if changes.get("head", "").startswith("three"):
        np.testing.assert_allclose(labels.joint(labels.marginals(found)), found, atol=1e-6)


@pytest.mark.smoke
def test_a_kill_changes_no_bit_with_all_features_at_once(data, tmp_path):
    assert toys.exit_code(data, tmp_path / "whole", **ALL_AT_ONCE) == 0
    for kill_at in (1, 2, 5):  # in the frozen epoch, at its end, after it
        assert toys.exit_code(data, tmp_path / str(kill_at), kill_at, **ALL_AT_ONCE) == -signal.SIGKILL
        assert toys.exit_code(data, tmp_path / str(kill_at), **ALL_AT_ONCE) == 0
        assert toys.results(tmp_path / str(kill_at)) == toys.results(tmp_path / "whole")


@pytest.fixture
def no_progress(monkeypatch):
    """Every epoch's validation gives the same probabilities."""

    def even(self, part):
        return np.full((len(self.data.rows[part]), labels.class_count()), 1 / labels.class_count(), np.float32)

    monkeypatch.setattr(loop.FoldTraining, "predict", even)


def test_without_progress_a_plateau_run_learns_ever_slower(data, tmp_path, no_progress):
    changes = {"schedule": "plateau", "plateau_epochs": 2, "epochs": 7, "learning_rate": 0.01, "warmup_epochs": 0.0}
    history = toys.train(data, tmp_path, folds=(0,), **changes).history
    assert history["learning_rate"].tolist() == pytest.approx([0.01] * 3 + [0.001] * 2 + [0.0001] * 2)


def test_without_progress_a_run_stops_early_and_is_finished(data, tmp_path, no_progress, monkeypatch):
    changes = {"early_stop_epochs": 2, "epochs": 9, "folds": (0,)}
    first = toys.train(data, tmp_path, **changes)
    assert first.history["epoch"].tolist() == [1, 2, 3]
    (fold_of(tmp_path) / "oof.csv").unlink()  # killed before it was written
    monkeypatch.setattr(loop.FoldTraining, "train_step", None)  # calling it would raise
    for _ in range(2):
        again = toys.train(data, tmp_path, **changes)
        pd.testing.assert_frame_equal(again.history, first.history)
        pd.testing.assert_frame_equal(again.out_of_fold, first.out_of_fold, check_exact=True)


def test_frozen_epochs_leave_the_backbone_bit_for_bit(data, tmp_path):
    changes = {"optimizer": "adamw", "weight_decay": 0.1, "folds": (0,), "epochs": 2}
    toys.train(data, tmp_path / "frozen", frozen_epochs=2, **changes)
    toys.train(data, tmp_path / "thawed", frozen_epochs=1, **changes)
    first = weights.first_weights(config.Run(**toys.SETTINGS), dataset.step_seed(0, 0, 0, 0))
    frozen, thawed = weights_of(tmp_path / "frozen"), weights_of(tmp_path / "thawed")
    assert {name for name in first if not torch.equal(first[name], frozen[name])} == {"fc.weight", "fc.bias"}
    assert not any(torch.equal(first[name], thawed[name]) for name in first if name.endswith("running_mean"))
    assert not torch.equal(first["conv1.0.weight"], thawed["conv1.0.weight"])


def test_a_frozen_fold_leaves_the_next_one_as_if_it_were_alone(data, tmp_path):
    toys.train(data, tmp_path / "both", folds=(0, 1), frozen_epochs=1)
    toys.train(data, tmp_path / "alone", folds=(1,), frozen_epochs=1)
    both, alone = weights_of(tmp_path / "both", fold=1), weights_of(tmp_path / "alone", fold=1)
    assert all(torch.equal(both[name], alone[name]) for name in alone)


def test_the_history_tells_the_runs_learning_rate_whatever_the_layers_are(data, tmp_path):
    changes = {"folds": (0,), "epochs": 1, "schedule": "constant", "warmup_epochs": 0.0}
    history = toys.train(data, tmp_path, layer_decay=0.3, learning_rate=0.02, **changes).history
    assert history["learning_rate"].tolist() == pytest.approx([0.02])


def test_cutmix_old_loads_partners_from_all_training_photos_and_none_from_validation(data, tmp_path, monkeypatch):
    asked, plain = [], devices.DevicePhotos.asked_for
    monkeypatch.setattr(devices.DevicePhotos, "asked_for", lambda self, rows: asked.append(rows) or plain(self, rows))
    toys.train(data, tmp_path, folds=(0,), epochs=1, mixing="cutmix_old")
    paths = {row: path for path, row in opened_toys(data).store.row_of.items()}
    loaded = toys.splits(toys.table())[0].set_index("path").loc[[paths[row] for row in asked[0]]]
    assert (loaded["split"] == "train").all()
    half = len(loaded) // 2
    assert set(labels.decode_all(loaded["label"].to_numpy()[half:])["age"]) == {2}


@pytest.mark.usefixtures("aged_toys")
def test_only_training_counts_people_of_58_as_old(data, tmp_path):
    """In the toy everybody of the middle group is 58: a network told so finds them old, and is scored wrong."""
    run, split = config.Run(**{**toys.SETTINGS, "old_from": 58}), toys.splits(toys.table())[0]
    fold = loop.FoldTraining(run, 0, split, opened_toys(data))
    taught, validated = (labels.decode_all(one)["age"] for one in (fold.data.targets.labels, fold.data.labels["val"]))
    assert set(taught) == {0, 2} and 1 in validated
    result = toys.train(data, tmp_path, folds=(0,), epochs=1, old_from=58)
    assert list(result.out_of_fold["label"]) == list(split["label"][split["split"] == "val"])


# Averages beside training.

AVERAGES = {"folds": (0,), "epochs": 3, "keep_epochs": 2, "ema_decay": 0.8}


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("averaged")
    return output, toys.train(data, output, **AVERAGES)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("seconds", [0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_moving_averages_and_kept_epochs_resume_to_the_same_bits(data, averaged, tmp_path, steps, seconds):
    with toys.stopped_after(steps):
        toys.train(data, tmp_path, seconds, **AVERAGES)
    toys.train(data, tmp_path, seconds, **AVERAGES)
    assert toys.results(tmp_path) == toys.results(averaged[0])


def test_only_the_last_epochs_stay_on_disk_each_as_training_left_it(averaged):
    folder = fold_of(averaged[0]) / "checkpoint"
    assert sorted(path.stem for path in folder.iterdir()) == ["best", "ema", "epoch002", "epoch003", "last", "previous"]
    last, kept = weights_of(averaged[0]), load_file(folder / "epoch003.safetensors")
    assert kept.keys() == last.keys()  # nothing of the optimizer's
    assert all(torch.equal(kept[name], value) for name, value in last.items())
    assert [place_of(averaged[0], f"epoch00{epoch}")["epoch"] for epoch in (2, 3)] == [2, 3]


def test_averages_on_the_side_change_nothing_of_training(averaged, plain):
    beside = toys.results(averaged[0])
    assert all(beside[name] == value for name, value in plain(3).items() if name != "fold0/history")


def test_the_moving_average_can_be_chosen_and_is_that_of_the_last_epoch(data, averaged, tmp_path):
    chosen = toys.train(data, tmp_path, **AVERAGES | {"checkpoint_choice": "ema"})
    assert place_of(tmp_path, "ema")["epoch"] == chosen.history["epoch"].max()
    predicted = scores.summarise(*scores.from_probabilities(chosen.out_of_fold))
    assert predicted["macro_f1"] == pytest.approx(chosen.history["val_ema_macro_f1"].iloc[-1])
    assert not chosen.out_of_fold.equals(averaged[1].out_of_fold)


def test_training_anew_removes_scores_and_averages_that_became_untrue(data, tmp_path):
    toys.train(data, tmp_path, epochs=1)
    folder = tmp_path / "runs" / "toy"
    stale = [folder / "scores.json", folder / "averaging.json", folder / "fold0" / "oof.swa.csv"]
    others = [folder / "fold1" / "oof.swa.csv", folder / "fold1" / "oof.csv", folder / "fold0" / "history.csv"]
    for path in (*stale, others[0]):
        files.write_json({"trained": "best", "folds": {"0": {"picked": "swa"}}}, path)
    toys.train(data, tmp_path, epochs=1)  # all is finished: nothing is trained
    assert all(path.exists() for path in stale)
    (folder / "fold0" / "oof.csv").unlink()
    toys.train(data, tmp_path, epochs=1)
    assert not any(path.exists() for path in stale) and all(path.exists() for path in others)
