"""Updates that come as a file of their own: PEFT adapters, and sparse changes.

Reading one gives updates of a checkpoint's parameters; each can be applied to a parameter's
bytes, or stored as it is by the encoding made for it.
"""

from git_theta.adapters.config import FILE as CONFIG_FILE
from git_theta.adapters.config import (
    Config,
    Fields,
    beyond_factors,
    check_supported,
    config_of,
    parse_fields,
)
from git_theta.adapters.names import Names, Parameter
from git_theta.adapters.peft import read_adapter, tensor_file
from git_theta.adapters.sparse import read_sparse
from git_theta.adapters.stored import Stored
from git_theta.adapters.updates import LowRank, Replacement, Scaling, Sparse, Update

__all__ = [
    "CONFIG_FILE",
    "Config",
    "Fields",
    "LowRank",
    "Names",
    "Parameter",
    "Replacement",
    "Scaling",
    "Sparse",
    "Stored",
    "Update",
    "beyond_factors",
    "check_supported",
    "config_of",
    "parse_fields",
    "read_adapter",
    "read_sparse",
    "tensor_file",
]
