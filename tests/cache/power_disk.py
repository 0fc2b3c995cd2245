"""A disk that loses power: all that may be left of a program's work, after each of its calls.

`Disk` carries out calls on a model that knows what has reached the disk. After a crash

* bytes that were not flushed are there, gone, half there, or zeros;
* a name that was made, moved or removed since its folder was last flushed has changed or not, each by itself.
  A move is flushed with either of its folders.

No file system in use promises as little; what survives this survives those.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

Tree = Mapping[PurePath, bytes | None]
"""Content by path; None for a folder."""

FEW = 4
"""Of up to so many unsettled names every choice is tried, of more each alone and all but each."""

IGNORED = {"tmp", "locks"}
"""Trees that differ in nothing but files in these folders count as one."""


@dataclass(frozen=True)
class Call:
    """One change.

    Attributes:
        kind: `create`, `write`, `truncate`, `sync`, `mkdir`, `move`, `unlink`, `settle` if a folder is
            flushed, or `told` for something that the program was told to be done.
        paths: The names that it changes, or the folder.
        file: Number of the file, which outlives its names.
        data: Bytes written, or left by `truncate`.
        note: What was told.
    """

    kind: str
    paths: tuple[PurePath, ...] = ()
    file: int = -1
    data: bytes = b""
    note: str = ""


@dataclass
class Disk:
    """Files and folders, in memory and on the disk."""

    cached: dict[int, bytes] = field(default_factory=dict)
    flushed: dict[int, bytes] = field(default_factory=dict)
    names: dict[PurePath, int | None] = field(default_factory=dict)
    unsettled: list[Call] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> Disk:
        """A folder as it is, all of it flushed."""
        disk = cls()
        for number, (path, data) in enumerate(read_tree(root).items()):
            disk.names[path] = None if data is None else number
            if data is not None:
                disk.cached[number] = disk.flushed[number] = data
        return disk

    def number(self, name: PurePath) -> int | None:
        """The file that has a name now."""
        return self._names(self.unsettled).get(name)

    def apply(self, call: Call) -> None:
        """Carry out a call."""
        match call.kind:
            case "create" | "mkdir" | "move" | "unlink":
                self.unsettled.append(call)
                if call.kind == "create":
                    self.cached[call.file] = b""
            case "write":
                self.cached[call.file] += call.data
            case "truncate":
                self.cached[call.file] = call.data
            case "sync":
                self.flushed[call.file] = self.cached[call.file]
            case "settle":
                self._settle(call.paths[0])

    def _settle(self, folder: PurePath) -> None:
        """Flush a folder; what happened to the same names before is past."""
        done = [
            index
            for index, call in enumerate(self.unsettled)
            if any(path.parent == folder for path in call.paths)
        ]
        latest: dict[PurePath, int] = {}
        for index in done:
            _rename(self.names, self.unsettled[index])
            latest |= dict.fromkeys(self.unsettled[index].paths, index)
        self.unsettled = [
            call
            for index, call in enumerate(self.unsettled)
            if index not in done and all(index > latest.get(path, -1) for path in call.paths)
        ]

    def now(self) -> Tree:
        """What programs see, and find after a kill."""
        return self._tree(self.unsettled, self.cached)

    def crashes(self) -> Iterator[Tree]:
        """What may be there when the power is back."""
        for names, files in itertools.product(_choices(self.unsettled), self._losses()):
            yield self._tree(names, files)

    def _losses(self) -> list[dict[int, bytes]]:
        dirty = {file: data for file, data in self.cached.items() if self.flushed.get(file) != data}
        if not dirty:
            return [self.cached]
        gone = {file: self.flushed.get(file, b"") for file in dirty}
        new = {file: data[len(gone[file]) :] for file, data in dirty.items()}
        torn = {file: gone[file] + data[: len(data) // 2] for file, data in new.items()}
        zeros = {file: gone[file] + bytes(len(data)) for file, data in new.items()}
        return [{**self.cached, **left} for left in (dirty, gone, torn, zeros)]

    def _names(self, changes: Sequence[Call]) -> dict[PurePath, int | None]:
        names = dict(self.names)
        for call in changes:
            _rename(names, call)
        return names

    def _tree(self, changes: Sequence[Call], files: Mapping[int, bytes]) -> Tree:
        names = self._names(changes)
        folders = {path for path, file in names.items() if file is None} | {PurePath()}
        return {
            path: None if file is None else files[file]
            for path, file in names.items()
            if folders.issuperset(path.parents)
        }


def _rename(names: dict[PurePath, int | None], call: Call) -> None:
    names.pop(call.paths[0], None)
    if call.kind != "unlink":
        names[call.paths[-1]] = None if call.kind == "mkdir" else call.file


def _choices(calls: Sequence[Call]) -> Iterator[tuple[Call, ...]]:
    count = len(calls)
    sizes = range(count + 1) if count <= FEW else (0, 1, count - 1, count)
    return itertools.chain.from_iterable(itertools.combinations(calls, size) for size in sizes)


def all_crashes(before: Disk, calls: Sequence[Call]) -> Iterator[tuple[Tree, frozenset[str]]]:
    """Every different tree that a crash at any time may leave, and what was told by then."""
    disk, told, seen = copy.deepcopy(before), frozenset[str](), set[object]()
    for call in (Call("told"), *calls):
        told |= {call.note} - {""}
        disk.apply(call)
        for tree in disk.crashes():
            if (told, visible(tree)) not in seen:
                seen.add((told, visible(tree)))
                yield tree, told


def visible(tree: Tree) -> frozenset[tuple[PurePath, bytes | None]]:
    """What counts of a tree."""
    return frozenset(item for item in tree.items() if not IGNORED & set(item[0].parts))


def read_tree(root: Path) -> Tree:
    """A folder of the real disk."""
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root): None if path.is_dir() else path.read_bytes() for path in paths}


def write_tree(tree: Tree, root: Path) -> None:
    """Lay a tree out in a new folder."""
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
