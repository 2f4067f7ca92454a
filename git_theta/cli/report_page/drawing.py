"""Charts drawn by vl-convert, in this process and without a network; see decision 0032."""

from __future__ import annotations

import re
from typing import Any

from git_theta.errors import MissingToolError

# What a mark says of itself, which a pointer that rests on it then shows.
_MARK = re.compile(r'(<path aria-label="([^"]*)" role="graphics-symbol"[^>]*)/>')


def require() -> None:
    """Raise ``MissingToolError`` where the packages that draw are not installed."""
    try:
        import jinja2  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            f"reports need {error.name}, which is not installed",
            hint='pip install "theta-vcs[report]"',
        ) from None


def svg(chart: dict[str, Any]) -> str:
    """Return a chart as SVG, to be put into a page: texts are escaped, marks have a title each."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(chart, allowed_base_urls=[])
    return _MARK.sub(r"\1><title>\2</title></path>", drawn)


def png(chart: dict[str, Any]) -> bytes:
    """Return a chart as a picture, of two pixels for each of its units."""
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(chart, scale=2, allowed_base_urls=[])
    return drawn
