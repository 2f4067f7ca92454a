"""Renders docs/exit-codes.md from the exception classes, so that the table cannot drift."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from git_theta import errors

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"

_HEAD = """# Exit codes

<!-- Written by `scripts/exit-codes --write` from git_theta/errors.py; a test keeps them equal. -->

Every command of git-theta ends with one of these. A script can rely on them: a number never
changes its meaning.

| code | error | meaning |
|---:|---|---|
"""

_TAIL = """
An error is one sentence with the path concerned, and where there is one, the next command to
type:

```
error: model.safetensors: object 3f9c... is neither here nor on the remote
  hint: git theta fetch
```

Git starts filters, hooks and drivers itself and reports their failure with its own exit code
(128 for a filter, 1 for a hook); the message above it is git-theta's.
"""

# Codes that no exception class carries.
_OTHERS = {
    0: ("-", "Success."),
    3: ("-", "A defect in git-theta; the message names a log to attach to a report."),
    130: ("-", "Interrupted (Ctrl-C)."),
}


def render() -> str:
    """The whole page."""
    rows = _OTHERS | {code: (f"`{name}`", text) for code, name, text in _classes(errors.ThetaError)}
    table = "".join(
        f"| {code} | {name} | {text} |\n" for code, (name, text) in sorted(rows.items())
    )
    return _HEAD + table + _TAIL


def _classes(top: type[errors.ThetaError]) -> Iterator[tuple[int, str, str]]:
    first_paragraph = inspect.cleandoc(top.__doc__ or "").split("\n\n")[0]
    yield top.exit_code, top.__name__, " ".join(first_paragraph.split())
    for child in top.__subclasses__():
        yield from _classes(child)


def main(arguments: list[str]) -> int:
    """Print the page, ``--write`` it, or ``--check`` that the written one is current."""
    if arguments == ["--write"]:
        PAGE.write_text(render(), encoding="utf-8")
    elif arguments == ["--check"]:
        if PAGE.read_text(encoding="utf-8") != render():
            print("docs/exit-codes.md is out of date: run scripts/exit-codes --write")
            return 1
    else:
        print(render(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
