"""Measurements and demonstrations on real and synthetic checkpoints, run by the scripts above."""
