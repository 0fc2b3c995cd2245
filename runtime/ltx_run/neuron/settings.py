"""How Neuron devices are used: what the environment says, and what a process gets that it doesn't say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from ltx_run.errors import DeviceUnavailable

CORE_SIZE = "NEURON_LOGICAL_NC_CONFIG"
OLD_CORE_SIZE = "NEURON_RT_VIRTUAL_CORE_SIZE"
Loader = Literal["libnrt", "libnrt-in-process", "torch-neuronx"]
LOADER = "LTX_NEURON_LOADER"
TIMEOUT = "NEURON_RT_EXEC_TIMEOUT"
SECONDS = 600
"""How long one execution may take, unless the environment says otherwise: the first one loads code."""
FIRST_PORT, PORTS = 49152, 16384
"""The ports that are no service's."""
MARGIN = 60
"""Seconds that the runtime has beyond that to report it itself."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds after which something that the device does counts as stuck."""

    load: float = 1800
    execute: float = SECONDS + MARGIN


def loader(environment: Mapping[str, str]) -> Loader:
    """The loader that LTX_NEURON_LOADER names.

    Raises:
        DeviceUnavailable: It names none.
    """
    name = environment.get(LOADER, "libnrt")
    if name not in get_args(Loader):
        known = ", ".join(get_args(Loader))
        raise DeviceUnavailable(f"{LOADER} is {name!r}", hint=f"leave it away, or choose of {known}")
    return cast(Loader, name)


def limits(environment: Mapping[str, str]) -> Limits:
    """Limits that leave the runtime's own time to act first.

    Raises:
        DeviceUnavailable: NEURON_RT_EXEC_TIMEOUT is no number of seconds.
    """
    seconds = environment.get(TIMEOUT, str(SECONDS))
    if not seconds.isdecimal():
        raise DeviceUnavailable(f"{TIMEOUT} is {seconds!r}", hint="give whole seconds, or leave it away")
    return Limits(execute=int(seconds) + MARGIN)


def core_size(lnc: int, environment: Mapping[str, str]) -> None:
    """Refuse an environment that sets logical cores to another size than a NEFF is compiled for.

    Raises:
        DeviceUnavailable: It does.
    """
    for variable in (CORE_SIZE, OLD_CORE_SIZE):
        if environment.get(variable, str(lnc)) != str(lnc):
            raise DeviceUnavailable(
                f"the program is compiled for logical cores of {lnc} physical ones (LNC), {variable} is "
                f"{environment[variable]}",
                hint=f"leave it away (unset {variable}), or set flags.lnc in the recipe and compile it again",
            )


def environment(own: Mapping[str, str], cores: int, lnc: int, process: int) -> dict[str, str]:
    """Variables of the runtime for a process that uses a device.

    What the caller's environment has of them stays, except the size of logical cores, which must agree.

    Args:
        own: The caller's environment.
        cores: Logical cores that the largest program spans.
        lnc: Physical cores in a logical one, as the NEFFs are compiled.
        process: Number of this process, from which the port follows over which the ranks find each other.

    Raises:
        DeviceUnavailable: The environment sets logical cores to another size.
    """
    core_size(lnc, own)
    chosen = {
        "NEURON_RT_VISIBLE_CORES": f"0-{cores - 1}" if cores > 1 else "0",
        CORE_SIZE: str(lnc),
        TIMEOUT: str(SECONDS),
        "NEURON_RT_ROOT_COMM_ID": f"127.0.0.1:{FIRST_PORT + process % PORTS}",
        "NEURON_RT_STOCHASTIC_ROUNDING_EN": "0",
    }
    return {name: own.get(name, value) for name, value in chosen.items()}
