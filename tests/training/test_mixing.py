"""Mixed photos are what their targets say they are, and the partners those that were asked for."""

import numpy as np
import pytest
import torch

from mask_lib.base import labels
from mask_lib.base.config import Run
from mask_lib.training import mixing
from mask_lib.training.loss import BatchTargets

KINDS = ["mixup", "cutmix", "cutmix_half", "cutmix_old"]
COUNT, HEIGHT, WIDTH = 64, 24, 17


def run_of(kind: str, **changes) -> Run:
    return Run(**{"mixing": kind, "mixing_probability": 1.0, **changes})


def plain_photos() -> tuple[torch.Tensor, torch.Tensor]:
    """(COUNT, 3, H, W) photos, each of one value of its own, and labels that tell it: value = label / 20."""
    target = torch.arange(COUNT) % 18
    return (target / 20).view(-1, 1, 1, 1).expand(COUNT, 3, HEIGHT, WIDTH).contiguous(), target


def mixed(photos, targets: BatchTargets, partner: np.ndarray, run: Run, random: np.random.Generator):
    """Photos and targets mixed by what the CPU draws."""
    parts = [torch.from_numpy(part) for part in mixing.drawn_parts(run, len(partner), *photos.shape[2:], random)]
    return mixing.mixed(photos, targets, torch.from_numpy(partner), mixing.as_shares(parts))


