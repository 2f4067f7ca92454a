"""Statistics that merge strategies use: Fisher information and Gram matrices of any torch module.

::

    from git_theta import stats

    stats.fisher(model, batches).save("model.safetensors")  # writes model.fisher.safetensors
    stats.gram(model, batches).save("model.safetensors")    # writes model.gram.safetensors

They describe the weights that they were computed with. This package imports torch.
"""

from git_theta.stats.fisher import fisher
from git_theta.stats.gram import gram
from git_theta.stats.saving import Statistics

__all__ = ["Statistics", "fisher", "gram"]
