"""One rank's share of a program, as XLA's own partitioner writes it.

XLA has no interface to its partitioner but a dump on the way to an executable. The dump is complete before
code generation, the long part, begins; so a process of its own starts to compile for as many host devices as
there are ranks, and ends when the dump is there.

Run as: python -m ltxbuild.neuron.partition FOLDER RANKS
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ltxbuild.neuron.wire import whole_field

MODULE = "module.mlir"
DUMPED = "*after_spmd-partitioning*.hlo.pb"
MODULE_IN_DUMP = 1
"""The field of `HloProto` that holds the module; the only one in a dump between passes."""
INTERVAL = 0.05
"""Seconds between two looks for the dump."""


class PartitionFailed(RuntimeError):
    """XLA refused the program."""


def partitioned(module: bytes, ranks: int) -> bytes:
    """Partition a program.

    Args:
        module: StableHLO with shardings, as MLIR bytecode or text.
        ranks: Devices that it is sharded over.

    Returns:
        The program of each rank, a serialized `HloModuleProto`.

    Raises:
        PartitionFailed: XLA refused the program; what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="ltxbuild-partition-") as name:
        folder = Path(name)
        (folder / MODULE).write_bytes(module)
        command = [sys.executable, "-P", "-m", __name__, str(folder), str(ranks)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = dumped(folder)
        if found is None:
            raise PartitionFailed(
                f"no partitioned program (exit code {done.returncode}): {done.stderr[-4000:]}"
            )
        return found


def dumped(folder: Path) -> bytes | None:
    """The module of a complete dump in the folder; None as long as there is none."""
    for path in folder.glob(DUMPED):
        return whole_field(path.read_bytes(), MODULE_IN_DUMP)
    return None


def _main(folder: Path, ranks: int) -> None:
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    _compile((folder / MODULE).read_bytes(), folder, ranks)


def _watch(folder: Path) -> None:
    """End the process, and with it the compile, as soon as the dump is complete."""
    while dumped(folder) is None:
        time.sleep(INTERVAL)
    os._exit(0)


def _compile(module: bytes, folder: Path, ranks: int) -> None:
    import numpy as np
    from jaxlib import _jax
    from jaxlib import xla_client as xla

    client: Any = xla.make_cpu_client(num_devices=ranks)
    options = xla.CompileOptions()
    options.num_partitions = ranks
    options.env_option_overrides = [
        ("xla_dump_to", str(folder)),
        ("xla_dump_hlo_pass_re", "spmd-partitioning"),
        ("xla_dump_hlo_as_proto", True),
    ]
    build = options.executable_build_options
    build.num_partitions = ranks
    build.use_spmd_partitioning = True
    build.use_shardy_partitioner = True
    build.device_assignment = xla.DeviceAssignment.create(np.arange(ranks).reshape(1, ranks))
    client.compile_and_load(module, _jax.DeviceList(tuple(client.local_devices())), options)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
