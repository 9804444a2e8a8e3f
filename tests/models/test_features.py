"""Features are computed once; the logistic regression on them sees each fold's train photos only, and is not fooled."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import Sequential

from mask_lib.base import labels
from mask_lib.data import store
from mask_lib.data.splits import SPLIT_COLUMNS, TEST_VAL, TRAIN, VAL, make_splits
from mask_lib.models import checkpoint, features
from mask_lib.models.build import build_network, preprocessing_of
from mask_lib.models.weights import initial_state

TINY = "test_resnet"
FRAME = store.Frame(16, 24)
CLASSES = (0, 4, 17)


def toy_table(people: int = 24) -> pd.DataFrame:
    """One photo a person; the class is the person's number in turn."""
    rows = [(f"p{number:02d}.png", f"p{number:02d}", CLASSES[number % len(CLASSES)]) for number in range(people)]
    return pd.DataFrame(rows, columns=["path", "person", "label"])


@pytest.fixture(scope="module")
def photos() -> store.Store:
    """Photos of noise; in each class another channel is bright."""
    table = toy_table()
    images = np.random.default_rng(0).integers(0, 60, (len(table), *FRAME.shape), dtype=np.uint8)
    for photo, label in zip(images, table["label"], strict=True):
        photo[..., CLASSES.index(label)] += 180
    return store.Store(images, {path: row for row, path in enumerate(table["path"])}, "content", FRAME)


def computed(photos: store.Store, folder, **changes) -> np.ndarray:
    return features.backbone_features(photos, folder / "cache", **{"architecture": TINY, "weights": "none", **changes})


def staged(photos: store.Store, folder, **changes) -> list[np.ndarray]:
    return features.stage_features(photos, folder / "cache", **{"architecture": TINY, "weights": "none", **changes})


def test_every_photo_gets_a_row_of_features_whatever_its_batch(photos, tmp_path, monkeypatch):
    found = computed(photos, tmp_path)
    assert found.shape == (24, build_network(TINY, class_count=0).num_features)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == 24
    monkeypatch.setattr(features.predict, "PREDICT_BATCH", 7)
    np.testing.assert_allclose(computed(photos, tmp_path / "other"), found, atol=1e-5)


def test_of_photos_of_four_channels_the_last_tells_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, FRAME.height, FRAME.width, 4), dtype=np.uint8)
    rows, frame = {f"{row}.png": row for row in range(5)}, FRAME._replace(channels=4)
    blank = images * np.uint8([1, 1, 1, 0])
    found, other = (computed(store.Store(one, rows, str(one.sum()), frame), tmp_path) for one in (images, blank))
    assert not np.allclose(found, other, atol=1e-2)


def test_stages_are_the_means_and_deviations_of_their_channels(photos, tmp_path):
    network = build_network(TINY, class_count=0)
    network.load_state_dict(initial_state(TINY, "none", seed=0, class_count=0))
    preprocessing = preprocessing_of(TINY, FRAME)
    batch = torch.from_numpy(np.array(photos.images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        stages = network.eval().forward_intermediates(preprocessing.prepared(batch), intermediates_only=True)[-2:]
    found = staged(photos, tmp_path)
    assert len(found) == 2
    for one, stage in zip(found, stages, strict=True):
        cells = stage.numpy().reshape(24, stage.shape[1], -1)
        np.testing.assert_allclose(one, np.hstack([cells.mean(2), cells.std(2)]), atol=1e-5)


def test_pooled_features_and_stages_come_from_one_pass_and_are_read_again_from_one_file(photos, tmp_path, monkeypatch):
    pooled = computed(photos, tmp_path)
    monkeypatch.setattr(features, "initial_state", None)
    assert [len(one) for one in staged(photos, tmp_path)] == [len(pooled)] * 2
    np.testing.assert_array_equal(computed(photos, tmp_path), pooled)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_network_that_hides_its_stages_gives_its_pooled_features(photos, tmp_path, monkeypatch):
    by_stages = computed(photos, tmp_path)
    monkeypatch.setattr(features.build, "build_network", lambda *one, **more: Sequential(build_network(*one, **more)))
    (only,) = staged(photos, tmp_path / "plain")
    np.testing.assert_allclose(only, by_stages, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed", "other"])
def test_a_damaged_cache_is_computed_anew(photos, tmp_path, damage):
    first = staged(photos, tmp_path)
    (cached,) = (tmp_path / "cache").iterdir()
    whole = cached.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 8]) + whole[middle + 8 :]
    if damage == "other":
        np.savez(cached, pooled=np.zeros((3, 2)))
    else:
        cached.write_bytes({"cut": whole[:middle], "emptied": b"", "changed": flipped}[damage])
    for one, again in zip(first, staged(photos, tmp_path), strict=True):
        np.testing.assert_array_equal(one, again)
    with np.load(cached, allow_pickle=False) as opened:
        assert all(len(opened[name]) == 24 for name in opened.files)


def test_photos_in_another_order_get_their_own_rows_and_changed_ones_new_features(photos, tmp_path):
    first, changed = computed(photos, tmp_path), photos.images.copy()
    row_of = {path: 23 - row for path, row in photos.row_of.items()}
    turned = photos._replace(images=photos.images[::-1], row_of=row_of)
    np.testing.assert_allclose(computed(turned, tmp_path)[::-1], first, atol=1e-5)
    changed[5] = 255
    after = computed(photos._replace(images=changed, content="other"), tmp_path)
    assert [row for row in range(24) if not np.allclose(after[row], first[row], atol=1e-5)] == [5]


def test_another_network_and_other_weights_in_the_same_file_get_features_of_their_own(photos, tmp_path):
    assert computed(photos, tmp_path).shape != computed(photos, tmp_path, architecture="test_efficientnet").shape
    path, found = tmp_path / "weights.safetensors", []
    for seed in (1, 2):
        checkpoint.write_checkpoint(path, initial_state(TINY, "none", seed), {})
        found.append(computed(photos, tmp_path, weights=str(path)))
    assert not np.allclose(*found)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_a_single_known_class_is_certain():
    found = features.logistic_probabilities(np.eye(3), np.array([5, 5, 5]), 18, np.zeros((2, 3)))
    np.testing.assert_allclose(found, np.eye(18)[[5, 5]], atol=1e-12)


def test_what_can_be_learned_is_learned_on_people_never_seen(photos, tmp_path):
    splits = make_splits(toy_table(), fold_count=3, test_val_share=0.25)
    found = features.logistic_out_of_fold(computed(photos, tmp_path), photos, splits)
    assert list(found.columns) == ["path", "label", *labels.probability_columns()]
    held_out = splits[0].loc[splits[0]["split"] == TEST_VAL, "path"]
    assert sorted(found["path"]) == sorted(set(toy_table()["path"]) - set(held_out))
    assert found.set_index("path")["label"].equals(toy_table().set_index("path")["label"][found["path"]])
    probabilities = found[labels.probability_columns()].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == found["label"]).mean() > 0.9


