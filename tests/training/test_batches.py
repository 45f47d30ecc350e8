"""Mini-batches and augmentation depend on seed and epoch only; leaving samples out changes nothing for the others."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from amnesiac.settings import AugmentSettings
from amnesiac.training.batches import augment, augmentation, batches_per_epoch, epoch_batches

NOBODY = np.zeros(23, bool)


def plan(seed=0, epoch=0, excluded=NOBODY, batch_size=5):
    return list(epoch_batches(len(excluded), batch_size, seed, epoch, excluded))


def order(batches):
    return [batch.rows.tolist() for batch in batches]


def test_an_epoch_shows_every_sample_once():
    batches = plan()
    assert sorted(np.concatenate(order(batches)).tolist()) == list(range(23))
    assert [batch.scheduled for batch in batches] == [5, 5, 5, 5, 3]
    assert len(batches) == batches_per_epoch(23, 5)


def test_order_depends_on_seed_and_epoch_only():
    torch.manual_seed(1)
    first = order(plan())
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert order(plan()) == first
    assert order(plan(seed=1)) != first
    assert order(plan(epoch=1)) != first


@given(st.sets(st.integers(0, 22)), st.integers(1, 30))
def test_leaving_out_keeps_order_mini_batches_and_denominator(left_out, batch_size):
    excluded = np.isin(np.arange(23), list(left_out))
    for whole, part in zip(plan(batch_size=batch_size), plan(excluded=excluded, batch_size=batch_size), strict=True):
        assert part.rows.tolist() == [row for row in whole.rows.tolist() if row not in left_out]
        assert part.scheduled == whole.scheduled == len(whole.rows)


def naive(image, down, right, flip):
    """Pixel by pixel: what was at (y, x) of the (mirrored) image goes to (y + down, x + right)."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                source_y, source_x = y - down, x - right
                if 0 <= source_y < height and 0 <= source_x < width:
                    result[c, y, x] = image[c, source_y, width - 1 - source_x if flip else source_x]
    return result


@given(st.integers(0, 6), st.booleans(), st.integers(0, 3))
def test_augmentation_equals_a_naive_loop(shift, flip, epoch):
    images = torch.randn(6, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    draws = augmentation(AugmentSettings(shift=shift, flip=flip), 6, 0, epoch)
    expected = torch.stack([naive(image, *draw) for image, draw in zip(images, draws.tolist(), strict=True)])
    assert torch.equal(augment(images, draws), expected)


def test_a_subset_is_augmented_like_the_whole():
    images = torch.randn(23, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    draws = augmentation(AugmentSettings(shift=3, flip=True), 23, 0, 4)
    rows = np.array([7, 0, 22, 3])
    assert torch.equal(augment(images[rows], draws[rows]), augment(images, draws)[rows])


def test_draws_cover_the_range_and_change_with_epoch_and_seed():
    settings = AugmentSettings(shift=2, flip=True)
    draws = augmentation(settings, 500, 0, 0)
    assert set(draws[:, 0]) == set(draws[:, 1]) == {-2, -1, 0, 1, 2}
    assert set(draws[:, 2]) == {0, 1}
    assert not np.array_equal(draws, augmentation(settings, 500, 0, 1))
    assert not np.array_equal(draws, augmentation(settings, 500, 1, 0))


def test_without_augmentation_images_stay_as_they_are():
    images = torch.randn(5, 1, 3, 3)
    draws = augmentation(AugmentSettings(), 5, 0, 0)
    assert not draws.any()
    assert torch.equal(augment(images, draws), images)
