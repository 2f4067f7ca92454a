"""Conformance suites for plug-ins, run by pytest; ours run them on everything built in.

The tests of a package subclass a suite and name the plug-in; ``docs/plugins.md`` has examples.
"""

import pytest

pytest.register_assert_rewrite(
    "git_theta.testing.encodings", "git_theta.testing.formats", "git_theta.testing.strategies"
)
