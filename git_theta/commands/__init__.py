"""What the command line calls: one job each."""