def test_a_photo_is_judged_by_regressions_that_never_saw_it(photos):
    """With its own label as the one feature that tells, a fold whose class is missing in train must miss."""
    table = toy_table()
    splits = {0: table.assign(split=np.where(table["label"] == 17, VAL, TRAIN))}
    found = features.logistic_out_of_fold(np.eye(18)[table["label"]], photos, splits)
    assert (found["label"] == 17).all()
    assert (found["p17"] == 0).all()


def test_features_that_tell_the_person_and_not_the_class_pay_only_on_naive_folds():
    generator = np.random.default_rng(0)
    people, each = 30, 4
    names = [f"{person:02d}" for person in range(people) for _ in range(each)]
    table = pd.DataFrame({"path": [f"{name}/{row}.jpg" for row, name in enumerate(names)], "person": names})
    table["label"] = table["person"].astype(int).mod(3) * 4
    faces = generator.normal(size=(people, 300))  # what a face looks like has nothing to do with its class
    described = np.repeat(faces, each, axis=0) + 0.05 * generator.normal(size=(len(table), 300))
    row_of = {path: row for row, path in enumerate(table["path"])}
    known = SimpleNamespace(rows=lambda paths: np.array([row_of[path] for path in paths]))
    splits = make_splits(table, fold_count=3, test_val_share=0.1, seed=0)
    outside = pd.DataFrame([["/elsewhere/a.jpg", "external:x/a", 0, "train"]], columns=SPLIT_COLUMNS)
    described, row_of["/elsewhere/a.jpg"] = np.vstack([described, described[:1]]), len(table)
    joined = {fold: pd.concat([split, outside], ignore_index=True) for fold, split in splits.items()}
    found = features.naive_fold_scores(described, known, joined)
    honest, naive = (found[name].loc["accuracy", "value"] for name in (features.HONEST, features.NAIVE))
    assert naive > 0.9 and honest < 0.6
    assert f"{found[features.NAIVE].loc['macro_f1', 'value']:.3f}" in features.optimism_summary(found)


def test_what_a_look_is_worth_shows_when_it_is_left_out():
    """Worn masks lie on two sides of bare faces: who knows one side takes the other for a bare face."""
    random, rows = np.random.default_rng(0), []
    places = {"worn 1": (4, 0), "worn 2": (-4, 4), "not worn 1": (0, 0)}
    for person, look in ((person, look) for person in range(60) for look in places):
        rows.append((f"{person}/{look}.jpg", str(person), labels.encode(2 if "not" in look else 0, 0, 1), look))
    table = pd.DataFrame(rows, columns=["path", "person", "label", "look"]).assign(attribute="mask")
    stages = [np.array([places[look] for look in table["look"]]) + random.normal(0, 0.3, (len(table), 2))]
    place = dict(zip(table["path"], range(len(table)), strict=True))
    photos = SimpleNamespace(rows=lambda paths: np.array([place[path] for path in paths]))
    split = table.assign(split=np.where(table["person"].astype(int) < 40, TRAIN, VAL))
    found = features.accuracy_by_look(stages * 2, photos, split, table[["path", "attribute", "look"]]).set_index("look")
    assert list(found.index) == ["worn 1", "worn 2"] and list(found["photos"]) == [20, 20]  # bare faces have one look
    assert (found["in training"] > 0.95).all() and (found["never seen"] < 0.05).all()
