"""What ``import git_theta`` offers: versions of checkpoints read, written, listed and merged."""
