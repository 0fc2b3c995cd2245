"""Cleaning up what XLA writes: calls, copies, dead code, names, and what is refused with its line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jaxlib import xla_client as xla

from ltxbuild.neuron import hlo
from ltxbuild.neuron.clean import cleaned
from ltxbuild.neuron.hlo import Computation, Instruction, InstructionField, Module
from ltxbuild.neuron.operations import Unsupported
from ltxbuild.neuron.wire import fields

X = jax.ShapeDtypeStruct((4, 3), jnp.float32)


def module(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A function as `HloModuleProto`, before any pass."""
    computation: Any = jax.jit(function).lower(*(arguments or (X,))).compiler_ir("hlo")
    found: bytes = computation.as_serialized_hlo_module_proto()
    return found


def written(data: bytes) -> bytes:
    """A module cleaned up."""
    return hlo.write(cleaned(data))


def opcodes(data: bytes) -> list[str]:
    """Operations of a module."""
    return [item.opcode for item in hlo.read(data).instructions]


def run(graph: bytes, *values: np.ndarray) -> list[np.ndarray]:
    """Execute a cleaned module on one device."""
    from jaxlib import _jax

    device = jax.devices("cpu")[0]
    stable = _jax.mlir.xla_computation_to_mlir_module(xla.XlaComputation(graph))
    loaded = device.client.compile_and_load(stable, _jax.DeviceList((device,)), xla.CompileOptions())
    results = loaded.execute_sharded([jax.device_put(value, device) for value in values])
    return [np.asarray(parts[0]) for parts in results.disassemble_into_single_device_arrays()]


@jax.jit
def _twice(x: Array) -> Array:
    return x + x


@jax.jit
def _mixed(x: Array, y: Array) -> Array:
    return _twice(y) - _twice(x) * x


def test_calls_are_written_out() -> None:
    """Functions within functions, called more than once, with the same results as before."""

    def function(x: Array) -> tuple[Array, Array]:
        return _mixed(x, _twice(x)), _mixed(x * x, x)

    before, value = module(function), np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = written(before)
    assert "call" in opcodes(before)
    assert "call" not in opcodes(graph)
    for got, expected in zip(run(graph, value), function(value), strict=True):
        np.testing.assert_allclose(got, np.asarray(expected))


def test_functions_that_are_applied_stay() -> None:
    """What a reduction adds up with is no call."""
    graph = written(module(lambda x: (jnp.sum(x, axis=1), jnp.max(x, axis=0))))
    assert len(hlo.read(graph).computations) == 3
    value = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert run(graph, value)[0].tolist() == value.sum(1).tolist()


def test_unread_code_goes_and_unread_parameters_stay() -> None:
    """The loader binds every parameter by its number."""

    def function(x: Array, unread: Array) -> tuple[Array, Array]:
        _ = jnp.tanh(unread)
        return x, x

    computation = jax.jit(function, keep_unused=True).lower(X, X).compiler_ir("hlo")
    graph = written(computation.as_serialized_hlo_module_proto())  # type: ignore[union-attr]
    assert sorted(opcodes(graph)) == ["parameter", "parameter", "tuple"]


def test_copies_that_change_nothing_are_skipped() -> None:
    """Their users read what was copied, even through several."""
    shape = b"\x10\x0b"
    value = Instruction("parameter", shape, rest=[(InstructionField.PARAMETER_NUMBER, 0)])
    first = Instruction("copy", shape, [value])
    second = Instruction("copy", shape, [first])
    result = Instruction("tuple", b"\x10\x0d", [second, value])
    entry = Computation([value, first, second, result], result, b"")
    graph = written(hlo.write(Module([entry], entry, b"", "copies")))
    assert opcodes(graph) == ["parameter", "tuple"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rounding_is_written_as_conversions(dtype: Any) -> None:
    """To the nearest, ties to even; rounding to the type's own precision goes."""
    info = jnp.finfo(dtype)

    def function(x: Array) -> tuple[Array, Array]:
        return lax.reduce_precision(x, info.nexp, info.nmant), lax.reduce_precision(x * 2, 8, 23)

    graph = written(module(function))
    assert opcodes(graph).count("convert") == 2
    assert "reduce-precision" not in opcodes(graph)
    value = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    rounded, same = run(graph, value)
    np.testing.assert_array_equal(rounded, value.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(same, value * 2)


def test_tensors_are_named_by_position() -> None:
    """In an attribute of each parameter, and in one of the tuple that the program ends in."""
    graph = hlo.read(written(module(lambda x, y: (x + y, y), X, X)))
    attributes = [
        item.get(InstructionField.ATTRIBUTES) for item in (*graph.entry.parameters, graph.entry.root)
    ]
    names = []
    for attribute in attributes:
        assert isinstance(attribute, bytes)
        ((_, entry),) = fields(attribute)
        assert isinstance(entry, bytes)
        names.append([value for _, value in fields(entry)])
    assert names == [
        [b"neff_input_names", b"input0"],
        [b"neff_input_names", b"input1"],
        [b"neff_output_names", b"output0,output1"],
    ]


def test_a_program_must_end_in_a_tuple() -> None:
    """A single result would have no place for its name."""
    with pytest.raises(Unsupported, match="ends in operation add"):
        written(module(lambda x: x + 1))


def test_an_operation_that_neuron_lacks_is_named_with_its_line() -> None:
    """The line of the code that asked for it, which the cleaned module no longer has."""

    def function(x: Array) -> tuple[Array, Array]:
        return jnp.sort(x), x

    line = inspect.getsourcelines(function)[1] + 1
    with pytest.raises(Unsupported, match=rf"operation sort .*test_neuron_clean\.py:{line} "):
        written(module(function))


def test_elements_of_64_bits_are_refused() -> None:
    """The compiler would cut them to 32 without a word."""
    with jax.enable_x64(True):
        data = module(lambda x: (x + 1, x), jax.ShapeDtypeStruct((2,), jnp.int64))
    with pytest.raises(Unsupported, match="elements of type number 5"):
        written(data)


def test_a_tensor_without_elements_is_refused() -> None:
    """There is no memory for it."""
    with pytest.raises(Unsupported, match="has no elements"):
        cleaned(module(lambda x: (x[:0], x)))


def test_a_field_that_is_not_known_is_refused() -> None:
    """A newer XLA may say something in it that matters."""
    value = Instruction("parameter", b"\x10\x0b", rest=[(InstructionField.PARAMETER_NUMBER, 0), (300, 1)])
    entry = Computation([value], value, b"")
    with pytest.raises(Unsupported, match="operation parameter has field 300"):
        written(hlo.write(Module([entry], entry, b"", "new")))
