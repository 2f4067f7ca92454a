"""Conformance suites for plug-ins, to be run by pytest: ours run them on everything built in.

A package's tests subclass a suite and say what is to be tested; ``docs/plugins.md`` has examples.
"""

import pytest

pytest.register_assert_rewrite(
    "git_theta.testing.encodings", "git_theta.testing.formats", "git_theta.testing.strategies"
)
