"""Quantised rows: exact sums, rounding errors and bounds that hold for anything that can be stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac.capture.blocks import Block
from amnesiac.capture.layers import Factors
from amnesiac.curvature import Basis
from amnesiac.errors import StoreError
from amnesiac.ledger.settled_codec import MaskedRows, QuantisedRows, quantise

LINEAR = Block("a", ("a.weight", "a.bias"), ((4, 5), (4,)), (4, 6), None)
NORM = Block("b", ("b.weight",), ((3,),), None, None)


def made(seed, rank, bits, n=11, scales=(1.0, 1.0, 1.0)):
    """A codec and rows of it: a linear layer, dense or outer products, and one without a matrix form."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape, scale):
        spread = 2.0 ** torch.randint(-6, 7, (n, *[1] * (len(shape) - 1)), generator=generator)
        return scale * spread * torch.randn(*shape, generator=generator)

    parts = [random(n, 24, scale=scales[0]), random(n, 3, scale=scales[2])]
    if rank:
        parts[0] = Factors(random(n, rank, 4, scale=scales[0]), random(n, rank, 6, scale=scales[1]))
    codec = QuantisedRows((replace(LINEAR, rank=rank), NORM), bits)
    rows = codec.encode(parts)
    assert rows.shape == (n, codec.row_bytes)
    return codec, parts, rows


def total(codec, rows):
    return codec.total(rows, np.arange(len(rows)))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    rank=st.sampled_from([None, 1, 3]),
    bits=st.sampled_from([8, 16]),
    scales=st.tuples(*[st.sampled_from([0.0, 1e-30, 1e-9, 1e-4, 0.1, 1.0])] * 3),
    data=st.data(),
)
def test_sums_are_the_same_bits_in_any_order_and_grouping_and_stay_below_the_bound(seed, rank, bits, scales, data):
    codec, _, rows = made(seed, rank, bits, scales=scales)
    bound, whole = codec.bound(rows), total(codec, rows)
    assert bound < 2.0**17
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    running = np.zeros_like(whole)
    for part in np.split(rows[order], cuts):
        running = running + total(codec, part) if len(part) else running
        assert np.abs(running).max() <= bound
    assert np.array_equal(running, whole)
    assert np.array_equal(np.rint(np.ldexp(whole, 40)), np.ldexp(whole, 40))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rank", [None, 2])
def test_rounding_is_half_a_step_of_each_vector(rank, bits):
    codec, parts, rows = made(3, rank, bits)
    limit = 2.0 ** (bits - 1) - 1
    for k in range(len(rows)):
        found = total(codec, rows[k : k + 1])
        if rank is None:
            exact, error = parts[0][k].double().numpy(), float(parts[0][k].abs().max()) / limit
            assert np.abs(found[:24] - exact).max() <= 1.0001 * error
        else:
            left, right = parts[0].left[k].double(), parts[0].right[k].double()
            dense = left.T @ right
            exact = torch.cat([dense[:, :5].flatten(), dense[:, 5]]).numpy()
            error = float((2.1 * left.abs().amax(1) * right.abs().amax(1)).sum()) / limit
            assert np.abs(found[:24] - exact).max() <= error
        assert np.abs(found[:24] - exact).max() > 0
        assert np.abs(found[24:] - parts[1][k].numpy()).max() <= 1.0001 * float(parts[1][k].abs().max()) / limit


def test_sixteen_bits_are_a_hundred_times_finer():
    errors = {}
    for bits in (8, 16):
        codec, parts, rows = made(5, None, bits)
        exact = torch.cat([part.double() for part in parts], 1).sum(0).numpy()
        errors[bits] = np.abs(total(codec, rows) - exact).max()
    assert 0 < 100 * errors[16] < errors[8]


@pytest.mark.parametrize("bits", [8, 16])
def test_exponents_are_no_smaller_than_asked_for_and_no_larger_than_needed(bits):
    limit = 2 ** (bits - 1) - 1
    whole, exponents = quantise(np.array([[limit, -1.0], [1e-20, 0.0], [0.0, 0.0], [limit * 1.01, 0.0]]), bits, -40)
    assert exponents.tolist() == [0, -40, -40, 1]
    assert whole[:3].tolist() == [[limit, -1.0], [0.0, 0.0], [0.0, 0.0]]
    each = quantise(np.array([[1.0], [1.0]]), bits, np.array([3, -40]))[1]
    assert each.tolist() == [3, 2 - bits]
    assert quantise(np.zeros((1, 3)), bits)[1].min() >= -127


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(StoreError, match="not finite: the run has diverged; lower the learning rate"):
        quantise(np.array([[1.0, value]]), 8)


def test_small_outer_products_vanish_where_they_are_finer_than_the_grid():
    codec = QuantisedRows((replace(LINEAR, rank=1), NORM), 8)
    rows = codec.encode([Factors(torch.full((1, 1, 4), 1e-8), torch.full((1, 1, 6), 1e-8)), torch.zeros(1, 3)])
    assert not total(codec, rows).any()


def test_masked_rows_keep_their_coordinates_and_leave_the_others_out():
    generator = torch.Generator().manual_seed(0)
    basis = Basis(*(torch.linalg.qr(torch.randn(k, k, generator=generator))[0] for k in (4, 6)))
    norm = Basis(None, None, torch.tensor([1.0, 2.0, 4.0]))
    kept = (np.array([0, 7, 23]), np.array([2]))
    codec = MaskedRows((LINEAR, NORM), 16, kept, (basis, norm), "mask")
    inside = [torch.randn(5, 4, 6, generator=generator), torch.randn(5, 3, generator=generator)]
    rows = codec.encode(inside)
    assert rows.shape == (5, codec.row_bytes)
    assert codec.row_bytes == 2 + 2 * (3 + 1)
    matrix = torch.zeros(24)
    matrix[kept[0]] = inside[0].flatten(1).sum(0)[kept[0]]
    dense = basis.left @ matrix.reshape(4, 6) @ basis.right.T
    expected = torch.cat([dense[:, :5].flatten(), dense[:, 5], torch.tensor([0.0, 0.0, 4.0 * inside[1][:, 2].sum()])])
    np.testing.assert_allclose(total(codec, rows), expected.numpy(), atol=2e-3)
    whole = total(codec, rows)
    for order in (np.arange(5)[::-1], np.array([3, 0, 4, 1, 2])):
        parts = [total(codec, rows[part]) for part in np.array_split(order, 3)]
        assert np.array_equal(parts[2] + parts[0] + parts[1], whole)


def test_the_bound_of_masked_rows_is_one_of_weights_not_of_coordinates():
    """Whitened bases enlarge what they are given."""
    generator = torch.Generator().manual_seed(0)
    basis = Basis(*(30 * torch.linalg.qr(torch.randn(k, k, generator=generator))[0] for k in (4, 6)))
    kept = (np.arange(24), np.arange(3))
    codec = MaskedRows((LINEAR, NORM), 8, kept, (basis, Basis(None, None, torch.full((3,), 50.0))), "mask")
    rows = codec.encode([torch.rand(7, 4, 6, generator=generator), torch.rand(7, 3, generator=generator)])
    largest = max(np.abs(total(codec, rows[:k])).max() for k in range(1, 8))
    assert largest <= codec.bound(rows) <= 40 * largest
    assert largest > 100
