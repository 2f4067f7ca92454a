"""The filter that Git starts, and checkpoints written after Git is done."""
