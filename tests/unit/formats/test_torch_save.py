"""Files that torch itself writes: every tensor is found, and read back from its span alone."""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from git_theta.core.dtypes import DTYPES
from git_theta.core.files import FileSource
from git_theta.core.layout import Layout
from git_theta.formats import scan
from git_theta.testing.formats import MemorySource
from tests.support.formats import tensor_bytes

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def read(data: bytes) -> Layout:
    layout, warning = scan(MemorySource(data), "checkpoint.pt")
    assert warning is None
    return layout


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().clone(memory_format=torch.contiguous_format).untyped_storage()
    return bytes(flat)


def check(value: Any, expected: dict[str, torch.Tensor], **options: Any) -> Layout:
    """Every expected tensor is named and has its bits, and nothing else is named.

    In a zip file, and as before PyTorch 1.6.
    """
    for is_zip in (False, True):
        data = saved(value, _use_new_zipfile_serialization=is_zip, **options)
        layout = read(data)
        names = {it.name for it in (*layout.spans, *layout.aliases)}
        assert names == set(expected)
        for name, tensor in expected.items():
            assert tensor_bytes(data, layout, name) == bits(tensor), name
    return layout


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        self.head = torch.nn.Linear(4, 3, bias=False)
        self.head.weight = torch.nn.Parameter(self.body[0].weight.detach().t())
        self.embedding = torch.nn.Embedding(5, 3)
        self.tied = torch.nn.Linear(3, 5, bias=False)
        self.tied.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.head(self.body(x)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_training_checkpoint(protocol: int):
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    value = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, seen=torch.arange(3), path=Path("x")),
        "epoch": 3,
    }
    expected = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        expected |= {f"optimizer.state.{number}.{name}": it for name, it in state.items()}
    expected["args.seen"] = torch.arange(3)
    layout = check(value, expected, pickle_protocol=protocol)
    assert {alias.name: alias.of for alias in layout.aliases} == {
        "model.tied.weight": "model.embedding.weight",
        "model.head.weight": "model.body.0.weight",
    }


def test_a_whole_module_has_the_names_of_its_state_dict():
    net = Net()
    check(net, dict(net.state_dict()))


def test_parameters_views_and_slices():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    value = [torch.nn.Parameter(base), (base[1:], base.t()), {"x": base[::2, 1::2], 0: base[1, 2]}]
    expected = {
        "0": base,
        "1.0": base[1:],
        "1.1": base.t(),
        "2.x": base[::2, 1::2],
        "2.0": base[1, 2],
    }
    layout = check(value, expected)
    assert [span.name for span in layout.spans] == ["0"]


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.arange(6.0)[2:4], id="slice"),
        pytest.param(torch.arange(6.0).reshape(2, 3).t(), id="transposed"),
        pytest.param(torch.ones(1).expand(3, 2), id="expanded"),
        pytest.param(torch.tensor(2.5), id="0-d"),
        pytest.param(torch.zeros(0, 3), id="empty"),
        pytest.param(torch.arange(6.0)[:0], id="empty slice"),
        pytest.param(torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), id="channels"),
    ],
)
def test_one_tensor(tensor: torch.Tensor):
    check(tensor, {"tensor": tensor})


@pytest.mark.parametrize(
    ("torch_dtype", "name"),
    [
        (torch.float64, "F64"),
        (torch.float32, "F32"),
        (torch.float16, "F16"),
        (torch.bfloat16, "BF16"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.float8_e5m2, "F8_E5M2"),
        (torch.float8_e8m0fnu, "F8_E8M0"),
        (torch.float8_e4m3fnuz, "F8_E4M3FNUZ"),
        (torch.float8_e5m2fnuz, "F8_E5M2FNUZ"),
        (torch.float4_e2m1fn_x2, "F4"),
        (torch.int64, "I64"),
        (torch.int32, "I32"),
        (torch.int16, "I16"),
        (torch.int8, "I8"),
        (torch.uint64, "U64"),
        (torch.uint32, "U32"),
        (torch.uint16, "U16"),
        (torch.uint8, "U8"),
        (torch.bool, "BOOL"),
        (torch.complex64, "C64"),
        (torch.complex128, "C128"),
    ],
)
def test_same_names_and_bytes_as_safetensors(torch_dtype: torch.dtype, name: str):
    from safetensors.torch import save

    raw = torch.arange(64, dtype=torch.uint8).reshape(4, 16) % 2
    weights = {"w": raw.view(torch_dtype), "v": raw[2].clone().view(torch_dtype)}
    ours = saved(weights)
    if torch_dtype is torch.complex128:  # which the safetensors library does not write
        assert {span.dtype for span in read(ours).spans} == {name}
        return
    theirs = save(weights)
    described = []
    for data in (ours, theirs):
        layout, warning = scan(MemorySource(data), "model")
        assert warning is None
        described.append(
            {
                span.name: (
                    span.dtype,
                    span.shape,
                    span.strides,
                    data[span.start : span.start + span.length],
                )
                for span in layout.spans
            }
        )
    assert described[0] == described[1]
    assert described[0]["w"][0] == name
    assert described[0]["w"][3] == raw.numpy().tobytes()


