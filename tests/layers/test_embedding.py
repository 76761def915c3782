"""`Embedding`: lookup and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)


def table(count: int = 5, size: int = 3, padding_idx: int | None = None) -> nn.Embedding:
    return nn.Embedding(count, size, padding_idx, rng=0).astype(np.float64)


def test_each_index_becomes_its_row() -> None:
    embedding = nn.Embedding(3, 2)
    embedding.weight.data = [[0, 1], [10, 11], [20, 21]]
    y = embedding(np.array([[2, 0], [1, 2]]))
    assert_array_equal(y, [[[20, 21], [0, 1]], [[10, 11], [20, 21]]])
    assert_array_equal(embedding([1, 1]), [[10, 11], [10, 11]])
    assert_array_equal(embedding(np.int64(1)), [10, 11])


def test_a_row_gets_the_sum_of_the_gradients_of_its_places() -> None:
    embedding = table(4, 2)
    embedding(np.array([[3, 1], [3, 3]]))
    assert embedding.backward(np.array([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]])) is None
    assert_array_equal(embedding.weight.grad, [[0, 0], [3, 4], [0, 0], [13, 16]])


@given(shape=shapes, count=st.integers(1, 5), size=st.integers(1, 4))
def test_every_gradient_agrees_with_central_differences(
    shape: tuple[int, ...], count: int, size: int
) -> None:
    indices = np.random.default_rng(0).integers(count, size=shape)
    nn.gradcheck(table(count, size), indices).raise_if_failed()


@given(shape=shapes, count=st.integers(1, 5), size=st.integers(1, 4))
def test_it_is_a_linear_layer_of_one_hot_rows(
    shape: tuple[int, ...], count: int, size: int
) -> None:
    rng = np.random.default_rng(0)
    indices, grad = rng.integers(count, size=shape), rng.normal(size=(*shape, size))
    embedding, linear = table(count, size), nn.Linear(count, size, bias=False).astype(np.float64)
    linear.weight.data = embedding.weight.data.T
    assert_allclose(embedding(indices), linear(np.eye(count)[indices]), rtol=1e-15)
    embedding.backward(grad)
    linear.backward(grad)
    assert_allclose(embedding.weight.grad, linear.weight.grad.T, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("padding_idx", [1, -3])
def test_padding_begins_with_zeros_and_gets_no_gradient(padding_idx: int) -> None:
    embedding = table(4, 2, padding_idx)
    assert_array_equal(embedding.weight.data[1], [0, 0])
    assert (embedding.weight.data[[0, 2, 3]] != 0).all()
    indices = np.array([1, 0, 1, 3])
    assert_array_equal(embedding(indices)[[0, 2]], np.zeros((2, 2)))
    embedding.backward(np.ones((4, 2)))
    assert_array_equal(embedding.weight.grad, [[1, 1], [0, 0], [0, 0], [1, 1]])


def test_padding_stays_zero_while_the_rest_learns() -> None:
    model = nn.Sequential(nn.Embedding(4, 3, padding_idx=0, rng=0), nn.Linear(3, 2, rng=0))
    before = model.state_dict()["0.weight"]
    optimizer = nn.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        y = model(np.array([[0, 1], [2, 0]]))
        optimizer.zero_grad()
        model.backward(np.ones_like(y))
        optimizer.step()
    after = model.state_dict()["0.weight"]
    assert_array_equal(after[[0, 3]], before[[0, 3]])
    assert (after[[1, 2]] != before[[1, 2]]).all()


def test_initial_values_are_standard_normal() -> None:
    # 40,000 draws: mean and deviation are known to 1/200 and 1/283.
    values = nn.Embedding(400, 100, rng=0).weight.data
    assert values.dtype == np.float32
    assert abs(values.mean()) < 5 / 200
    assert abs(values.std() - 1) < 5 / 283
    assert_array_equal(values, nn.Embedding(400, 100, rng=0).weight.data)
    assert (values != nn.Embedding(400, 100, rng=1).weight.data).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", ">i4"])
def test_every_integer_dtype_is_taken(dtype: str) -> None:
    indices = np.array([[4, 0], [2, 2]])
    embedding, reference = table(), table()
    assert_array_equal(embedding(indices.astype(dtype)), reference(indices))
    embedding.backward(np.ones((2, 2, 3)))
    reference.backward(np.ones((2, 2, 3)))
    assert_array_equal(embedding.weight.grad, reference.weight.grad)


def test_more_indices_than_a_small_integer_can_count() -> None:
    embedding = nn.Embedding(3, 2, rng=0)
    indices = np.zeros(1000, np.int8)
    indices[::4] = 2
    embedding(indices)
    embedding.backward(np.ones((1000, 2)))
    assert_array_equal(embedding.weight.grad[:, 0], [750, 0, 250])


def test_a_frozen_table_takes_no_gradient() -> None:
    embedding = table()
    embedding.weight.requires_grad = False
    embedding.backward(np.ones_like(embedding(np.array([1, 2]))))
    assert embedding.weight.grad is None


@pytest.mark.parametrize("wrong", [5, 100, -1, -6])
@pytest.mark.parametrize("dtype", [np.int64, np.int8])
def test_an_index_out_of_range_is_an_error_that_names_it(wrong: int, dtype: Any) -> None:
    embedding = table()
    y = embedding(np.array([1, 2]))
    message = rf"^Embedding\(5, 3\): indices must be in \[0, 5\), got {wrong}$"
    with pytest.raises(ValueError, match=message):
        embedding(np.array([[0, 4], [wrong, 0]], dtype))
    embedding.backward(np.ones_like(y))  # of the forward before
    assert_array_equal(np.flatnonzero(embedding.weight.grad[:, 0]), [1, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_, object, np.complex64, "U1"])
def test_indices_that_are_not_integers_are_an_error(dtype: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^Embedding\(5, 3\): expected indices of an integer dtype"
    ):
        table()(np.ones((2, 2)).astype(dtype))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_no_indices_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^Embedding\(5, 3\): the input is empty"):
        table()(np.zeros(shape, np.int64))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 3), ValueError, "num_embeddings must be at least 1, got 0"),
        ((3, 0), ValueError, "embedding_dim must be at least 1, got 0"),
        ((2.0, 3), TypeError, "num_embeddings must be an int, got 2.0"),
        ((3, "2"), TypeError, "embedding_dim must be an int, got '2'"),
        ((3, 2, 3), ValueError, "padding_idx must be below 3, got 3"),
        ((3, 2, -4), ValueError, "padding_idx must be at least -3, got -4"),
        ((3, 2, 0.5), TypeError, "padding_idx must be an int, got 0.5"),
    ],
    ids=str,
)
def test_options_out_of_range_are_an_error(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^Embedding: {message}$"):
        nn.Embedding(*arguments)


def test_repr_shows_the_padding() -> None:
    assert repr(nn.Embedding(5, 3)) == "Embedding(5, 3)"
    assert repr(nn.Embedding(5, 3, -1)) == "Embedding(5, 3, padding_idx=4)"
