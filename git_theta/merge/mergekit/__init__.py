"""Recipes of mergekit 0.1.5: read, followed with its results, and written."""
