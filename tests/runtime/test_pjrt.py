"""The only module that touches jaxlib's private interface."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import toy

from ltx_run import clients
from ltx_run.arrays import Tensor, sharding_of
from ltx_run.bundle import Bundle, Program, TensorSpec, decode
from ltx_run.clients import cpu
from ltx_run.distribution import DTYPES, Distribution
from ltx_run.errors import BundleInvalid, ProgramFailed
from ltx_run.lookup import MANIFEST
from ltx_run.pjrt import Devices, Executable


def loaded(folder: Path, name: str, **changes: Any) -> tuple[Devices, Executable]:
    """A program of the toy, with its record changed."""
    manifest: Bundle = decode((folder / MANIFEST).read_bytes())
    program: Program = msgspec.structs.replace(manifest.programs[name], **changes)
    count = manifest.programs[name].fingerprint.devices
    devices = Devices(cpu(count))
    return devices, devices.load(name, program, (folder / "blobs" / program.executable.sha256).read_bytes())


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int32", "bool", "uint8"])
def test_host_arrays_there_and_back(dtype: str, count: int) -> None:
    """Every dtype survives the way to the devices and back."""
    values = (np.arange(32).reshape(4, 8) % 3).astype(DTYPES[dtype])
    distribution = Distribution.of((4, 8), dtype, (None, None), {"tp": count})
    found = Devices(cpu(count)).put(values, distribution).numpy()
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_split_arrays_are_joined(bundles: dict[int, Path]) -> None:
    """Parts on four devices come back in their places, whatever axis is split."""
    _, program = loaded(bundles[4], "denoise_step")
    split = [index for index, distribution in enumerate(program.inputs) if not distribution.replicated]
    assert {program.inputs[index].counts for index in split} == {(4, 1), (1, 4)}
    for index in split:
        distribution = program.inputs[index]
        values = np.random.default_rng(index).random(distribution.shape).astype(np.float32)
        assert np.array_equal(program.put_parts(index, distribution.split(values)).numpy(), values)


def test_numbers_empty_and_scalar() -> None:
    """Tensors without axes and without elements come back too."""
    devices = Devices(cpu(1))
    for shape in ((), (0, 3)):
        distribution = Distribution.of(shape, "float32", (None,) * len(shape), {})
        assert devices.put(np.ones(shape, np.float32), distribution).numpy().shape == shape


def test_aligned_host_memory_is_not_copied() -> None:
    """The device uses aligned host memory itself, and the host reads the device's."""
    raw = np.zeros(64 + 4096, np.uint8)
    start = -raw.ctypes.data % 64
    aligned = raw[start : start + 4096].view(np.float32)
    tensor = Devices(cpu(1)).put(aligned, Distribution.of((1024,), "float32", (None,), {}))
    assert tensor.numpy().ctypes.data == aligned.ctypes.data


def test_values_outlive_their_tensor() -> None:
    """What was read stays valid and read-only when the tensor is gone."""
    tensor = Devices(cpu(1)).put(
        np.arange(3.0, dtype=np.float32), Distribution.of((3,), "float32", (None,), {})
    )
    copied = tensor.copy()
    values = copied.numpy()
    del tensor, copied
    assert values.tolist() == [0, 1, 2]
    assert not values.flags.writeable


def test_tensor_as_the_program_takes_it_stays_on_the_devices(bundles: dict[int, Path]) -> None:
    """A result that lies as the next program takes it is passed on as it is, another is laid out anew."""
    _, program = loaded(bundles[4], "denoise_step")
    names = [index for index, d in enumerate(program.inputs) if d.shape == toy.SOUND]
    audio = program.argument(names[0], np.ones(toy.SOUND, np.float32))
    assert program.argument(names[0], audio) is audio
    _, single = loaded(bundles[1], "vocoder")
    moved = single.argument(0, audio)
    assert moved is not audio
    assert np.array_equal(moved.numpy(), audio.numpy())


