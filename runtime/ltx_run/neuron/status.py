"""What the functions of Neuron's runtime return: each status with its meaning and the next step.

Source: the header `nrt_status.h` of AWS Neuron's SDK, and the chapter "Neuron Runtime Troubleshooting" of
its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ltx_run.errors import DeviceUnavailable, ProgramFailed

UPGRADE = (
    "upgrade the runtime: sudo apt-get install --only-upgrade aws-neuronx-runtime-lib aws-neuronx-collectives"
)


class Status(NamedTuple):
    """What a status code means, and what to do about it."""

    name: str
    meaning: str
    advice: str


_LOG = "look at the runtime's own lines above (NEURON_RT_LOG_LEVEL=INFO for more)"
_REBOOT = (
    "stop what uses the device, then reload the driver (sudo rmmod neuron; sudo modprobe neuron) or reboot"
)
_REPLACE = "the device is damaged: look at `sudo dmesg`, stop the instance and start it on another host"
_REBUILD = "compile it again for this machine: ltxbuild compile RECIPE"
_MEMORY = "end what else is on the device (neuron-ls names it), or compile a smaller variant"
_BUG = "please report it with the lines above"

STATUSES: Mapping[int, Status] = MappingProxyType(
    {
        1: Status("NRT_FAILURE", "it failed without a reason", _LOG),
        2: Status("NRT_INVALID", "the NEFF, a tensor or an argument is not valid", _REBUILD),
        3: Status("NRT_INVALID_HANDLE", "a handle is not valid", _BUG),
        4: Status("NRT_RESOURCE", "device memory or another resource is used up", _MEMORY),
        5: Status(
            "NRT_TIMEOUT",
            "it took longer than the runtime allows",
            "raise NEURON_RT_EXEC_TIMEOUT (seconds); if it hangs, " + _REBOOT,
        ),
        6: Status("NRT_HW_ERROR", "the hardware failed", _REPLACE),
        7: Status("NRT_QUEUE_FULL", "the queue of executions is full", _BUG),
        9: Status(
            "NRT_LOAD_NOT_ENOUGH_NC",
            "there are not enough free NeuronCores",
            "end the process that holds them (neuron-ls names it), or choose others: NEURON_RT_VISIBLE_CORES",
        ),
        10: Status(
            "NRT_UNSUPPORTED_NEFF_VERSION",
            "the NEFF is of a compiler that this runtime doesn't know",
            UPGRADE,
        ),
        11: Status("NRT_FAIL_HOST_MEM_ALLOC", "the host has no memory left", "free some, then run it again"),
        13: Status("NRT_UNINITIALIZED", "the runtime was not started", _BUG),
        14: Status("NRT_CLOSED", "the runtime was closed before", _BUG),
        15: Status("NRT_QUEUE_EMPTY", "a queue was empty", _BUG),
        101: Status("NRT_EXEC_UNIT_UNRECOVERABLE", "the cores can execute nothing more", _REBOOT),
        1002: Status("NRT_EXEC_BAD_INPUT", "an input has a wrong name or size", _REBUILD),
        1003: Status(
            "NRT_EXEC_COMPLETED_WITH_NUM_ERR",
            "results are not numbers",
            "compare with a CPU build of the recipe; flags such as --auto-cast cost accuracy",
        ),
        1004: Status("NRT_EXEC_COMPLETED_WITH_ERR", "it ended with an error", _LOG),
        1005: Status(
            "NRT_EXEC_NC_BUSY",
            "another model or process holds the NeuronCores",
            "end it (neuron-ls names it), or choose other cores: NEURON_RT_VISIBLE_CORES",
        ),
        1006: Status("NRT_EXEC_OOB", "an index is out of bounds", _BUG),
        1100: Status("NRT_COLL_PENDING", "an exchange between cores is not done", _BUG),
        1200: Status(
            "NRT_EXEC_HW_ERR_COLLECTIVES",
            "the cores got stuck in an exchange between them",
            "check that the cores are of one chip (NEURON_RT_VISIBLE_CORES) and of no other process; else "
            + _REBOOT,
        ),
        1201: Status("NRT_EXEC_HW_ERR_HBM_UE", "device memory is damaged", _REPLACE),
        1202: Status("NRT_EXEC_HW_ERR_NC_UE", "a core's memory had an error", _REBOOT),
        1203: Status("NRT_EXEC_HW_ERR_DMA_ABORT", "a transfer on the device was aborted", _REBOOT),
        1204: Status("NRT_EXEC_SW_NQ_OVERFLOW", "a queue of notifications overflowed", _REBOOT),
        1205: Status("NRT_EXEC_HW_ERR_REPAIRABLE_HBM_UE", "device memory had an error", _REBOOT),
        1206: Status(
            "NRT_NETWORK_PROXY_FAILURE",
            "the network between hosts failed",
            "use cores of one chip: NEURON_RT_VISIBLE_CORES=0-3",
        ),
    }
)
"""Every status but success (0)."""

_UNKNOWN = Status("unknown status", "this version of the runtime has it and ltx-run doesn't", _LOG)
MISSING_DEVICE = (9, 10, 1005)
"""Statuses that say that the machine, as it is, can't run the program."""
NOT_NUMBERS = 1003
WITHOUT_REASON = (1, 2)


def check(status: int, what: str) -> None:
    """Refuse any status but success.

    Args:
        status: Of a call.
        what: What the call was for, as the object of "can't".

    Raises:
        DeviceUnavailable: The machine lacks cores, or a runtime new enough.
        ProgramFailed: Anything else.
    """
    if status:
        known = STATUSES.get(status, _UNKNOWN)
        kind = DeviceUnavailable if status in MISSING_DEVICE else ProgramFailed
        raise kind(f"can't {what}: {known.meaning} ({known.name}, {status})", hint=known.advice)