def mix(run: Run, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Mixed photos and targets of `plain_photos`, and the partners' places among them."""
    photos, target = plain_photos()
    random = np.random.default_rng(seed)
    _, partner = mixing.with_partners(np.arange(COUNT), None, random)
    photos, wanted = mixed(photos, BatchTargets(target), partner, run, random)
    assert wanted.weights is None
    return photos, wanted.target, partner


@pytest.mark.parametrize("kind", KINDS)
def test_targets_tell_the_shares_of_both_photos(kind):
    photos, target, partner = mix(run_of(kind))
    assert (photos.shape, target.shape) == ((COUNT, 3, HEIGHT, WIDTH), (COUNT, 18))
    torch.testing.assert_close(target.sum(dim=1), torch.ones(COUNT))
    values = torch.arange(18) / 20  # a photo's mean is that of the classes in it, weighted by shares
    torch.testing.assert_close(photos.mean(dim=(1, 2, 3)), target @ values, atol=1e-5, rtol=1e-5)
    for row, other in enumerate(partner):
        assert set(target[row].nonzero().flatten().tolist()) <= {row % 18, other % 18}


@pytest.mark.parametrize("kind", KINDS)
def test_cut_photos_are_each_others_pixels_and_mixup_is_one_share_all_over_the_photo(kind):
    photos, _, partner = mix(run_of(kind))
    original, _ = plain_photos()
    if kind == "mixup":
        assert (photos == photos[:, :1, :1, :1]).all()
    else:
        assert ((photos == original) | (photos == original[partner])).all()


def test_a_half_is_the_left_or_the_right_one_from_top_to_bottom():
    rows, columns = mixing.boxes(run_of("cutmix_half"), COUNT, HEIGHT, 16, np.random.default_rng(0))
    assert rows.all()
    assert {tuple(row) for row in columns} == {(True,) * 8 + (False,) * 8, (False,) * 8 + (True,) * 8}


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_a_box_is_one_rectangle_of_the_photos_shape_where_no_edge_cuts_it(alpha):
    rows, columns = mixing.boxes(run_of("cutmix", mixing_alpha=alpha), 500, 200, 100, np.random.default_rng(1))
    for sides in (rows, columns):
        starts = np.diff(sides.astype(int), prepend=0, axis=1) == 1
        assert (starts.sum(axis=1) <= 1).all()
    whole = ~(rows[:, [0, -1]].any(axis=1) | columns[:, [0, -1]].any(axis=1))
    assert whole.sum() > 20
    np.testing.assert_allclose(rows[whole].mean(axis=1), columns[whole].mean(axis=1), atol=0.011)  # a pixel


def test_the_share_of_mixed_photos_is_the_probability():
    target = torch.cat([mix(run_of("cutmix_half", mixing_probability=0.25), seed)[1] for seed in range(40)])
    alone = (target.max(dim=1).values == 1).float().mean().item()
    # A partner of the same class, 1 in 18, leaves a target as it was.
    assert alone == pytest.approx(0.75 + 0.25 / 18, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_with_probability_zero_nothing_changes_whatever_is_unknown_of_a_partner(kind):
    """An unknown border of an ordinal head's target is NaN."""
    photos, numbers = plain_photos()
    target = torch.eye(18)[numbers]
    target[COUNT // 2 :, 2] = torch.nan
    partner, never = np.arange(COUNT)[::-1].copy(), run_of(kind, mixing_probability=0.0)
    found, wanted = mixed(photos, BatchTargets(target), partner, never, np.random.default_rng(0))
    assert torch.equal(found, photos)
    torch.testing.assert_close(wanted.target, target, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_each_photo_has_parameters_of_its_own_and_the_seed_gives_them_again(kind):
    first, again, other = (mix(run_of(kind), seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if kind != "cutmix_half":
        parts = mixing.drawn_parts(run_of(kind), COUNT, 50, 50, np.random.default_rng(0))
        shares = mixing.as_shares([torch.from_numpy(part) for part in parts])
        assert len(set(shares.mean(dim=(1, 2, 3)).tolist())) > COUNT / 2


def test_the_last_group_of_whatever_number_is_found_by_that_alone_and_must_be_there():
    train_labels = np.arange(18)
    assert mixing.photos_of_last_group(train_labels).tolist() == [2, 5, 8, 11, 14, 17]
    assert mixing.photos_of_last_group(train_labels[::-1]).tolist() == [0, 3, 6, 9, 12, 15]
    with pytest.raises(ValueError, match=r"cutmix_old.*no training photo of age 60\+"):
        mixing.photos_of_last_group(np.array([0, 1, 3, 4]))
    number = labels.Attribute("length", ("<10", "10+"), "ab", edges=(10,), limits=(0, 99))
    with labels.using((number, labels.Attribute("kind", ("x", "y", "z"), "cde"))):
        assert mixing.photos_of_last_group(np.arange(6)).tolist() == [3, 4, 5]


def test_partners_are_each_others_and_of_cutmix_old_old_even_if_the_batch_holds_none():
    train_labels, random = np.array([0, 1, 3, 4, 17] * 20), np.random.default_rng(0)
    batch = np.flatnonzero(train_labels < 5)[:30]  # nobody old among them
    positions, partner = mixing.with_partners(batch, None, random)
    assert positions.tolist() == batch.tolist() and sorted(partner) == list(range(30))
    positions, partner = mixing.with_partners(batch, mixing.photos_of_last_group(train_labels), random)
    assert positions[:30].tolist() == batch.tolist()
    assert (train_labels[positions[partner]] == 17).all()
    targets = BatchTargets(torch.from_numpy(train_labels[positions]))
    run = run_of("cutmix_old", mixing_alpha=50.0)  # boxes of about half the photo
    _, found = mixed(torch.zeros(len(positions), 3, HEIGHT, WIDTH), targets, partner, run, random)
    assert len(found.target) == 30
    assert (found.target[:, 17] > 0).all()


def test_weights_are_mixed_by_the_shares_that_targets_are_mixed_by():
    photos, _ = plain_photos()
    weights = torch.where(torch.arange(COUNT) % 2 == 0, 1.0, 0.5)
    random = np.random.default_rng(0)
    _, partner = mixing.with_partners(np.arange(COUNT), None, random)
    _, wanted = mixed(photos, BatchTargets(torch.eye(COUNT), weights), partner, run_of("mixup"), random)
    torch.testing.assert_close(wanted.weights, wanted.target @ weights)  # each photo a class of its own
    assert len(wanted.weights.unique()) > 3
