"""What ``torch.distributed.checkpoint`` writes: zip files of ``torch.save``, end to end."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint

from git_theta.core import registry
from git_theta.errors import FormatError
from git_theta.formats import check_layout, scan, torch_probes
from git_theta.formats.torch_probes import archive_starts
from git_theta.testing.formats import MemorySource

FORMAT = registry.format_named("torch")


def _saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


PIECES = [
    _saved({"lr": 1e-3}),
    _saved(torch.arange(6.0).reshape(2, 3)),
    _saved({"a": torch.ones(5)}),
]
SERIES = b"".join(PIECES)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_every_tensor_of_a_model_with_its_optimizer_is_found(tmp_path: Path) -> None:
    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}
    checkpoint.save(state, checkpoint_id=tmp_path, no_dist=True)
    (file,) = tmp_path.glob("*.distcp")
    data = file.read_bytes()
    layout, warning = scan(MemorySource(data), file.name)
    assert (layout.format, warning) == ("torch", None)
    found = {data[span.start : span.start + span.length] for span in layout.spans}
    states = optimizer.state_dict()["state"].values()
    tensors = [*model.state_dict().values(), *(t for s in states for t in s.values())]
    assert {tensor.detach().numpy().tobytes() for tensor in tensors} <= found


def test_items_are_called_by_their_numbers() -> None:
    layout = FORMAT.scan(MemorySource(SERIES))
    check_layout(layout, len(SERIES))
    assert [(span.name, span.dtype, span.shape) for span in layout.spans] == [
        ("1", "F32", (2, 3)),
        ("2.a", "F32", (5,)),
    ]


def test_checksums_and_extras_are_those_of_the_items() -> None:
    start = len(PIECES[0])
    found = [c for c in FORMAT.checksums(MemorySource(SERIES)) if c.start > start]
    for checksum in found:
        alone = [c.length for c in FORMAT.checksums(MemorySource(PIECES[1]))]
        assert all(place >= start for place in checksum.places)
        assert checksum.length in [
            *alone,
            *(c.length for c in FORMAT.checksums(MemorySource(PIECES[2]))),
        ]
    changed = SERIES.replace(struct.pack("<f", 5.0), struct.pack("<f", 6.0))
    assert changed != SERIES
    assert FORMAT.extras(MemorySource(changed)) == FORMAT.extras(MemorySource(SERIES))


def test_what_does_not_end_where_another_begins_is_one_file() -> None:
    assert archive_starts(MemorySource(PIECES[1])) == [0]
    assert archive_starts(MemorySource(PIECES[1] + b"x")) == [0]
    assert archive_starts(MemorySource(b"junk" + PIECES[1])) == [0]
    assert archive_starts(MemorySource(SERIES)) == [0, len(PIECES[0]), len(SERIES) - len(PIECES[2])]
    with pytest.raises(FormatError):
        FORMAT.scan(MemorySource(SERIES[:-1]))


def test_more_files_than_a_model_has_tensors_are_not_read(monkeypatch) -> None:
    monkeypatch.setattr(torch_probes, "_MOST", 2)
    with pytest.raises(FormatError, match="more than 2 zip files"):
        FORMAT.scan(MemorySource(SERIES))
