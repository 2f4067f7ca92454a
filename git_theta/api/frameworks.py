"""Bytes as arrays of numpy or tensors of torch, which is imported when it is asked for."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import FRAMEWORK_NAMES, dtype, element_count
from git_theta.core.layout import Alias, TensorSpan
from git_theta.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
View = TensorSpan | Alias


class Framework(ABC, Generic[T]):
    """Makes arrays of type ``T``."""

    @abstractmethod
    def array(self, view: View, data: Bytes) -> T:
        """Return the tensor ``view``, which shares the memory of its storage's bytes ``data``.

        Raises ``UsageError`` for a dtype that the framework does not have.
        """

    @abstractmethod
    def pick(self, array: T, index: tuple[Any, ...]) -> T:
        """Return ``array[index]``, without holding on to the rest of the array."""


class Numpy(Framework[NDArray[Any]]):
    """Arrays of numpy; with ml_dtypes also of bf16 and float8."""

    def array(self, view: View, data: Bytes) -> NDArray[Any]:
        """See ``Framework``."""
        kind = _numpy_dtype(view)
        if 0 in view.shape:
            return np.empty(view.shape, kind)
        if view.strides is None:
            count = element_count(view.shape)
            flat: NDArray[Any] = data.view(kind)
            shaped: NDArray[Any] = flat[view.offset : view.offset + count].reshape(view.shape)
            return shaped
        size = kind.itemsize
        strides = tuple(stride * size for stride in view.strides)
        strided: NDArray[Any] = np.ndarray(view.shape, kind, data.data, view.offset * size, strides)
        return strided

    def pick(self, array: NDArray[Any], index: tuple[Any, ...]) -> NDArray[Any]:
        """See ``Framework``."""
        picked = np.asarray(array[index])
        return picked if picked.size == array.size else picked.copy()


def _numpy_dtype(view: View) -> np.dtype[Any]:
    name = FRAMEWORK_NAMES.get(view.dtype)
    if name is None:
        raise _unknown(view, "numpy")
    if dtype(view.dtype).kind != "float" or hasattr(np, name):
        return np.dtype(name)
    try:
        extended = importlib.import_module("ml_dtypes")
    except ImportError:
        raise UsageError(
            f"{view.name} is {view.dtype}, which numpy does not have",
            hint='pip install ml_dtypes, or framework="pt"',
        ) from None
    if not hasattr(extended, name):
        raise _unknown(view, "this ml_dtypes")
    found: np.dtype[Any] = np.dtype(getattr(extended, name))
    return found


class Torch(Framework["Tensor"]):
    """Tensors of torch, on ``device``."""

    def __init__(self, device: str) -> None:
        try:
            self._torch = importlib.import_module("torch")
        except ImportError:
            raise UsageError(
                'framework="pt" needs torch, which is not installed', hint="pip install torch"
            ) from None
        try:
            self._device = self._torch.device(device)
        except RuntimeError as error:
            raise UsageError(f"device={device!r}: {error}") from error

    def array(self, view: View, data: Bytes) -> Tensor:
        """See ``Framework``. Two packed 4-bit floats are one element, as torch has them."""
        torch = self._torch
        name = "float4_e2m1fn_x2" if view.dtype == "F4" else FRAMEWORK_NAMES.get(view.dtype)
        if name is None or not hasattr(torch, name) or min(view.strides or (0,)) < 0:
            raise _unknown(view, "this torch")
        shape = _packed(view) if view.dtype == "F4" else view.shape
        kind = getattr(torch, name)
        if 0 in shape:
            empty: Tensor = torch.empty(shape, dtype=kind, device=self._device)
            return empty
        flat: Tensor = torch.from_numpy(data).to(self._device).view(kind)
        if view.strides is None:
            return flat[view.offset : view.offset + element_count(shape)].view(shape)
        return flat.as_strided(shape, view.strides, view.offset)

    def pick(self, array: Tensor, index: tuple[Any, ...]) -> Tensor:
        """See ``Framework``."""
        picked = array[index]
        return picked if picked.numel() == array.numel() else picked.clone()


def _packed(view: View) -> tuple[int, ...]:
    if not view.shape or view.shape[-1] % 2 or view.strides is not None or view.offset:
        raise _unknown(view, "this torch")
    return (*view.shape[:-1], view.shape[-1] // 2)


def _unknown(view: View, where: str) -> UsageError:
    return UsageError(
        f"{view.name} is {view.dtype}, which {where} does not have as it is stored",
        hint=f"get_bytes({view.name!r}) returns its bytes",
    )


def framework_named(name: str, device: str) -> Framework[Any]:
    """Return ``np`` (numpy) or ``pt`` (torch); ``UsageError`` for others."""
    if name == "pt":
        return Torch(device)
    if name != "np":
        raise UsageError(f"framework={name!r}: not np (numpy) or pt (torch)")
    if device != "cpu":
        raise UsageError(f"device={device!r}: numpy computes on the cpu", hint='framework="pt"')
    return Numpy()
