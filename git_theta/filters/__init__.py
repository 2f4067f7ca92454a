"""What Git hands to clean and smudge, and checkpoints written after Git is done."""
