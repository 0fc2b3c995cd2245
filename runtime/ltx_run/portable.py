"""Compiling a program on the machine that runs it, from the portable form that a bundle may carry.

The portable form is StableHLO, which newer compilers read too; it is for the platform that the program was
built for, whatever the kind of device. What is compiled is kept in the cache under all that it depends on, so
that the second run doesn't compile.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from ltx_cache.errors import LtxError
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltx_run.bundle import Fingerprint, Portable
from ltx_run.devices import Compiler, Devices
from ltx_run.errors import BundleInvalid
from ltx_run.lookup import OpenBundle
from ltx_run.phases import phase

KIND = "portable"


class Made(NamedTuple):
    """An executable for this machine.

    Attributes:
        code: Serialized, as the platform loads it.
        seconds: That compiling took; 0 if an earlier run has done it.
    """

    code: bytes
    seconds: float


def packed(module: bytes) -> bytes:
    """A portable form as it is stored."""
    return zlib.compress(module, 9)


class Codes:
    """Executables of a bundle's programs: its own, or compiled here in their place."""

    def __init__(self, source: OpenBundle, compiles: Mapping[str, Fingerprint], store: Store) -> None:
        """Note where they come from.

        Args:
            source: The bundle.
            compiles: Programs that are compiled here, all of which have a portable form, and what for.
            store: Where what is compiled is looked up and kept, if it can be used.
        """
        self._source = source
        self._compiles = compiles
        self._store = store

    def of(self, name: str, devices: Devices) -> Made:
        """The executable of a program, compiled for these devices if need be.

        Raises:
            LtxError: A file of the bundle is damaged.
            CompileFailed: This machine's compiler refuses the program.
        """
        program = self._source.manifest.programs[name]
        if name not in self._compiles or program.portable is None:
            return Made(self._source.path(program.executable).read_bytes(), 0.0)
        assert isinstance(devices, Compiler), "other platforms have no portable programs"
        key = _key(program.portable, self._compiles[name])
        kept = _kept(self._store, key)
        if kept is not None:
            return Made(kept, 0.0)
        module = _unpacked(name, self._source.path(program.portable.module))
        started = time.perf_counter()
        with phase("compile", name):
            code = devices.compile(name, program, module)
        seconds = time.perf_counter() - started
        _keep(self._store, key, code)
        return Made(code, seconds)


def _unpacked(name: str, path: Path) -> bytes:
    try:
        return zlib.decompress(path.read_bytes())
    except zlib.error as error:
        raise BundleInvalid(f"program {name}: its portable form can't be unpacked: {error}") from None


def _key(portable: Portable, target: Fingerprint) -> Key:
    return Key(
        KIND,
        (
            Factor("module", portable.module.sha256),
            Factor("flags", dict(portable.flags)),
            Factor("target", msgspec.to_builtins(target)),
        ),
    )


def _kept(store: Store, key: Key) -> bytes | None:
    with suppress(LtxError, OSError), store.in_use():  # what is damaged is compiled and kept again
        match store.lookup(key):
            case Hit(_, (blob,)):
                return store.open(blob).read_bytes()
    return None


def _keep(store: Store, key: Key, code: bytes) -> None:
    with suppress(LtxError, OSError), store.in_use(create=True):  # or the next run compiles again
        store.put_entry(key, None, [store.put_bytes(code)])
