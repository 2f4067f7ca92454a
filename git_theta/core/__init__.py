"""Shared by every layer: dtypes, layouts, hashes, settings, the registry, the system."""
