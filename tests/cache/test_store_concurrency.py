"""Many processes on one store."""

from __future__ import annotations

import subprocess
import sys

from ltx_cache.blobref import BlobRef
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store

PROCESSES, ROUNDS = 8, 4
# All write and read the same blobs at the same time, beginning with a store that does not exist yet.
WORKER = """
import sys
from pathlib import Path
from ltx_cache.key import Factor, Key
from ltx_cache.store import Hit, Store
print("ready", flush=True)
sys.stdin.readline()
store = Store(Path(sys.argv[1]))
for n in range(int(sys.argv[2])):
    data = bytes([n]) * 300_000
    ref = store.put_bytes(data)
    assert store.open(ref).read_bytes() == data
    key = Key("program", (Factor("n", n),))
    store.put_entry(key, n, [ref])
    assert isinstance(store.lookup(key), Hit)
    store.set_ref("latest", ref)
    assert store.has(store.ref("latest"))
"""


def test_eight_processes_write_the_same(store: Store) -> None:
    """Nobody fails, and one whole copy of everything is left."""
    command = [sys.executable, "-c", WORKER, str(store.root), str(ROUNDS)]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    errors = [worker.communicate()[1] for worker in workers]
    assert errors == [""] * PROCESSES
    refs = [BlobRef.of(bytes([n]) * 300_000) for n in range(ROUNDS)]
    for n, ref in enumerate(refs):
        assert store.lookup(Key("program", (Factor("n", n),))) == Hit(n, (ref,))
        store.open(ref, paranoid=True)
    assert store.ref("latest") == refs[-1]
    assert {path.name for path in (store.root / "blobs").glob("*/*")} == {ref.sha256 for ref in refs}
    assert list((store.root / "tmp").iterdir()) == []
    assert not (store.root / "quarantine").exists()
