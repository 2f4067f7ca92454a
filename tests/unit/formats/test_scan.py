from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from git_theta.core import registry
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.core.registry import Format
from git_theta.errors import ChangedError, FormatError, SettingsError
from git_theta.formats import scan
from git_theta.testing.formats import MemorySource
from tests.support.formats import dict_of, entry, safetensors, torch_file, vector

WHOLE = "It is stored whole and comes back exactly, byte for byte"
FILE = safetensors({"a": entry("U8", [1], 0, 1)}, b"1")


@dataclass
class Plugin:
    """A format that finds what it is told to, in files that begin with its magic."""

    name: str = "third"
    suffixes: tuple[str, ...] = (".third",)
    magic: bytes = b"3"
    answer: Callable[[Source], Layout] = lambda source: Layout("third")
    asked: list[str] = field(default_factory=list)

    def matches(self, source: Source) -> bool:
        self.asked.append("matches")
        return source.read(0, 1) == self.magic

    def scan(self, source: Source) -> Layout:
        self.asked.append("scan")
        return self.answer(source)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Format], None]:
    """Adds a format, as an entry point would."""
    loaded = registry.format_named
    added: dict[str, Format] = {}
    known = registry.names("formats")

    def add(plugin: Format) -> None:
        added[plugin.name] = plugin

    monkeypatch.setattr(registry, "iter_names", lambda group: iter([*known, *added]))
    monkeypatch.setattr(registry, "format_named", lambda name: added.get(name) or loaded(name))
    return add


def raising(error: BaseException) -> Callable[[Source], Layout]:
    def answer(source: Source) -> Layout:
        raise error

    return answer


def test_content_decides_whatever_the_name():
    for name in ("model.safetensors", "model.pt", "model", "MODEL.BIN", "a/b c/\udcff"):
        layout, warning = scan(MemorySource(FILE), name)
        assert (layout.format, len(layout.spans), warning) == ("safetensors", 1, None)
    checkpoint = torch_file(dict_of({"w": vector("0", 1)}), {"0": b"1234"})
    assert scan(MemorySource(checkpoint), "model.safetensors")[0].format == "torch"


def test_an_empty_file_is_opaque_without_a_warning():
    assert scan(MemorySource(b""), "model.pt") == (Layout("opaque"), None)


def test_what_nothing_recognises_is_opaque():
    assert scan(MemorySource(b"TFL3"), "model.tflite") == (
        Layout("opaque"),
        f"no format recognises it (known: {', '.join(registry.names('formats'))}). {WHOLE}",
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.safetensors", "not a well-formed safetensors file: 4 bytes are too few"),
        ("MODEL.PT", "not a well-formed torch file: it does not begin with a zip record"),
    ],
)
def test_the_name_decides_what_is_explained(name: str, reason: str):
    layout, warning = scan(MemorySource(b"GGUF"), name)
    assert layout == Layout("opaque")
    assert warning is not None
    assert warning.startswith(reason)
    assert warning.endswith(WHOLE)


def test_the_name_decides_between_two_claims(register):
    register(Plugin(magic=FILE[:1]))
    assert scan(MemorySource(FILE), "x.third")[0].format == "third"
    assert scan(MemorySource(FILE), "x.safetensors")[0].format == "safetensors"
    assert scan(MemorySource(FILE), "x")[0].format == "safetensors"


def test_another_claim_is_tried_after_a_malformed_one(register):
    register(Plugin(magic=FILE[:1], answer=raising(FormatError("bad luck"))))
    layout, warning = scan(MemorySource(FILE), "x.third")
    assert (layout.format, warning) == ("safetensors", None)


def test_a_format_may_know_a_file_by_its_name_alone(register):
    register(Plugin(magic=b"?"))
    assert scan(MemorySource(b"headless"), "x.third") == (Layout("third"), None)
    assert scan(MemorySource(b"headless"), "x.other")[0] == Layout("opaque")


def test_every_reason_is_given(register):
    register(Plugin(answer=raising(FormatError("bad luck", hint="do this"))))
    _, warning = scan(MemorySource(b"3"), "x.pt")
    assert warning is not None
    assert "not a well-formed third file: bad luck (do this); not a well-formed torch" in warning


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Layout("third", (TensorSpan("a", "U8", (9,), 0, 9),)), "beyond the file's 1 bytes"),
        (Layout("third", ("no span",)), "the format third failed: AttributeError"),
        (Layout("other"), "its layout is called 'other'"),
        (None, "the format third failed: AttributeError"),
    ],
)
def test_a_plug_in_that_gives_nonsense_is_not_believed(found, reason, register):
    register(Plugin(answer=lambda source: found))
    layout, warning = scan(MemorySource(b"3"), "x")
    assert layout == Layout("opaque")
    assert reason in (warning or "")


def test_a_plug_in_that_breaks_is_named(register):
    register(Plugin(answer=raising(ZeroDivisionError("two\nlines"))))
    _, warning = scan(MemorySource(b"3"), "x")
    assert warning == f"the format third failed: ZeroDivisionError: two lines. {WHOLE}"


def test_a_plug_in_that_cannot_be_loaded_does_not_stop_the_others(monkeypatch):
    known, loaded = registry.names("formats"), registry.format_named
    monkeypatch.setattr(registry, "iter_names", lambda group: iter(["third", *known]))

    def load(name: str) -> Format:
        if name == "third":
            raise SettingsError("there is no format called 'third'")
        return loaded(name)

    monkeypatch.setattr(registry, "format_named", load)
    assert scan(MemorySource(FILE), "x")[0].format == "safetensors"
    _, warning = scan(MemorySource(b"GGUF"), "x")
    wanted = "the format third failed: SettingsError: there is no format called 'third'"
    assert wanted in (warning or "")


@pytest.mark.parametrize("error", [ChangedError("shorter"), OSError(5, "I/O"), KeyboardInterrupt()])
def test_what_is_not_about_the_content_passes_through(error: BaseException, register):
    register(Plugin(answer=raising(error)))
    with pytest.raises(type(error)):
        scan(MemorySource(b"3"), "x")


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from git_theta.formats import scan;"
        "from git_theta.testing.formats import MemorySource;"
        "scan(MemorySource(b'GGUF'), 'x.pt');"
        "print(*sorted({'torch', 'safetensors', 'rich', 'git'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