def test_every_dtype_that_torch_can_save_is_kept():
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    tensors = {}
    for dtype in sorted(dtypes, key=str):
        try:
            tensor = torch.zeros(16, dtype=torch.uint8).view(dtype)
            saved(tensor)
        except (KeyError, RuntimeError, NotImplementedError):
            continue
        tensors[str(dtype)] = tensor
    assert len(tensors) > 20
    layout = read(saved(tensors))
    assert [span.length for span in layout.spans] == [16] * len(tensors)
    unknown = {span.name for span in layout.spans if span.dtype not in DTYPES}
    # Every kind of number that is merged is known.
    prefixes = ("torch.complex32", "torch.qint", "torch.quint", "torch.bits")
    assert [name for name in unknown if not name.startswith(prefixes)] == []
    assert len(unknown) > 4


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (torch.sparse_coo, ["indices", "values"]),
        (torch.sparse_csr, ["crow_indices", "col_indices", "values"]),
        (torch.sparse_csc, ["ccol_indices", "row_indices", "values"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_tensors(layout: torch.layout, parts: list[str]):
    sparse = torch.eye(3).to_sparse(layout=layout)
    found = [span.name for span in read(saved({"s": sparse})).spans]
    assert found == [f"s.{part}" for part in parts]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensors_that_are_more_than_a_view():
    quantized = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    conjugate = torch.ones(3, dtype=torch.complex64).conj()
    meta = torch.zeros(3, device="meta")
    layout = read(saved({"q": quantized, "n": nested, "c": conjugate, "m": meta}))
    found = {span.name: span.dtype for span in layout.spans}
    assert found == {
        "q": "QUINT8",
        "n.0": "F32",
        "n.1": "I64",
        "n.2": "I64",
        "n.3": "I64",
        "c": "C64_LAZY",
    }


class Tagged(torch.nn.Parameter):
    pass


def test_subclasses_and_attributes():
    tagged = Tagged(torch.ones(2))
    noted = torch.nn.Parameter(torch.ones(3))
    noted.note = torch.zeros(4)
    expected = {"tagged": tagged, "noted": noted, "noted.note": noted.note}
    check({"tagged": tagged, "noted": noted}, expected)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_on_their_own():
    layout = read(saved({"typed": torch.ones(3).storage(), "raw": torch.ones(3).untyped_storage()}))
    assert [(it.name, it.dtype, it.shape) for it in layout.spans] == [
        ("typed", "F32", (3,)),
        ("raw", "U8", (12,)),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_archives():
    buffer = io.BytesIO()
    net = Net()
    torch.jit.save(torch.jit.trace(net, torch.ones(2, 3)), buffer)
    data = buffer.getvalue()
    layout = read(data)
    assert tensor_bytes(data, layout, "body.0.weight") == bits(net.body[0].weight)
    assert {it.name for it in (*layout.spans, *layout.aliases)} >= set(net.state_dict())


def test_files_of_a_chosen_folder_and_without_checksums(tmp_path: Path):
    path = tmp_path / "my model.ckpt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with FileSource(path) as source:
        layout, warning = scan(source, path.name)
    assert warning is None
    assert tensor_bytes(path.read_bytes(), layout, "w") == bits(torch.arange(3))


def test_records_beyond_four_gigabytes(tmp_path: Path):
    path = tmp_path / "large.pt"
    with torch.serialization.skip_data():  # leaves a hole in the file for every storage
        torch.save({"large": torch.empty(5 << 30, dtype=torch.int8), "after": torch.ones(3)}, path)
    with FileSource(path) as source:
        layout, warning = scan(source, path.name)
    assert warning is None
    large, after = layout.spans
    assert (large.length, after.length) == (5 << 30, 12)
    assert after.start > 5 << 30
