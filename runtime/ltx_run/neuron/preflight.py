"""What is checked before weights go to the device: runtime, chip, cores, memory, and the NEFF's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ltx_run.console import human_bytes
from ltx_run.errors import BundleInvalid, DeviceUnavailable
from ltx_run.neuron.device import Machine, Memory, TensorInfo
from ltx_run.neuron.names import input_name, output_name
from ltx_run.neuron.nrt import DTYPES
from ltx_run.neuron.signature import Signature, part_bytes
from ltx_run.neuron.status import UPGRADE

OLDEST = (2, 27)
"""The first runtime that tells how much memory is used (SDK 2.25)."""
SHOWN = 5
"""Differences between a NEFF and its record that a message lists."""


def check_machine(machine: Machine, cores: int) -> None:
    """Refuse a machine that lacks something that every program needs.

    Raises:
        DeviceUnavailable: The runtime is too old, the chip another, or there are fewer cores.
    """
    if machine.runtime < OLDEST:
        found, needed = (".".join(map(str, version)) for version in (machine.runtime, OLDEST))
        raise DeviceUnavailable(f"the Neuron runtime is {found}, needed is {needed} or newer", hint=UPGRADE)
    if machine.family != "trn2":
        raise DeviceUnavailable(
            f"the program is for trn2, this instance is {machine.family}", hint="run it on a trn2 instance"
        )
    if machine.cores < cores:
        raise DeviceUnavailable(
            f"the program needs {cores} NeuronCores, this process sees {machine.cores}",
            hint=f"give it {cores} of one chip: NEURON_RT_VISIBLE_CORES=0-{cores - 1}",
        )


def check_memory(name: str, memory: Sequence[Memory], needed: int) -> None:
    """Refuse a program that doesn't fit.

    Args:
        name: Of the program.
        memory: Of each core.
        needed: Bytes on each core that its weights and values will take.

    Raises:
        DeviceUnavailable: A core has less left.
    """
    for core, has in enumerate(memory):
        free = has.limit - has.used
        if needed > free:
            raise DeviceUnavailable(
                f"{name} needs {human_bytes(needed)} on core {core}, of {human_bytes(has.limit)} there "
                f"{human_bytes(free)} are free",
                hint="end what else is on the device (neuron-ls names it), or compile a smaller variant",
            )


def check_tensors(signature: Signature, found: Sequence[TensorInfo]) -> None:
    """Compare what a NEFF takes and gives with the program's record.

    Raises:
        BundleInvalid: They differ; lists the first differences.
    """
    differences = list(_differences(signature, found))
    if differences:
        more = f"; {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        listed = "; ".join(differences[:SHOWN])
        raise BundleInvalid(
            f"program {signature.name}: the NEFF contradicts the manifest: {listed}{more}",
            hint="compile it again: ltxbuild compile RECIPE",
        )


def _differences(signature: Signature, found: Sequence[TensorInfo]) -> Iterator[str]:
    expected = {(True, input_name(index)): record for index, record in enumerate(signature.inputs)}
    expected |= {(False, output_name(index)): record for index, record in enumerate(signature.outputs)}
    there = {(info.is_input, info.name): info for info in found}
    for key in there.keys() - expected.keys():
        yield f"it has {'an input' if key[0] else 'an output'} {key[1]}, the manifest hasn't"
    for key, record in expected.items():
        info = there.get(key)
        if info is None:
            yield f"it has no {'input' if key[0] else 'output'} {key[1]}"
        elif info.size != part_bytes(record):
            yield f"{key[1]} has {info.size} bytes on a core, the manifest says {part_bytes(record)}"
        elif info.dtype not in DTYPES[record.dtype.name]:
            yield f"{key[1]} is of the runtime's dtype {info.dtype}, the manifest says {record.dtype.name}"
