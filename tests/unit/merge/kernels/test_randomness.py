"""Random numbers of elements: the definition, its statistics, and what they depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.merge.kernels.randomness import uniform
from tests.support import reference_merge as reference

CPU = torch.device("cpu")
RUN = 1 << 20


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**63 - 1),
    name=st.text(st.characters(), max_size=20),
    content=st.text("0123456789abcdef", max_size=64),
    start=st.sampled_from([0, 1, RUN - 5, 3 * RUN - 1, (1 << 40) + 7]),
)
def test_is_what_the_definition_says(seed: int, name: str, content: str, start: int) -> None:
    numbers = uniform(seed, name, content, start, 9, CPU).tolist()
    assert numbers == [reference.uniform(seed, name, content, start + n) for n in range(9)]


def test_the_definition_stays() -> None:
    """Frozen: other numbers would make old recipes irreproducible."""
    numbers = uniform(0, "w", "", RUN - 2, 4, CPU) * 2**24
    assert numbers.tolist() == [15264594, 12352527, 8721411, 13811085]


def test_slices_of_it_are_itself() -> None:
    whole = uniform(1, "w", "c", RUN - 100, 300, CPU)
    parts = [uniform(1, "w", "c", RUN - 100 + n, 50, CPU) for n in range(0, 300, 50)]
    assert torch.equal(torch.cat(parts), whole)
    assert uniform(1, "w", "c", 5, 0, CPU).shape == (0,)


@pytest.mark.parametrize("other", [(2, "w", "c"), (1, "v", "c"), (1, "w", "d"), (1, "wc", "")])
def test_another_seed_name_or_content_gives_independent_numbers(
    other: tuple[int, str, str],
) -> None:
    first = uniform(1, "w", "c", 0, 100_000, CPU).double() - 0.5
    second = uniform(*other, 0, 100_000, CPU).double() - 0.5
    # The correlation of independent numbers has a standard deviation of 1/sqrt(n) = 0.003.
    assert abs(float((first * second).mean()) * 12) < 0.015


@pytest.mark.parametrize("lag", [1, 2, 256, 4096, RUN])
def test_is_not_correlated_with_itself(lag: int) -> None:
    first = uniform(7, "w", "c", 0, 200_000, CPU).double() - 0.5
    second = uniform(7, "w", "c", lag, 200_000, CPU).double() - 0.5
    assert abs(float((first * second).mean()) * 12) < 0.01


def test_is_uniform() -> None:
    numbers = uniform(3, "w", "c", 0, RUN, CPU)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    counts = torch.histc(numbers, 256, 0, 1).double()
    expected = RUN / 256
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: 255 +- 5 standard deviations of 22.6.
    assert 142 < chi_squared < 368


def test_odd_names_are_names() -> None:
    assert uniform(0, "\udcff", "c", 0, 1, CPU).shape == (1,)