def test_devices_without_room(bundles: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others use the devices' memory, a tensor that doesn't fit is an error of the program."""
    _, program = loaded(bundles[1], "vocoder")
    placed = program.argument(0, np.ones(toy.SOUND, np.float32))

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    for name in ("batched_device_put", "batched_copy_array_to_devices_with_sharding"):
        monkeypatch.setattr(clients._jax, name, full)
    words = r"float32\[.*\] can't be put on the devices: RESOURCE_EXHAUSTED"
    with pytest.raises(ProgramFailed, match=words) as caught:
        program.argument(0, np.ones(toy.SOUND, np.float32))
    assert "other processes" in str(caught.value.hint)
    with pytest.raises(ProgramFailed, match=words):
        placed.copy()


def test_wrong_records_are_refused(bundles: dict[int, Path]) -> None:
    """A manifest that contradicts the executable is named, with both values."""
    _, program = loaded(bundles[4], "denoise_step")
    split = [TensorSpec(name="o", shape=toy.VIDEO, dtype="float32", spec=(None, toy.TP, None))]
    second = TensorSpec(name="o", shape=toy.SOUND, dtype="float32", spec=(None, None, None))
    with pytest.raises(
        BundleInvalid, match=r"splits its outputs as \(1, 1, 4\), the manifest says \(1, 4, 1\)"
    ):
        loaded(bundles[4], "denoise_step", outputs=(*split, second))
    with pytest.raises(BundleInvalid, match="has 2 outputs, the manifest lists 1"):
        loaded(bundles[4], "denoise_step", outputs=(second,))
    with pytest.raises(BundleInvalid, match="spans 4 devices, its mesh"):
        loaded(bundles[4], "denoise_step", mesh=((toy.TP, 2),))
    assert len(program.outputs) == 2


def test_distributions_are_what_the_compiler_says(bundles: dict[int, Path]) -> None:
    """What is recorded describes the executable's own shardings, so that it can stand in for them."""
    _, program = loaded(bundles[4], "denoise_step")
    protos = program._loaded.get_parameter_shardings()
    split = 0
    for record, proto in zip(program.inputs, protos, strict=True):
        assert sharding_of(record) == clients.xla.HloSharding.from_proto(proto)
        split += not record.replicated
    assert split == 3


def test_part_of_a_mesh_splits_an_array() -> None:
    """Ranks that hold the same part are told of together, whichever axis of the mesh splits."""
    mesh = {"cp": 2, "tp": 2}
    for axis, order in (("cp", [0, 1, 2, 3]), ("tp", [0, 2, 1, 3])):
        proto = sharding_of(Distribution.of((4, 6), "float32", (None, axis), mesh)).to_proto()
        assert proto.tile_assignment_dimensions == [1, 2, 2]
        assert proto.tile_assignment_devices == order
        assert proto.replicate_on_last_tile_dim


def test_broken_executable_is_refused(bundles: dict[int, Path]) -> None:
    """Bytes that are no executable are an error of the bundle, not a crash."""
    manifest: Bundle = decode((bundles[1] / MANIFEST).read_bytes())
    with pytest.raises(BundleInvalid, match="can't be loaded"):
        Devices(cpu(1)).load("vocoder", manifest.programs["vocoder"], b"nothing")


def test_wrong_shape_fails_with_the_program_named(bundles: dict[int, Path]) -> None:
    """The runtime's own refusal of an argument becomes an error that names the program."""
    devices, program = loaded(bundles[1], "vocoder")
    wrong = devices.put(np.ones((3, 3), np.float32), Distribution.of((3, 3), "float32", (None, None), {}))
    with pytest.raises(ProgramFailed, match="program vocoder failed"):
        program.execute([wrong])


def test_interrupt_gets_through_a_wait() -> None:
    """Ctrl-C ends the wait for a program that still runs."""

    class Busy:
        def is_ready(self) -> bool:
            return False

    tensor = Tensor(Busy(), Distribution.of((), "float32", (), {}), Devices(cpu(1)))
    # A shell without job control has its background processes ignore the signal, and so would this one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            tensor.wait()
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert time.monotonic() - started < 5
