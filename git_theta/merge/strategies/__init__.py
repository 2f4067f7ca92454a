"""The built-in merge strategies, one file per family; ``git_theta.core.registry`` lists them."""
