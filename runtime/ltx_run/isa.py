"""Instruction-set features that code generators use: how systems name them, and portable levels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SAME = (
    *("adx", "aes", "avx", "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512ifma", "avx512vl"),
    *("avx512vbmi", "bmi2", "cmov", "cx16", "f16c", "fma", "fma4", "fxsr", "gfni", "mmx", "movbe", "popcnt"),
    *("sse", "sse2", "sse4a", "ssse3", "tbm", "vaes", "vpclmulqdq", "xop"),
)
X86_LINUX: Mapping[str, str] = {name: name for name in _SAME} | {
    "3dnowprefetch": "prfchw",
    "abm": "lzcnt",
    "amx_bf16": "amx-bf16",
    "amx_complex": "amx-complex",
    "amx_fp16": "amx-fp16",
    "amx_int8": "amx-int8",
    "amx_tile": "amx-tile",
    "avx512_bf16": "avx512bf16",
    "avx512_bitalg": "avx512bitalg",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "bmi1": "bmi",
    "lahf_lm": "sahf",
    "pclmulqdq": "pclmul",
    "pni": "sse3",
    "sha_ni": "sha",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}
ARM_LINUX: Mapping[str, str] = {
    "aes": "aes",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
    "asimdhp": "fullfp16",
    "asimdrdm": "rdm",
    "atomics": "lse",
    "bf16": "bf16",
    "crc32": "crc",
    "fcma": "complxnum",
    "fp": "fp-armv8",
    "i8mm": "i8mm",
    "jscvt": "jsconv",
    "lrcpc": "rcpc",
    "sha2": "sha2",
    "sha3": "sha3",
    "sve": "sve",
    "sve2": "sve2",
}
ARM_DARWIN: Mapping[str, str] = {
    "FEAT_AES": "aes",
    "AdvSIMD": "neon",
    "FEAT_DotProd": "dotprod",
    "FEAT_FHM": "fp16fml",
    "FEAT_FP16": "fullfp16",
    "FEAT_RDM": "rdm",
    "FEAT_LSE": "lse",
    "FEAT_BF16": "bf16",
    "FEAT_CRC32": "crc",
    "FEAT_FCMA": "complxnum",
    "floatingpoint": "fp-armv8",
    "FEAT_I8MM": "i8mm",
    "FEAT_JSCVT": "jsconv",
    "FEAT_LRCPC": "rcpc",
    "FEAT_SHA256": "sha2",
    "FEAT_SHA3": "sha3",
}
KNOWN = frozenset(X86_LINUX.values()) | frozenset(ARM_LINUX.values())
"""Every feature that a fingerprint may list."""

_V2 = ("cmov", "cx16", "fxsr", "mmx", "popcnt", "sahf", "sse", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
LEVELS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "sse4": ("x86_64", _V2),
        "avx2": ("x86_64", _V3),
        "avx512": ("x86_64", _V4),
        "neon": ("aarch64", ("fp-armv8", "neon")),
    }
)
"""Portable levels: architecture and features. The first three are x86-64-v2, -v3 and -v4."""

NEWER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sse4": ("amx", "avx", "f16c", "fma", "vaes", "vpclmulqdq"),
        "avx2": ("amx", "avx10", "avx512"),
        "avx512": ("amx", "avx10", "avx512bf16", "avx512fp16", "avx512vnni"),
        "neon": ("sve",),
    }
)
"""Prefixes of the vector features that a compiler limited to a level does without.

It keeps the build machine's other extensions, such as `gfni` or `sha`.
"""
