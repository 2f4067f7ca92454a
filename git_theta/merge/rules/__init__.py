"""Which strategy merges which tensor: strategies, their hyperparameters, and ordered rules."""
