"""Lowering: a traceable program, a mesh and a parameter table become StableHLO with named inputs.

Weights come first, in table order, then the tensors of the plan: the executable's parameter order is the
order of the records, and nothing has to be guessed when it is loaded without jax.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltx_run.bundle import TensorInput, TensorSpec, WeightInput
from ltxbuild.compiler.flops import count
from ltxbuild.model.axes import Layout, laid_out
from ltxbuild.model.forms import Layers
from ltxbuild.model.loops import bits
from ltxbuild.model.params import Axes, ParamTable, tree
from ltxbuild.plan.profiles import partition
from ltxbuild.precision import storage_dtype

STACK = "blocks"
"""Path segment of a parameter name below which layers are stacked."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor input of a program.

    Attributes:
        name: In the program.
        shape: Of the whole tensor.
        dtype: Its dtype.
        donated: Whether its memory may be reused for a result.
        axes: Logical axes, for one that the devices split; empty for one that each of them holds whole.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    donated: bool = False
    axes: Axes = ()


@dataclass(frozen=True, slots=True)
class Traceable:
    """A program before lowering.

    Attributes:
        function: `(params, *tensors) -> tuple of arrays`, pure.
        tensors: Its tensor inputs in order.
        outputs: Names of its results in order.
    """

    function: Callable[..., tuple[Array, ...]]
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Lowered:
    """A lowered program.

    Attributes:
        module: jax's lowered object, ready to compile.
        inputs: Records in parameter order.
        outputs: Records in result order.
        mesh: Mesh axes and sizes.
        digest: sha256 of the StableHLO text (no debug info).
        device_kind: What the devices that it is lowered for call themselves.
        flops: Floating-point operations of each device, if they share the work evenly.
    """

    module: jax.stages.Lowered
    inputs: tuple[WeightInput | TensorInput, ...]
    outputs: tuple[TensorSpec, ...]
    mesh: Mapping[str, int]
    digest: str
    device_kind: str
    flops: float


def lower(
    program: Traceable,
    table: ParamTable,
    rules: Mapping[str, str],
    mesh_shape: Mapping[str, int],
    devices: Sequence[jax.Device],
    precision: str,
    *,
    layers: Layers,
) -> Lowered:
    """Trace and lower a program for a mesh.

    Args:
        program: What to lower.
        table: Parameters of its component; empty for a program without.
        rules: Logical axis to mesh axis.
        mesh_shape: Mesh axes and sizes; empty is one device.
        devices: As many as the mesh has, present or not.
        precision: Storage dtype of the weights.
        layers: How those of the component are gone through.
    """
    mesh = _mesh(mesh_shape, devices)
    weights = _weight_inputs(table, rules, precision, unroll=layers == "unroll")
    tensors = [_tensor_input(t, rules) for t in program.tensors]
    inputs: tuple[WeightInput | TensorInput, ...] = (*weights, *tensors)

    def flat(*arrays: Array) -> tuple[Array, ...]:
        params = _params(weights, arrays[: len(weights)], layers)
        return program.function(params, *arrays[len(weights) :])

    jitted = jax.jit(
        flat,
        in_shardings=tuple(_sharding(mesh, i.spec) for i in inputs),
        out_shardings=_sharding(mesh, ()),
        donate_argnums=tuple(n for n, i in enumerate(inputs) if isinstance(i, TensorInput) and i.donated),
        keep_unused=True,
    )
    abstract = [jax.ShapeDtypeStruct(i.shape, i.dtype) for i in inputs]  # type: ignore[no-untyped-call]
    with laid_out(Layout(mesh, rules)), jax.default_matmul_precision(_products(precision, devices[0])):
        traced = jitted.trace(*abstract)
        module = traced.lower()
    outputs = tuple(
        TensorSpec(name=name, shape=info.shape, dtype=info.dtype.name, spec=(None,) * len(info.shape))
        for name, info in zip(program.outputs, module.out_info, strict=True)
    )
    text = module.as_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    flops = count(traced.jaxpr) / mesh.size
    return Lowered(module, inputs, outputs, mesh_shape, digest, devices[0].device_kind, flops)


def _products(precision: str, device: jax.Device) -> str | None:
    """Precision of products of f32, which accelerators would else make in bf16 or TF32."""
    return "highest" if precision == "float32" and device.platform != "cpu" else None


def _sharding(mesh: Mesh, spec: tuple[str | None, ...]) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*spec))  # type: ignore[no-untyped-call]


def _mesh(shape: Mapping[str, int], devices: Sequence[jax.Device]) -> Mesh:
    sizes, names = (tuple(shape.values()), tuple(shape)) if shape else ((1,), ("device",))
    return Mesh(np.array(devices).reshape(sizes), names)


def _tensor_input(tensor: Tensor, rules: Mapping[str, str]) -> TensorInput:
    axes = tensor.axes or (None,) * len(tensor.shape)
    spec = tuple(rules.get(axis) if axis else None for axis in axes)
    return TensorInput(
        name=tensor.name, shape=tensor.shape, dtype=tensor.dtype, spec=spec, donated=tensor.donated
    )


def _weight_inputs(
    table: ParamTable, rules: Mapping[str, str], precision: str, *, unroll: bool
) -> list[WeightInput]:
    inputs = []
    for spec in table:
        axes, dtype = partition(spec, rules), storage_dtype(spec, precision)
        if unroll and spec.stacked:
            inputs += [
                WeightInput(name=spec.name, shape=spec.shape[1:], dtype=dtype, spec=axes[1:], layer=layer)
                for layer in range(spec.shape[0])
            ]
        else:
            inputs.append(WeightInput(name=spec.name, shape=spec.shape, dtype=dtype, spec=axes))
    return inputs


def _params(weights: Sequence[WeightInput], arrays: Sequence[Array], layers: Layers) -> dict[str, Any]:
    """The parameter tree; unrolled stacks become lists of layer trees, or stacks of bf16 their bits."""
    flat: dict[str, Any] = {}
    for weight, array in zip(weights, arrays, strict=True):
        if weight.layer is None:
            as_bits = layers == "bits" and weight.dtype == "bfloat16" and f"{STACK}." in weight.name
            flat[weight.name] = bits(array) if as_bits else array
        else:
            stack, _, inner = weight.name.partition(f"{STACK}.")
            trees = flat.setdefault(f"{stack}{STACK}", [])
            if weight.layer == len(trees):
                trees.append({})
            trees[weight.layer][inner] = array
    return tree(
        {name: [tree(x) for x in leaf] if isinstance(leaf, list) else leaf for name, leaf in flat.items()}
    )
