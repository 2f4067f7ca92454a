"""What the scripts beside this folder share; no part of the git-theta package."""
