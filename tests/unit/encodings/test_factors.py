import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.hashes import content_hash
from git_theta.encodings.factors import Arithmetic, Factors, Matrix, predict
from git_theta.encodings.float_formats import FORMATS, narrow
from tests.support.weights import NUMPY, gaussian, lora, merged

SINGLE = FORMATS["F32"]


def words(array):
    array = np.ascontiguousarray(array)
    return array.view(f"<u{array.itemsize}")


def made(shape, rank, arithmetic, seed=0, rounded=None):
    left, right = lora(shape, rank, seed)
    scales = np.random.default_rng(seed).random(rank) + 0.5
    matrices = (Matrix("F32", words(left.T)), Matrix("F32", words(right)))
    return Factors(*matrices, scales, arithmetic, rounded)


def single(number):
    """A Python float rounded to float32."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def by_hand(base, factors, i, j):
    """One element, with Python's own float64 arithmetic."""
    left, right = factors.left.values(), factors.right.values()
    total = 0.0
    for k, scale in enumerate(factors.scales.tolist()):
        a, b = float(left[k, i]), float(right[k, j])
        if factors.arithmetic == Arithmetic.DOUBLE:
            total += (a * scale) * b
        elif factors.arithmetic == Arithmetic.SINGLE:
            total = single(total + single(single(a * scale) * b))
        else:
            total = single(total + a * b)
    if factors.arithmetic == Arithmetic.FUSED:
        total = single(total * single(float(factors.scales[0])))
    return single(float(base[i, j]) + total)


@pytest.mark.parametrize("arithmetic", list(Arithmetic))
@pytest.mark.parametrize("seed", range(5))
def test_is_the_documented_arithmetic(arithmetic, seed):
    base, factors = gaussian((4, 6), "F32", seed), made((4, 6), 5, arithmetic, seed)
    got = predict(words(base), factors, SINGLE).view(np.float32)
    expected = [[by_hand(base, factors, i, j) for j in range(6)] for i in range(4)]
    assert got.tolist() == expected


def test_fused_is_what_a_fused_multiply_add_gives():
    base, factors = np.zeros((8, 8), np.float32), made((8, 8), 8, Arithmetic.FUSED)
    left, right = factors.left.values(), factors.right.values()
    got = predict(words(base), factors, SINGLE).view(np.float32)
    for i, j in np.ndindex(8, 8):
        total = Fraction(0)
        for k in range(8):
            exact = Fraction(float(left[k, i])) * Fraction(float(right[k, j])) + total
            total = Fraction(float(np.float32(float(exact))))
        assert got[i, j] == np.float32(float(total)) * np.float32(factors.scales[0])


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_fused_is_as_near_to_the_sum_as_a_matrix_routine(rank):
    """Routines differ between CPUs in the order of additions; the bound holds for each of them."""
    left, right = lora((200, 300), rank, 1)
    factors = Factors(
        Matrix("F32", words(left.T)), Matrix("F32", words(right)), np.full(rank, 2.0), Arithmetic(2)
    )
    got = predict(words(np.zeros((200, 300), np.float32)), factors, SINGLE).view(np.float32)
    bound = rank * np.finfo(np.float32).eps * (np.abs(left) @ np.abs(right)) * 2
    assert (np.abs(got - (left @ right) * np.float32(2)) <= bound).all()
    assert rank > 1 or np.array_equal(got, (left @ right) * np.float32(2))


