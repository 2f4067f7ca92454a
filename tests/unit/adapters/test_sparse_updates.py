import numpy as np
import pytest
from safetensors.numpy import save_file

from git_theta.adapters import Names, Parameter, read_sparse
from git_theta.adapters.stored import Stored
from git_theta.adapters.updates import Replacement
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Geometry
from git_theta.errors import FormatError, UsageError
from tests.support.weights import NUMPY, gaussian, raw

KNOWN = {"model.a": Parameter("F32", (4, 5)), "model.b": Parameter("I32", (7,))}


@pytest.fixture
def write(tmp_path):
    """Writes a file of an update; a tensor given as ``None`` is left out."""

    def write(**changes):
        tensors = {
            "a.indices": np.array([19, 0, 7]),
            "a.values": np.array([1, 2, 3], np.float32),
        } | {name.replace("__", "."): it for name, it in changes.items()}
        path = tmp_path / "update.safetensors"
        save_file({name: it for name, it in tensors.items() if it is not None}, path)
        return path

    return write


def test_gives_elements_new_values(write):
    path = write(b__indices=np.array([6]), b__values=np.array([-5], np.int32))
    updates = {it.parameter: it for it in read_sparse(path, Names(KNOWN))}
    base = gaussian((4, 5), "F32", 0)
    expected = base.copy()
    expected.reshape(-1)[[19, 0, 7]] = [1, 2, 3]
    assert updates["model.a"].apply(raw(base), "F32", (4, 5)).tobytes() == expected.tobytes()
    numbers = np.arange(7, dtype=np.int32)
    result = updates["model.b"].apply(raw(numbers), "I32", (7,))
    assert result.view(np.int32).tolist() == [0, 1, 2, 3, 4, 5, -5]
    assert numbers[6] == 6


def test_has_no_encoding_of_its_own(write):
    (update,) = read_sparse(write(), Names(KNOWN))
    data = raw(gaussian((4, 5), "F32", 0))
    shape = Geometry(dtype("F32"), (4, 5))
    whole = Replacement("model.a", Stored("F32", np.zeros((4, 5), np.uint32)))
    for it in (update, whole):
        assert it.encoding is None
        assert it.encode(data, data, shape) is None


def test_no_changes_at_all(write):
    path = write(a__indices=np.zeros(0, np.int64), a__values=np.zeros(0, np.float32))
    (update,) = read_sparse(path, Names(KNOWN))
    data = raw(gaussian((4, 5), "F32", 0))
    assert update.apply(data, "F32", (4, 5)).tobytes() == data.tobytes()


def test_values_are_rounded_to_the_parameters_dtype(write):
    known = {"a": Parameter("BF16", (20,))}
    (update,) = read_sparse(write(a__values=np.array([0.1, 0.2, 0.3])), Names(known))
    expected = np.array([0.1, 0.2, 0.3], np.float32).astype(NUMPY["BF16"])
    assert update.values.words.tobytes() == expected.tobytes()


def test_a_nan_of_the_same_dtype_is_kept(write):
    values = np.array([0x7F800001, 0xFFC12345, 0], np.uint32).view(np.float32)
    (update,) = read_sparse(write(a__values=values), Names(KNOWN))
    assert update.values.words.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"a__values": None}, "lacks its indices or its values"),
        ({"a__indices": None}, "lacks its indices or its values"),
        ({"a": np.zeros(3)}, "lacks its indices or its values"),
        ({"a__indices": np.array([1, 2])}, "indices of"),
        ({"a__values": np.zeros((3, 1), np.float32)}, "indices of"),
        ({"a__indices": np.array([1, 2, 3], np.int32)}, "not a vector of int64"),
        ({"a__indices": np.array([[1, 2, 3]])}, "not a vector of int64"),
        ({"a__indices": np.array([1, 2, 1])}, "twice"),
        ({"a__values": np.array([np.nan, 0, 0])}, "must be numbers"),
    ],
)
def test_indices_and_values_that_do_not_fit(write, changes, error):
    path = write(**changes)
    with pytest.raises(FormatError, match=error) as caught:
        read_sparse(path, Names(KNOWN))
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"a__indices": np.array([1, 2, 20])}, "beyond the 20 elements"),
        ({"a__indices": np.array([1, 2, -1])}, "beyond the 20 elements"),
        ({"a__values": np.zeros(3, np.int32)}, "F32, but its new values are I32"),
        ({"c__indices": np.array([1]), "c__values": np.zeros(1)}, "no tensor for c"),
    ],
)
def test_an_update_of_another_model(write, changes, error):
    path = write(**changes)
    with pytest.raises(UsageError, match=error) as caught:
        read_sparse(path, Names(KNOWN))
    assert caught.value.path == str(path)


def test_a_name_can_be_left_out_or_mapped(write):
    path = write()
    assert read_sparse(path, Names(KNOWN, {"a": ""})) == []
    other = {"odd": Parameter("F32", (20,))}
    assert read_sparse(path, Names(other, {"a": "odd"}))[0].parameter == "odd"
    with pytest.raises(UsageError, match="no tensor is called even"):
        read_sparse(path, Names(other, {"a": "even"}))


def test_a_file_that_holds_no_tensors(tmp_path):
    path = tmp_path / "update.safetensors"
    path.write_bytes(b"{}")
    with pytest.raises(FormatError):
        read_sparse(path, Names(KNOWN))
    with pytest.raises(UsageError, match="No such file"):
        read_sparse(tmp_path / "nowhere", Names(KNOWN))
