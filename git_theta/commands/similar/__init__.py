"""How much alike the task vectors of revisions are: what each added to their common ancestor.

``refs`` finds the revisions, ``vectors`` the changes of a checkpoint; ``sketches`` projects them at
random, ``cache`` keeps that, and ``ranking`` compares revisions.
"""

from git_theta.commands.similar.ranking import Similarities, similar
from git_theta.commands.similar.refs import Revision, find

__all__ = ["Revision", "Similarities", "find", "similar"]
