import pytest

from git_theta.adapters import Names, Parameter
from git_theta.errors import UsageError


def names(*known, **renamed):
    return Names({name: Parameter("F32", (2, 2)) for name in known}, renamed)


def test_the_exact_name_wins():
    assert names("a.b", "x.a.b", "b").find("a.b") == "a.b"


@pytest.mark.parametrize(
    ("known", "wanted"),
    [("x.a.b", "a.b"), ("a.b", "x.a.b"), ("b", "x.a.b")],
)
def test_the_only_one_that_ends_alike(known, wanted):
    assert names(known, "other").find(wanted) == known


@pytest.mark.parametrize("known", ["xa.b", "a.bx", "a.b.c", "x.y.b"])
def test_ends_are_whole_components(known):
    with pytest.raises(UsageError, match=r"no tensor for a\.b"):
        names(known).find("a.b")


def test_several_that_end_alike_are_all_listed():
    known = [f"x{i}.a.b" for i in range(9)]
    with pytest.raises(UsageError) as error:
        names(*known).find("a.b")
    assert str(error.value).count("\n    x") == 5
    assert "and 4 more" in str(error.value)


def test_candidates_differ_little():
    with pytest.raises(UsageError) as error:
        names("h.0.attn.c_attn.weight", "h.0.mlp.weight").find("h.0.attn.cattn.weight")
    assert "    h.0.attn.c_attn.weight\n" in str(error.value)
    with pytest.raises(UsageError) as error:
        names("something.else").find("q.w")
    assert "candidates" not in str(error.value)


def test_the_longest_old_name_wins():
    found = names("n.w", "m.w", **{"a": "m", "a.b": "n", "a.b.c": ""})
    assert found.find("a.w") == "m.w"
    assert found.find("a.b.w") == "n.w"
    assert found.find("a.b.c.w") is None
    assert found.find("a.b.c") is None


def test_a_mapped_name_must_be_there():
    with pytest.raises(UsageError, match=r"no tensor is called n\.w"):
        names("m.n.w", a="n").find("a.w")
    # A part of a component is no name.
    assert names("ab.w", a="n").find("ab.w") == "ab.w"