@settings(max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.sampled_from(Arithmetic),
    st.sampled_from(sorted(NUMPY)), st.integers(1, 2000),
)  # fmt: skip
def test_neither_block_nor_slice_changes_a_bit(rows, columns, rank, arithmetic, dtype, block):
    base = words(gaussian((rows, columns), dtype, rows))
    factors = made((rows, columns), rank, arithmetic, columns)
    whole = predict(base, factors, FORMATS[dtype])
    assert np.array_equal(predict(base, factors, FORMATS[dtype], block), whole)
    cut = slice(rows // 3, rows // 3 + max(1, rows // 2))
    assert np.array_equal(predict(base[cut], factors.rows(cut), FORMATS[dtype]), whole[cut])


def test_threads_change_no_bit():
    base = words(gaussian((300, 200), "F32", 0))
    factors = made((300, 200), 8, Arithmetic.DOUBLE)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda _: predict(base, factors, SINGLE).tobytes(), range(8))
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        (Arithmetic.DOUBLE, "1b2aee7e3cd8593d"),
        (Arithmetic.SINGLE, "0ba86bd22d9c8b84"),
        (Arithmetic.FUSED, "5b09a601dec75833"),
    ],
)
def test_the_same_bits_for_ever(arithmetic, expected):
    """Frozen: other bits here mean that objects stored before cannot be read."""
    base = (np.arange(35, dtype=np.float32).reshape(5, 7) - 17) / 13
    numbers = np.arange(1, 16, dtype=np.float32)
    left, right = numbers.reshape(3, 5) / 7, np.ones((3, 7), np.float32) / 3
    matrices = (Matrix("F32", words(left)), Matrix("F32", words(right)))
    factors = Factors(*matrices, np.array([0.1, 0.2, 0.3]), arithmetic)
    assert content_hash(predict(words(base), factors, SINGLE).tobytes())[:16] == expected


@pytest.mark.parametrize("rounded", ["BF16", "F16", "F32"])
def test_the_change_can_be_rounded_first(rounded):
    base, factors = gaussian((5, 9), "BF16", 1), made((5, 9), 3, Arithmetic.FUSED)
    zero = np.zeros((5, 9), np.float32)
    change = predict(words(zero), factors, SINGLE).view(np.float32)
    change = merged(np.zeros((5, 9), NUMPY[rounded]), change)
    expected = merged(base, change.astype(np.float32))
    factors = made((5, 9), 3, Arithmetic.FUSED, rounded=rounded)
    assert np.array_equal(predict(words(base), factors, FORMATS["BF16"]), words(expected))


def test_where_the_sum_is_nan_the_base_stays():
    payload = np.array([[0x7FC12345, 0xFF800000, 0x3F800000]], np.uint32)
    factors = Factors(
        Matrix("F32", words(np.array([[np.inf]], np.float32))),
        Matrix("F32", words(np.array([[1, 1, 2]], np.float32))),
        np.ones(1),
        Arithmetic.DOUBLE,
    )
    # NaN + inf, -inf + inf, 1 + inf
    assert predict(payload, factors, SINGLE).tolist() == [[0x7FC12345, 0xFF800000, 0x7F800000]]


@pytest.mark.parametrize("rounded", ["BF16", "F16", None])
def test_a_change_that_is_nan_leaves_the_base(rounded):
    base = np.array([[1.0, 2.0]], np.float32)
    # All bits set, this NaN would carry into its sign if it were rounded like a number.
    bits = np.array([[0x7FFFFFFF, 0x3F800000]], np.uint32)
    one = Matrix("F32", np.array([[0x3F800000]], np.uint32))
    factors = Factors(one, Matrix("F32", bits), np.ones(1), Arithmetic.FUSED, rounded)
    assert predict(words(base), factors, SINGLE).view(np.float32).tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_integers_take_the_shortest_words(bits):
    most = (1 << (bits - 1)) - 1
    numbers = np.array([[0, -1, 1, most, -most - 1]], np.int64)
    matrix = Matrix.of_integers(numbers)
    assert matrix.dtype == f"I{bits}"
    assert np.array_equal(matrix.values(), numbers.astype(np.float64))


def test_factors_of_every_dtype():
    for name, form in FORMATS.items():
        values = np.array([[0.5, -3.0]])
        assert Matrix(name, narrow(values, form)).values().tolist() == values.tolist()
