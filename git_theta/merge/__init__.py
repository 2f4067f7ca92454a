"""Merging: strategies are pure functions of tensors; the rest finds out what they need.

Torch, which costs 3 s to import, is imported in ``strategies``, ``kernels`` and ``compute`` alone.
"""
