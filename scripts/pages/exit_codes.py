"""docs/exit-codes.md: the table of the exception classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from git_theta import errors
from pages.page import DOCS, run

_HEAD = """# Exit codes

<!-- Written by `scripts/exit-codes --write` from git_theta/errors.py; a test keeps them equal. -->

Every command of git-theta ends with one of these. A script can rely on them: a number never
changes its meaning.

| code | error | meaning |
|---:|---|---|
"""

_TAIL = """
An error message is one sentence with the path concerned and, if there is one, the next command to
type:

```
git-theta: model.safetensors: object 3f9c6e1a20b7 is missing locally
  hint: git theta fetch
```

Git starts filters, hooks and drivers itself and reports their failure with its own exit code
(128 for a filter, 1 for a hook); the message above it is git-theta's.
"""

# Codes that no exception class carries.
_OTHERS = {
    0: ("-", "Success."),
    3: ("-", "A defect in git-theta; the message names a log to attach to a report."),
    130: ("-", "Interrupted (Ctrl-C, or the signals TERM and HUP)."),
}


def render() -> str:
    """Return the whole page."""
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


if __name__ == "__main__":
    sys.exit(run("exit-codes", lambda: {DOCS / "exit-codes.md": render()}))
