"""Clean and smudge, side by side: a checkpoint into a manifest and objects, and back."""
