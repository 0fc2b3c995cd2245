"""Parameter tables without jax: made once by the model's code, then taken from the store.

Tables live beside the functions that use them, so making one imports jax. A plan needs them for keys, byte
counts and layouts, and shall not wait for that; so each table is kept under a key of its own: the component,
its configuration, and the digest of the sources that make it.

Example:
    tables = Tables(config, store)
    tables["transformer"][0].name
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict

import msgspec

from ltx_cache.canonical import canonical, digest
from ltx_cache.errors import StoreNotWritable
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.model.params import ParamTable
from ltxbuild.plan.sources import source_digest


class Tables(Mapping[str, ParamTable]):
    """The parameter tables of a model by component."""

    def __init__(self, config: ModelConfig, store: Store) -> None:
        """Tables of the components that the model has; nothing is read before it is asked for."""
        self._config, self._store = config, store
        self._names = [name for name in COMPONENTS if name != "upsampler" or config.upsampler is not None]
        self._tables: dict[str, ParamTable] = {}
        self._digests: dict[str, str] = {}

    def __getitem__(self, component: str) -> ParamTable:
        if component not in self._tables:
            self._tables[component], self._digests[component] = self._load(component)
        return self._tables[component]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def digest(self, component: str) -> str:
        """sha256 of everything the component's table says."""
        self[component]
        return self._digests[component]

    def _load(self, name: str) -> tuple[ParamTable, str]:
        component = COMPONENTS[name]
        key = Key(
            "table",
            (
                Factor("component", name),
                Factor("config", component.config(self._config)),
                Factor("sources", source_digest(component.module)),
            ),
        )
        found = self._store.lookup(key)
        if isinstance(found, Hit):
            with suppress(msgspec.ValidationError):  # another version keeps them in another form
                return msgspec.convert(found.value, tuple[ParamTable, str])
        table = component.table(self._config)
        rows = [asdict(spec) for spec in table]
        with suppress(StoreNotWritable):  # then it is made each time
            self._store.put_entry(key, [rows, digest(canonical(rows))], [])
        return table, digest(canonical(rows))
