"""Compile process, cuda: XLA compiles for GPUs that are not there.

Without a GPU nothing can be tried out: where XLA would choose the fastest of several kernels by running them,
it takes the one that its cost model prefers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
from jax.experimental import topologies

from ltxbuild.compiler.backend import Compiled, compile_for_topology, in_order
from ltxbuild.compiler.lower import Lowered
from ltxbuild.targets.cuda import GPUS, TOPOLOGIES, Gpu


def devices(machine: Mapping[str, Any], count: int) -> Sequence[jax.Device]:
    """The first devices of the topology, which has one host."""
    name = machine["topology"]
    jax.devices()  # finds the plugins
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=name,
        target_config=target_config(GPUS[name.partition(":")[0]]),
        topology=f"1x1x{TOPOLOGIES[name]}",
    )
    return in_order(topology.devices)[:count]


def compile(lowered: Lowered, machine: Mapping[str, Any], flags: Mapping[str, Any]) -> Compiled:
    """Compile for the topology that the program was lowered for."""
    return compile_for_topology(lowered, machine, flags, ("jax-cuda13-pjrt", "nvidia-cudnn-cu13"))


def target_config(gpu: Gpu) -> str:
    """A GPU as XLA's `GpuTargetConfigProto`, in text form.

    The limits are those of compute capability 9.0 (CUDA C++ Programming Guide, technical specifications).
    """
    major, minor = gpu.capability
    cuda, _, _ = version("nvidia-cuda-nvcc").partition(".")
    cudnn = version("nvidia-cudnn-cu13").split(".")
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {gpu.cores}
  clock_rate_ghz: {gpu.clock}
  l2_cache_size: {gpu.l2}
  device_memory_size: {gpu.memory}
  memory_bandwidth: {gpu.bandwidth}
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
runtime_version {{ major: {cuda} }}
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }}
device_description_str: "{gpu.kind}"
"""
