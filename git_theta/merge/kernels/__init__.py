"""Shared code of the strategies: slices, exact reductions, top-k, spheres, random numbers."""
