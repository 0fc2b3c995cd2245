"""Ways to get NEFFs onto NeuronCores; LTX_NEURON_LOADER names the one to take."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ltx_run.neuron import nrt, settings
from ltx_run.neuron.session import Runner


def check(environment: Mapping[str, str]) -> None:
    """Refuse a machine on which the loader isn't installed, without starting it.

    Raises:
        DeviceUnavailable: Something is missing, or set to what it can't be.
    """
    settings.limits(environment)
    if settings.loader(environment) == "torch-neuronx":
        from ltx_run.neuron import torch_loader

        torch_loader.check()
    else:
        nrt.find(environment)


def start(cores: int, lnc: int) -> Runner:
    """What holds the cores, started.

    Args:
        cores: Logical cores that the programs span.
        lnc: Physical cores in a logical one.

    Raises:
        LtxError: It can't be started.
    """
    own = settings.environment(os.environ, cores, lnc, os.getpid())
    limits = settings.limits(own)
    match settings.loader(os.environ):
        case "libnrt":
            from ltx_run.neuron.process import Process

            return Process(cores, {**os.environ, **own}, limits)
        case "libnrt-in-process":
            from ltx_run.neuron.resident import resident

            os.environ.update(own)
            return resident(cores, limits)
        case "torch-neuronx":
            from ltx_run.neuron.torch_loader import TorchLoader

            os.environ.update(own)
            return TorchLoader(cores)
