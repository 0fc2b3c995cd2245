"""What follows from a prompt alone, kept in the cache by content.

The text encoder is the largest part that the same prompt needs no second time. Its results are an entry of
kind `context`: a key of the tokens, the steps and the digests of all programs and weights that make them, and
a blob that is a safetensors file. The key names no bundle: bundles with the same text encoder share contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from numpy.typing import NDArray

from ltx_cache.canonical import JSON
from ltx_cache.errors import LtxError
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltx_run import flow
from ltx_run.bundle import Bundle, Fingerprint, Program, files
from ltx_run.plan import Plan, Step, Tokenize, programs_of, tensors_in
from ltx_run.safetensors import SafetensorsFile
from ltx_run.tensors import parts

Array = NDArray[Any]
KIND = "context"


def results(plan: Plan) -> frozenset[str]:
    """Tensors that follow from the prompts alone and that other steps read."""
    known = flow.from_prompts(plan)
    others = (step for step in plan if not step.outputs or not known.issuperset(step.outputs))
    return known & {name for step in others for name in tensors_in(step)}


def key(
    manifest: Bundle,
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    compiles: Mapping[str, Fingerprint] = MappingProxyType({}),
) -> Key:
    """All that the results depend on.

    Args:
        manifest: Of the bundle.
        plan: Of the variant.
        prompts: Token ids of each prompt, not padded.
        compiles: Programs that are compiled here, and what for.
    """
    known = flow.from_prompts(plan)
    steps = [step for step in plan if step.outputs and known.issuperset(step.outputs)]
    programs = sorted({name for step in steps for name in programs_of(step)})
    codes = {name: _code(manifest.programs[name], compiles.get(name)) for name in programs}
    return Key(
        KIND,
        (
            Factor("tokens", [list(ids) for ids in prompts]),
            Factor("steps", [_described(step) for step in steps]),
            Factor("programs", codes),
            Factor("weights", {name: _weights(manifest, name) for name in programs}),
            Factor("results", sorted(results(plan))),
        ),
    )


def _described(step: Step) -> JSON:
    """A step as JSON, without the default texts, which may not be the ones that were tokenized."""
    if isinstance(step, Tokenize):
        step = msgspec.structs.replace(step, defaults={})
    described: JSON = msgspec.to_builtins(step)
    return described


def _code(program: Program, target: Fingerprint | None) -> JSON:
    if target is None or program.portable is None:
        return program.executable.sha256
    return {"module": program.portable.module.sha256, "target": msgspec.to_builtins(target)}


def _weights(manifest: Bundle, program: str) -> JSON:
    name = manifest.programs[program].weights
    if name is None:
        return []
    weights = manifest.weights[name]
    return [blob.sha256 for blob in files(weights)]


class PromptCache:
    """Contexts in a store; `paranoid` hashes them at every use."""

    def __init__(self, store: Store, *, paranoid: bool = False) -> None:
        self._store = store
        self._paranoid = paranoid

    def find(self, key: Key) -> dict[str, Array] | None:
        """What was kept, as views of a mapped file; None if nothing was, or if it is damaged."""
        try:
            with self._store.in_use():
                match self._store.lookup(key):
                    case Hit(_, (blob,)):
                        file = SafetensorsFile(self._store.open(blob, paranoid=self._paranoid))
                    case _:
                        return None
        except LtxError:
            # Made again, and kept again, it replaces what is damaged.
            return None
        return {name: file.view(name) for name in file.header.entries}

    def keep(self, key: Key, tensors: Mapping[str, Array]) -> None:
        """Keep results under their key.

        Raises:
            LtxError: The store can't be written.
        """
        with self._store.in_use(create=True):
            with self._store.writer() as writer:
                for part in parts(tensors):
                    writer.write(part)
                blob = writer.commit()
            self._store.put_entry(key, None, [blob])
