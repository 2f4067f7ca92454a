"""The built-in merge strategies, one file per family; ``git_theta.registry`` lists them."""
