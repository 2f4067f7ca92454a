"""Merges over a range of hyperparameters, each scored by a command of the user's."""
