"""Callbacks for training frameworks: each saved checkpoint becomes a commit, in the background.

Each of ``git_theta.integrations.transformers`` and ``git_theta.integrations.lightning`` imports its
framework, and nothing imports them.
"""
