"""Which of several processes this one is, from the command line or from the cluster that started it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ltx_run.errors import BadCluster

TPU_PORT = 8482
"""Of the coordinator on the hosts of a TPU slice, as jax has it."""
_PORTS = 4096
_FIRST_PORT = 65536 - _PORTS


class Place(NamedTuple):
    """One process among several.

    Attributes:
        coordinator: `HOST:PORT` at which they meet; process 0 opens it.
        process: Number of this process.
        processes: How many there are.
    """

    coordinator: str
    process: int
    processes: int


def chosen(
    given: tuple[str | None, int | None, int | None], environment: Mapping[str, str] | None
) -> Place | None:
    """The place that a user means; None for a process that is alone.

    Args:
        given: Coordinator, number of the process, and number of processes, as far as they were given.
        environment: Where to find what was not given; None to need all three or none.

    Raises:
        BadCluster: Something is missing, or it contradicts itself.
    """
    if environment is None and set(given) == {None}:
        return None
    coordinator, process, processes = given
    if environment is not None and None in given:
        told = found(environment)
        coordinator = told.coordinator if coordinator is None else coordinator
        process = told.process if process is None else process
        processes = told.processes if processes is None else processes
    if coordinator is None or process is None or processes is None:
        options = zip(("--coordinator", "--process", "--processes"), given, strict=True)
        missing = " and ".join(name for name, value in options if value is None)
        raise BadCluster(f"{missing} is missing", hint="give all three, or --cluster")
    return _place(coordinator, process, processes)


def _place(coordinator: str, process: int, processes: int) -> Place:
    """A place whose parts fit each other."""
    match = re.fullmatch(r".+:(\d{1,5})", coordinator)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise BadCluster(
            f"the coordinator is {coordinator!r}, needed is HOST:PORT with a port from 1 to 65535",
            hint="such as host0:8476",
        )
    if not 0 <= process < processes:
        raise BadCluster(f"there is no process {process} of {processes}: they are numbered from 0")
    return Place(coordinator, process, processes)


def found(environment: Mapping[str, str]) -> Place:
    """The place that a cluster's variables say.

    Args:
        environment: Of the process.

    Raises:
        BadCluster: No known cluster has set its variables, or one of them is no number.
    """
    for needed, read in _CLUSTERS.items():
        if all(name in environment for name in needed):
            try:
                return _place(*read(environment))
            except ValueError as error:
                set_to = ", ".join(f"{name}={environment[name]}" for name in needed)
                raise BadCluster(f"the cluster's variables can't be read: {error} ({set_to})") from None
    listed = "; ".join(", ".join(needed) for needed in _CLUSTERS)
    raise BadCluster(
        f"no cluster has said which process this is; looked for {listed}",
        hint="say it: --coordinator HOST:PORT --process N --processes M",
    )


def _named(environment: Mapping[str, str]) -> tuple[str, int, int]:
    count, number = environment["JAX_NUM_PROCESSES"], environment["JAX_PROCESS_ID"]
    return environment["JAX_COORDINATOR_ADDRESS"], int(number), int(count)


def _slurm(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """The first host of a list such as `n[007,9-12],m3`; a port that other jobs don't have."""
    start = re.match(r"([^,\[]+)(?:\[(\w+))?", environment["SLURM_STEP_NODELIST"])
    if start is None:
        raise ValueError("SLURM_STEP_NODELIST is empty")
    port = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
    host = start[1] + (start[2] or "")
    return f"{host}:{port}", int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])


def _open_mpi(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """The host of mpirun, from `JOB.0;tcp://ADDRESS[,ADDRESS]:PORT`; a port that other jobs don't have."""
    uri = environment["OMPI_MCA_orte_hnp_uri"]
    start = re.match(r"(\d+)\..*?tcp6?://\[?([^,\]]+?)(?:,|\]|:\d+$)", uri)
    if start is None:
        raise ValueError("OMPI_MCA_orte_hnp_uri has no address")
    port = _FIRST_PORT + int(start[1]) // 4096 % _PORTS
    host = f"[{start[2]}]" if ":" in start[2] else start[2]
    return (
        f"{host}:{port}",
        int(environment["OMPI_COMM_WORLD_RANK"]),
        int(environment["OMPI_COMM_WORLD_SIZE"]),
    )


def _tpu(environment: Mapping[str, str]) -> tuple[str, int, int]:
    hosts = environment["TPU_WORKER_HOSTNAMES"].split(",")
    return f"{hosts[0]}:{TPU_PORT}", int(environment["TPU_WORKER_ID"]), len(hosts)


_CLUSTERS: Mapping[tuple[str, ...], Callable[[Mapping[str, str]], tuple[str, int, int]]] = {
    ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"): _named,
    ("SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS"): _slurm,
    ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"): _open_mpi,
    ("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"): _tpu,
}
"""Variables of each cluster, and what reads them; the first that is complete counts."""
