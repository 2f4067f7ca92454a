"""The compiled kernels give the bits of the reference, on ordinary and on hostile input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from git_theta.core import kernels
from git_theta.core.kernels import Coded, Flaw, Literals, Model, merging, native, reference

SIZES = [1, 2, 4, 8]
COUNTS = [1, 7, 4096, 4097, 20_001]
COMPILED = None if os.environ.get("GIT_THETA_KERNELS") == "numpy" else kernels._native

needs_compiler = pytest.mark.skipif(COMPILED is None, reason="the kernels are not compiled here")


def words(size: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size * count, np.uint8).view(f"<u{size}")


def moved(old: np.ndarray, bits: int) -> np.ndarray:
    """Words whose differences are of every length up to ``bits``."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(64 - min(bits, 8 * old.itemsize), 65, old.size).astype(np.uint64)
    steps = rng.integers(0, 1 << 63, old.size, np.uint64) >> np.minimum(lengths, np.uint64(63))
    return old + np.where(lengths < 64, steps, 0).astype(old.dtype)


def model(new: np.ndarray, old: np.ndarray, lanes: int, literals: Literals | None) -> Model:
    """Four contexts by the highest bits, with frequencies of what is there."""
    shift, contexts = 8 * (old.itemsize - 1), np.repeat(np.arange(4, dtype=np.uint8), 64)
    found = reference.tokenize(new, old, shift, literals).counts.reshape(4, 64, -1).sum(axis=1)
    counts = np.zeros((4, kernels.TOKENS), np.int64)
    counts[:, : found.shape[1]] = found
    frequencies = np.where(counts > 0, np.maximum(counts * 3000 // max(1, counts.max()), 1), 0)
    frequencies = np.minimum(frequencies, 4000 // np.maximum(1, (counts > 0).sum(1))[:, None])
    frequencies[np.arange(4), counts.argmax(axis=1)] += 4096 - frequencies.sum(axis=1)
    return Model(shift, contexts, frequencies.astype(np.uint16), lanes, literals)


def raw_bits(new: np.ndarray, old: np.ndarray, literals: Literals | None) -> int:
    counts = reference.tokenize(new, old, 0, literals).counts.sum(axis=0)
    return sum(int(n) * max(0, (t - 16) // 2 - 1) for t, n in enumerate(counts))


def code(by, new, old, lanes, literals=None) -> tuple[Model, np.ndarray, Coded]:
    chosen = model(new, old, lanes, literals)
    tables = by.tables(chosen.frequencies)
    bits = raw_bits(new, old, literals)
    tokens = by.tokenize(new, old, chosen.shift, literals)
    coded = by.encode(tokens, chosen, tables.ranges, new.size + 1, bits)
    assert coded is not None
    return chosen, tables.slots, coded


def frozen(coded: Coded) -> tuple[bytes, bytes, bytes]:
    return coded.states.tobytes(), coded.words.tobytes(), coded.bits.tobytes()


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, *COUNTS])
def test_planes_and_differences_are_the_references(size: int, count: int) -> None:
    new, old = words(size, count), words(size, count, 1)
    found, expected = np.empty_like(new), np.empty_like(new)
    for act in ("difference", "restore"):
        getattr(COMPILED, act)(new, old, found)
        getattr(reference, act)(new, old, expected)
        np.testing.assert_array_equal(found, expected)
    mixed = np.where(old % 3 == 0, new, old)
    changed = int(np.count_nonzero(mixed != old))
    for by in (COMPILED, reference):
        assert by.count_changed(mixed, old, count) == changed
        assert count < 20_000 or by.count_changed(mixed, old, 10) > 10
    for exponent in (0, 1, 8 * size // 2, 8 * size - 1) if size > 1 else ():
        cut = np.empty((2, size, count), np.uint8)
        for by, planes in zip((COMPILED, reference), cut, strict=True):
            by.split(new, exponent, planes)
            by.join(list(planes), exponent, found)
            np.testing.assert_array_equal(found, new)
        np.testing.assert_array_equal(*cut)


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lanes", [1, 16, 4096])
def test_coded_differences_are_the_references(size: int, count: int, lanes: int) -> None:
    old = words(size, count)
    for bits in (0, 3, 5, 8 * size):
        new = moved(old, bits)
        for literals in (None, Literals(np.arange(3, 35, 2, np.uint64))):
            for shift in (0, 8 * size - 8):
                np.testing.assert_array_equal(
                    COMPILED.tokenize(new, old, shift, literals).counts,
                    reference.tokenize(new, old, shift, literals).counts,
                )
            ours = code(COMPILED, new, old, lanes, literals)
            theirs = code(reference, new, old, lanes, literals)
            assert frozen(ours[2]) == frozen(theirs[2])
            np.testing.assert_array_equal(ours[1], theirs[1])
            out = np.zeros((2, count), new.dtype)
            assert COMPILED.decode(old, *ours, out[0]) is None
            assert reference.decode(old, *ours, out[1]) is None
            np.testing.assert_array_equal(out, [new, new])
            assert COMPILED.compare(old, *ours, new) is None


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
def test_words_at_odd_addresses_are_coded(size: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, 16_003, np.uint8)
    old, new = (data[at : at + 8000].view(f"<u{size}") for at in (1, 8001))
    out = np.zeros(8001, np.uint8)[1:].view(old.dtype)
    assert COMPILED.decode(old, *code(COMPILED, new, old, 16), out) is None
    np.testing.assert_array_equal(out, new)


@needs_compiler
def test_what_does_not_fit_is_declined_by_both() -> None:
    old = words(2, 5000)
    new = moved(old, 16)
    chosen = model(new, old, 16, None)
    ranges, bits = reference.tables(chosen.frequencies).ranges, raw_bits(new, old, None)
    tokens = reference.tokenize(new, old, chosen.shift, None)
    whole = reference.encode(tokens, chosen, ranges, 5000, bits)
    assert whole is not None
    for by in (COMPILED, reference):
        assert by.encode(tokens, chosen, ranges, whole.words.size - 1, bits) is None
    # Never more bits, and never a token without a frequency.
    assert COMPILED.encode(tokens, chosen, ranges, 6000, bits - 1) is None
    assert COMPILED.encode(tokens, chosen, np.zeros_like(ranges), 6000, bits) is None


def hostile(coded: Coded) -> list[Coded]:
    """What a stranger may make of coded differences."""
    states, stream, bits = coded.states, coded.words, coded.bits
    longer = np.concatenate([stream, np.zeros(1, np.uint16)])
    found = [Coded(states, kept, bits) for kept in (stream[:0], stream[1:], stream[:-1], longer)]
    found += [Coded(states, stream, kept) for kept in (bits[:0], bits[:-1], np.append(bits, bits))]
    found += [Coded(np.full_like(states, value), stream, bits) for value in (0, 1, 0xFFFFFFFF)]
    rng = np.random.default_rng(0)
    for _ in range(6):
        other = [rng.integers(0, 256, part.nbytes, np.uint8) for part in (states, stream, bits)]
        found.append(Coded(other[0].view("<u4"), other[1].view("<u2"), other[2]))
        found.append(Coded(states, other[1].view("<u2"), bits))
    return found


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lanes", [1, 16, 256])
def test_hostile_streams_are_judged_alike(size: int, lanes: int) -> None:
    old, flaws = words(size, 9001), []
    new = moved(old, 8 * size)
    chosen, slots, coded = code(reference, new, old, lanes)
    for attack in hostile(coded):
        out = np.zeros_like(old)
        found = COMPILED.decode(old, chosen, slots, attack, out)
        assert found is reference.decode(old, chosen, slots, attack, np.zeros_like(old))
        flaws.append(found)
    assert {Flaw.CUT_OFF, Flaw.LEFT_OVER} <= set(flaws)


@needs_compiler
def test_differences_that_are_too_large_for_a_word_are_refused() -> None:
    old = words(4, 9001)
    chosen, slots, coded = code(reference, moved(old, 32), old, 16)
    narrow = old.astype("<u2")
    judged = [
        by.decode(narrow, chosen_for(chosen), slots, coded, narrow.copy())
        for by in (COMPILED, reference)
    ]
    assert judged == [Flaw.TOO_LARGE, Flaw.TOO_LARGE]


def chosen_for(wide: Model) -> Model:
    return Model(8, wide.contexts, wide.frequencies, wide.lanes)


@needs_compiler
def test_every_wrong_word_is_told() -> None:
    old = words(2, 9001)
    new = moved(old, 4)
    coded = code(COMPILED, new, old, 16)
    for place in (0, 4096, 9000):
        other = new.copy()
        other[place] ^= 1
        assert COMPILED.compare(old, *coded, other) is Flaw.DIFFERENT


@pytest.mark.parametrize("wanted", ["numpy", "compiled"])
def test_the_environment_chooses_numpy(wanted: str) -> None:
    if wanted == "compiled" and COMPILED is None:
        pytest.skip("the kernels are not compiled here")
    environment = dict(os.environ)
    if wanted == "numpy":
        environment["GIT_THETA_KERNELS"] = "numpy"
    shown = subprocess.run(
        [sys.executable, "-m", "git_theta", "--version"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"({wanted} kernels)" in shown.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("text", ["int theta_abi(void) { return 0; }", "int other;"])
def test_a_library_of_another_version_is_left_aside(text: str, tmp_path: Path) -> None:
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    assert native.load(library) is None


def test_what_is_no_library_is_left_aside(tmp_path: Path) -> None:
    assert native.load(tmp_path / "nothing.so") is None
    (tmp_path / "garbage.so").write_bytes(b"no library")
    assert native.load(tmp_path / "garbage.so") is None


def test_what_the_package_offers() -> None:
    members = vars(kernels).items()
    public = {
        name for name, value in members if name[0] != "_" and not isinstance(value, ModuleType)
    }
    imported = {"annotations", "Sequence", "Bytes", "Words", "Tables"}
    assert public - imported <= set(kernels.__all__)


@pytest.mark.parametrize("by", [merging, pytest.param(COMPILED, marks=needs_compiler)])
@pytest.mark.parametrize("count", COUNTS)
def test_tally_counts_high_halves_and_finds_words_with_a_low_one(by, count):
    numbers = words(4, count) & np.where(words(1, count, 1) < 40, 0xFFFFFFFF, 0xFFFF0000)
    numbers = numbers.astype("<u4")
    keys, counts, exact = by.tally(numbers, count)
    sizes = numbers & 0x7FFFFFFF
    every = np.bincount(sizes >> 16, minlength=1 << 15)
    assert np.array_equal(keys, np.flatnonzero(every))
    assert np.array_equal(counts, every[keys])
    wanted = sizes[(sizes & 0xFFFF) != 0]
    assert np.array_equal(exact, wanted)
    assert np.array_equal(by.tally(numbers, wanted.size)[2], wanted)
    assert not wanted.size or by.tally(numbers, wanted.size - 1)[2] is None


@pytest.mark.parametrize("by", [merging, pytest.param(COMPILED, marks=needs_compiler)])
def test_tally_of_a_few_bins_wherever_they_are(by):
    bits = [0, 1 << 31, 0x7F80, 0xFFFF_0000, 0x3F80_0000, 0xBF80_0001, 0x3F80_0000]
    for numbers in (bits, bits[:2], bits[2:3], bits[3:4], bits[4:], bits * 9):
        sizes = np.array(numbers, np.uint32) & 0x7FFFFFFF
        keys, counts, exact = by.tally(np.array(numbers, np.uint32), len(numbers))
        assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == Counter(sizes >> 16)
        assert exact.tolist() == [size for size in sizes if size & 0xFFFF]


@needs_compiler
@pytest.mark.parametrize("count", [1, 1023, 1024, 5000])
@pytest.mark.parametrize("number", [1, 2, 5, 17])
def test_agreeing_means_have_the_bits_of_the_reference(count, number):
    rng = np.random.default_rng(count)
    deltas = [(rng.integers(-8, 9, count) / 8).astype(np.float32) for _ in range(number)]
    for delta in deltas:
        delta[::11], delta[3::97] = -0.0, -np.inf
    limits = [(float(rng.integers(-1, 3)) / 2, int(rng.integers(-1, count))) for _ in deltas]
    weights = [float(weight) for weight in rng.random(number)]
    for normalize, electing in ((True, weights), (False, weights), (True, weights[::-1])):
        with np.errstate(invalid="ignore"):
            wanted = merging.agreeing_mean(deltas, limits, weights, normalize, electing)
        made = COMPILED.agreeing_mean(deltas, limits, weights, normalize, electing)
        equal = made.view(np.uint32) == wanted.view(np.uint32)
        assert (equal | (np.isnan(made) & np.isnan(wanted))).all()


@needs_compiler
@pytest.mark.parametrize("width", [1, 2, 4096, 5000])
def test_the_other_kernels_of_merging_have_the_bits_of_the_reference(width):
    rng = np.random.default_rng(width)
    numbers = (rng.integers(-8, 9, (3, width)) / 8).astype(np.float32)
    numbers[1] = rng.standard_normal(width)
    numbers[2, ::3] = np.inf
    values = rng.random(width).astype(np.float32)
    bits = numbers.view(np.uint32)
    assert np.array_equal(COMPILED.spread(bits, values), merging.spread(bits, values))
    keys = (int(rng.integers(1 << 32)), int(rng.integers(1 << 32)))
    made = COMPILED.uniform(77, width, keys)
    assert np.array_equal(made, merging.uniform(77, width, keys))
    assert 0 <= made.min() <= made.max() < 1
    for high, low in (((0.5, width // 2), (0.25, 1)), ((1.0, -1), (0.125, width - 1))):
        kept = COMPILED.between(numbers[0], high, low).view(np.uint32)
        assert np.array_equal(kept, merging.between(numbers[0], high, low).view(np.uint32))


def same_numbers(one, other):
    same = one.view(np.uint32) == other.view(np.uint32)
    return bool((same | (np.isnan(one) & np.isnan(other))).all())


@needs_compiler
@pytest.mark.parametrize("width", [1, 2, 63, 2048, 5000])
def test_ranks_in_rows_are_those_of_a_stable_sort(width):
    """Rows of bf16 numbers, of float32 numbers, of both, and of many that share their high half."""
    rng = np.random.default_rng(width)
    numbers = rng.standard_normal((9, width)).astype(np.float32)
    bits = numbers.view(np.uint32)
    bits[6] = (bits[6] & 0xFFFF0000) >> rng.choice([0, 8], width)
    bits[7], bits[8] = 0, 0x7FC00001
    bits[8, ::5] = 0x3F800000
    bits[0] &= 0xFFFF0000
    bits[1, rng.random(width) < 0.9] &= 0xFFFF0000
    bits[2] = 0x3F800000 | rng.integers(0, 1 << 16, width)
    bits[3] = 0x3F800000 | rng.integers(0, 4, width)
    numbers[4, ::3], numbers[4, 1::3] = np.nan, -np.nan
    numbers[5, ::2] = 0
    values = np.arange(width, dtype=np.float32)
    assert np.array_equal(COMPILED.spread(bits, values), merging.spread(bits, values))


@needs_compiler
@pytest.mark.parametrize(
    ("rows", "width", "first"), [(3, 100, 7), (2, 70_000, 3), (5, 2048, -5000)]
)
def test_thinning_by_rank_has_the_bits_of_the_reference(rows, width, first):
    """A row longer than 65,535 is sorted, and one lies over the end of a run of random numbers."""
    rng = np.random.default_rng(width)
    delta = rng.standard_normal((rows, width)).astype(np.float32)
    delta.view(np.uint32)[:] &= 0xFFFF0000
    keys = rng.integers(0, 1 << 32, (2, 2), np.uint32)
    chance = np.linspace(0.9, 0, width, dtype=np.float32)
    first %= kernels.RANDOM_RUN
    keys = keys[: -(-(first + delta.size) // kernels.RANDOM_RUN)]
    for divides in (False, True):
        made = COMPILED.thin_ranked(delta, chance, first, keys, divides)
        assert same_numbers(made, merging.thin_ranked(delta, chance, first, keys, divides))


@needs_compiler
@pytest.mark.parametrize("count", [1, 1023, 1024, 5000])
@pytest.mark.parametrize("number", [1, 2, 5, 17])
def test_active_elements_have_the_bits_of_the_reference(count, number):
    rng = np.random.default_rng(count)
    deltas = list((rng.integers(-2, 3, (number, count)) / 8).astype(np.float32))
    deltas[0][::7], deltas[-1][::5] = -0.0, np.inf
    gains = rng.random(number).tolist()
    for threshold in (0.0, 0.125, 1e-5):
        made = COMPILED.active_counts(deltas, threshold)
        assert np.array_equal(made, merging.active_counts(deltas, threshold))
        assert made[:, 0].max() > 0
        with np.errstate(invalid="ignore"):
            wanted = merging.active_mean(deltas, threshold, gains)
        assert same_numbers(COMPILED.active_mean(deltas, threshold, gains), wanted)


@needs_compiler
def test_differences_of_bf16_numbers_have_the_bits_of_the_reference():
    every = np.arange(1 << 16, dtype=np.uint16)
    for other in (every[::-1].copy(), np.roll(every, 1), np.full_like(every, 0x3F80)):
        with np.errstate(invalid="ignore", over="ignore"):
            wanted = merging.bf16_difference(every, other)
        assert same_numbers(COMPILED.bf16_difference(every, other), wanted)
    assert merging.bf16_difference(every[0x3F80:0x3F81], every[0x4000:0x4001]).tolist() == [-1.0]


@needs_compiler
@pytest.mark.parametrize("width", [0, 1, 2, 7, 4096, 5001])
def test_dot_products_of_rows_have_the_bits_of_the_reference(width):
    rng = np.random.default_rng(width)
    left, right = rng.standard_normal((2, 3, width)).astype(np.float32)
    assert np.array_equal(COMPILED.row_dots(left, right), merging.row_dots(left, right))


@needs_compiler
@pytest.mark.parametrize("count", [1, 1023, 2050])
def test_thinning_and_the_largest_have_the_bits_of_the_reference(count):
    rng = np.random.default_rng(count)
    deltas = list((rng.integers(-8, 9, (3, count)) / 8).astype(np.float32))
    deltas[0][::7], deltas[1][::5], deltas[2][::11] = -0.0, np.nan, -np.inf
    for number in (1, 2, 3):
        made = COMPILED.largest(deltas[:number])
        assert same_numbers(made, merging.largest(deltas[:number]))
    random, chance = rng.integers(0, 5, (2, count)).astype(np.float32) / 4
    for divides in (False, True):
        with np.errstate(invalid="ignore"):
            wanted = merging.thin(deltas[2], random, chance, divides)
        assert same_numbers(COMPILED.thin(deltas[2], random, chance, divides), wanted)
    one, other = np.float32([-2, 1, -1]), np.float32([1, -1, -3])
    assert merging.largest([one, other]).tolist() == [-2, 1, -3]
