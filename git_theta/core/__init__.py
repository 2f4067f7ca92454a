"""What every layer agrees on: dtypes, layouts, hashes, settings, the registry, the system."""
