"""How a chunk's raw bytes are expressed, against a base or none: pure functions on arrays."""
