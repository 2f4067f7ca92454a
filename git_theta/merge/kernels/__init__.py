"""What strategies share: slices, exact reductions, selections, means on spheres, random numbers."""
