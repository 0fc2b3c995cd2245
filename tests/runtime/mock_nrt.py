"""Builds the libnrt of `mock_nrt.c`, and NEFFs that it can load."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltx_run.neuron import nrt

STRUCTURES = (nrt.Version, nrt.Instance, nrt.MemoryStats, nrt.TensorInfo, nrt.TensorInfos)
SIMPLE = {
    ctypes.c_int: "int",
    ctypes.c_uint32: "unsigned int",
    ctypes.c_size_t: "unsigned long",
    ctypes.c_uint64: "unsigned long",
    ctypes.c_void_p: "void *",
    ctypes.c_char_p: "char *",
    ctypes.c_char: "char",
    None: "void",
}


def _type(declared: Any) -> str:
    if declared in SIMPLE:
        return SIMPLE[declared]
    if issubclass(declared, ctypes.Structure):
        return f"struct {declared.__name__}"
    return f"{_type(declared._type_)} *"


def _fields(structure: type[ctypes.Structure]) -> Iterator[str]:
    for name, declared in structure._fields_:
        if issubclass(declared, ctypes.Array):
            length = f"[{declared._length_}]" if declared._length_ else "[]"
            yield f"{_type(declared._type_)} {name}{length};"
        else:
            yield f"{_type(declared)} {name};"


def declarations() -> str:
    """A C header with the structures and prototypes that the loader declares, and where fields must lie."""
    lines = ["#include <stddef.h>"]
    for structure in STRUCTURES:
        name = structure.__name__
        lines.append(f"struct {name} {{ {' '.join(_fields(structure))} }};")
        lines.append(
            f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(structure)}, "size of {name}");'
        )
        for field, *_ in structure._fields_:
            offset = getattr(structure, field).offset
            lines.append(f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");')
    for name, (result, parameters) in nrt.FUNCTIONS.items():
        lines.append(f"{_type(result)} {name}({', '.join(map(_type, parameters)) or 'void'});")
    return "\n".join(lines) + "\n"


def build(folder: Path) -> Path:
    """Compile the library into a folder."""
    (folder / "declarations.h").write_text(declarations())
    library = folder / nrt.NAME
    source = Path(__file__).with_name("mock_nrt.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", f"-I{folder}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return library


def neff(tensors: Sequence[tuple[str, int, int, int]], *, lnc: int = 2, major: int = 2) -> bytes:
    """A NEFF whose payload lists name, usage, bytes and dtype of each tensor."""
    payload = "MOCK\n" + "".join(f"{' '.join(map(str, tensor))}\n" for tensor in tensors)
    return packed(payload.encode(), lnc=lnc, major=major)


def packed(payload: bytes, *, lnc: int = 2, major: int = 2) -> bytes:
    """A NEFF around a payload."""
    header = struct.pack("<5Q", 2, 1024, len(payload), major, 0).ljust(552, b"\0") + struct.pack("<I", lnc)
    return header.ljust(1024, b"\0") + payload
