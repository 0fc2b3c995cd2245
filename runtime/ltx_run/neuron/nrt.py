"""What this project uses of `libnrt.so.1`, AWS Neuron's runtime library: functions, structures, constants.

Every declaration is here and nowhere else; what the functions return is in `status`. Source: the headers
`nrt.h`, `nrt_experimental.h` and `nrt_version.h` of AWS Neuron's SDK.

Example:
    library = load(find(os.environ))
    check(library.nrt_init(FRAMEWORK_NONE, b"", b""), "start the runtime")
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ltx_run.errors import DeviceUnavailable
from ltx_run.neuron.status import UPGRADE

NAME = "libnrt.so.1"
FOLDER = Path("/opt/aws/neuron/lib")
"""Where the package aws-neuronx-runtime-lib puts it."""
INSTALL = "install the runtime: sudo apt-get install aws-neuronx-runtime-lib aws-neuronx-collectives"

FRAMEWORK_NONE = 1
"""`nrt_init`: no framework calls."""
ON_DEVICE = 0
"""`nrt_tensor_allocate`: in device memory."""
ALL_CORES = -1
"""`nrt_load_collectives`: the only number of cores that its header still allows."""
USAGE_INPUT = 0
TENSOR_LIMIT = 1 << 32
"""Bytes that one tensor must stay below: `nrt_tensor_allocate` takes no more, says its release notes."""

DTYPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "bfloat16": (0x6,),
        "float16": (0x7,),
        "float32": (0xA, 0xB),  # 0xB: rounded for the matrix unit, the same four bytes
        "int32": (0x8,),
        "uint32": (0x9,),
        "int8": (0x2,),
        "uint8": (0x3,),
        "bool": (0x2, 0x3),  # the runtime has no bool
    }
)
"""Codes that a NEFF may give for a dtype."""

TRAINIUM2 = (5, 6, 8, 9, 10, 11, 12, 13)
"""Instance families with second-generation chips."""
FAMILIES: Mapping[int, str] = MappingProxyType(
    {1: "inf1", 2: "trn1", 3: "trn1n", 4: "inf2", 7: "inf2e", 14: "trn3", 15: "trn3"}
    | dict.fromkeys(TRAINIUM2, "trn2")
)


class Version(ctypes.Structure):
    """`nrt_version_t`, without the hash that old libraries don't have."""

    _fields_ = (
        ("major", c_uint64),
        ("minor", c_uint64),
        ("patch", c_uint64),
        ("maintenance", c_uint64),
        ("detail", ctypes.c_char * 128),
    )


class Instance(ctypes.Structure):
    """`nrt_instance_info_t`."""

    _fields_ = (
        ("family", c_uint32),
        ("size", c_uint32),
        ("arch_name", ctypes.c_char * 16),
        ("device_revision", ctypes.c_char * 8),
    )


class MemoryStats(ctypes.Structure):
    """`nrt_vnc_memory_stats_t`."""

    _fields_ = (("used", c_size_t), ("limit", c_size_t))


class TensorInfo(ctypes.Structure):
    """`nrt_tensor_info_t`."""

    _fields_ = (
        ("name", ctypes.c_char * 256),
        ("usage", c_int),
        ("size", c_size_t),
        ("dtype", c_int),
        ("shape", POINTER(c_uint32)),
        ("ndim", c_uint32),
    )


class TensorInfos(ctypes.Structure):
    """`nrt_tensor_info_array_t`: a count, and as many `TensorInfo` behind it."""

    _fields_ = (("count", c_uint64), ("first", TensorInfo * 0))


STATUS, MODEL, TENSOR, SET = c_int, c_void_p, c_void_p, c_void_p

FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = MappingProxyType(
    {
        "nrt_get_version": (STATUS, (POINTER(Version), c_size_t)),
        "nrt_init": (STATUS, (c_int, c_char_p, c_char_p)),
        "nrt_close": (None, ()),
        "nrt_get_instance_info": (STATUS, (POINTER(Instance), c_size_t)),
        "nrt_get_visible_vnc_count": (STATUS, (POINTER(c_uint32),)),
        "nrt_get_vnc_memory_stats": (
            STATUS,
            (c_uint32, POINTER(MemoryStats), c_size_t, POINTER(c_size_t)),
        ),
        "nrt_load": (STATUS, (c_void_p, c_size_t, c_int32, c_int32, POINTER(MODEL))),
        "nrt_load_collectives": (
            STATUS,
            (c_void_p, c_size_t, c_int32, c_int32, c_uint32, c_uint32, POINTER(MODEL)),
        ),
        "nrt_unload": (STATUS, (MODEL,)),
        "nrt_get_model_tensor_info": (STATUS, (MODEL, POINTER(POINTER(TensorInfos)))),
        "nrt_free_model_tensor_info": (STATUS, (POINTER(TensorInfos),)),
        "nrt_tensor_allocate": (STATUS, (c_int, c_int, c_size_t, c_char_p, POINTER(TENSOR))),
        "nrt_tensor_free": (None, (POINTER(TENSOR),)),
        "nrt_tensor_write": (STATUS, (TENSOR, c_void_p, c_size_t, c_size_t)),
        "nrt_tensor_read": (STATUS, (TENSOR, c_void_p, c_size_t, c_size_t)),
        "nrt_allocate_tensor_set": (STATUS, (POINTER(SET),)),
        "nrt_add_tensor_to_tensor_set": (STATUS, (SET, c_char_p, TENSOR)),
        "nrt_destroy_tensor_set": (None, (POINTER(SET),)),
        "nrt_execute": (STATUS, (MODEL, SET, SET)),
    }
)
"""Result and parameters of every function that is called."""


def find(environment: Mapping[str, str]) -> Path:
    """The library: in the folders of LD_LIBRARY_PATH, or where its package puts it.

    Raises:
        DeviceUnavailable: It is not installed.
    """
    named = [Path(folder) for folder in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    for folder in (*named, FOLDER):
        if (folder / NAME).is_file():
            return folder / NAME
    raise DeviceUnavailable(f"there is no {NAME} in {FOLDER}, nor in LD_LIBRARY_PATH", hint=INSTALL)


def load(path: Path) -> Any:
    """The library with its functions declared.

    Raises:
        DeviceUnavailable: It can't be loaded, or lacks a function: it is too old.
    """
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, parameters) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, parameters
    except OSError as error:
        raise DeviceUnavailable(f"{path} can't be loaded: {error}", hint=INSTALL) from None
    except AttributeError as error:
        raise DeviceUnavailable(f"{path} is too old: {error}", hint=UPGRADE) from None
    return library
