"""Host memory in a DLPack capsule as a numpy array; numpy's own reader knows no bfloat16."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Memory:
    """A capsule's memory in the form numpy asks for; the capsule lives as long as this does."""

    def __init__(self, capsule: object, address: int, size: int) -> None:
        self._capsule = capsule
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, True),
            "version": 3,
        }


def view(capsule: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The capsule's values, read-only and not copied.

    Args:
        capsule: Of a contiguous tensor in host memory, not yet consumed.
        shape: Of that tensor.
        dtype: Of that tensor.

    Raises:
        ValueError: The capsule holds no memory.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    # The capsule points to a DLManagedTensor, whose first field is the data pointer.
    address = ctypes.c_void_p.from_address(_pointer(capsule, b"dltensor")).value
    if address is None:
        raise ValueError("the DLPack capsule holds no memory")
    return np.asarray(_Memory(capsule, address, size)).view(dtype).reshape(shape)
