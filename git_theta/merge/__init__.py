"""Merging: strategies are pure functions of tensors; the rest finds out what they need.

``strategy``, ``parameters`` and ``rules`` import without torch (which costs 3 s); the modules that
compute do not.
"""
