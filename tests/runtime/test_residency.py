"""What devices with memory of their own hold at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import toy
from runtime_helpers import Accelerator, Log, job

from ltx_run import residency
from ltx_run import run as interpreter
from ltx_run.bundle import Bundle, Memory, Program, decode
from ltx_run.errors import ProgramMismatch
from ltx_run.job import Batch
from ltx_run.lookup import MANIFEST
from ltx_run.programs import Programs
from ltx_run.safetensors import SafetensorsFile

KILO = 1000


@contextmanager
def programs_on(batch: Batch, memory: int) -> Iterator[Programs]:
    """Programs of a batch on devices with so much memory."""
    batch.machine._opened["cpu"] = Accelerator(memory=memory)
    with Programs(batch.bundle, batch.machine) as programs:
        yield programs


@pytest.fixture
def heavy(edit: Callable[..., Path], toy_bundle: Path) -> Path:
    """The toy, whose text encoder and decoder take 10 kB of code each, and 1 kB of temporaries."""
    manifest: Bundle = decode((toy_bundle / MANIFEST).read_bytes())
    sizes = Memory(arguments=0, outputs=0, temp=KILO, code=10 * KILO)
    return edit(
        programs={
            name: msgspec.structs.replace(program, memory=sizes)
            for name, program in manifest.programs.items()
        }
    )


def program(weights: str | None, shape: tuple[int, ...] = (4, 8), **memory: int) -> Program:
    """A program with one weight, split over two devices, and one tensor."""
    sizes = {"arguments": 0, "outputs": 0, "temp": 0, "code": 0, **memory}
    records: list[Any] = [toy.tensor("x", (2,))]
    if weights is not None:
        records.insert(0, toy.weight("w", shape, "bfloat16", (toy.TP, None)))
    return Program(
        executable=msgspec.convert({"sha256": "0" * 64, "size": 1}, toy.bundle.Blob),
        fingerprint=toy.native(2),
        inputs=tuple(records),
        outputs=(),
        mesh=((toy.TP, 2),),
        weights=weights,
        key="",
        memory=Memory(**sizes),
        flops=0.0,
    )


def test_shared_weights_count_once_and_calls_one_at_a_time() -> None:
    """Weights of a set once, code of all, tensors and temporaries of the largest."""
    first = program("a", arguments=32 + 8, outputs=4, temp=100, code=5)
    second = program("a", arguments=32 + 8, outputs=4, temp=60, code=5)
    assert residency.weight_bytes(first) == 4 * 8 * 2 // 2
    assert residency.footprint([first]) == 32 + 5 + 8 + 4 + 100
    assert residency.footprint([first, second]) == 32 + 10 + 8 + 4 + 100
    other = program("b", arguments=32, code=1)
    assert residency.footprint([first, second, other]) == 64 + 11 + 8 + 4 + 100
    assert residency.footprint([program(None, temp=7)]) == 7


def test_next_weights_go_to_the_device_ahead_if_they_fit(heavy: Path, tmp_path: Path) -> None:
    """The background thread leaves them on the device; without room they wait for their turn."""
    for memory, ahead in ((30 * KILO, True), (15 * KILO, False)):
        with programs_on(job(heavy, tmp_path), memory) as programs:
            programs.read_ahead(["text_encoder", "decoder"])
            first, second = (programs._pending[name].result() for name in ("text_encoder", "decoder"))
            assert first.weights
            assert (second.weights is not None) == ahead


def test_what_does_not_fit_beside_goes(heavy: Path, tmp_path: Path) -> None:
    """A program takes the room of those before it, which are loaded again when they are called again."""
    latent, tokens = np.zeros((1, toy.WIDTH, 2, 2, 3), np.float32), np.zeros((1, toy.LENGTH), np.int32)
    mask = np.ones((1, toy.LENGTH), bool)
    for memory, kept in ((30 * KILO, {"text_encoder", "decoder"}), (15 * KILO, {"decoder"})):
        with programs_on(job(heavy, tmp_path), memory) as programs:
            programs.call("text_encoder", [tokens, mask], [True, True])
            programs.call("decoder", [latent], [True])
            assert programs.resident[0] == kept
            programs.call("text_encoder", [tokens, mask], [True, True])
            assert programs.reports["text_encoder"].calls == 2


def test_weights_that_went_come_back_for_the_next_program(
    heavy: Path, edit: Callable[..., Path], tmp_path: Path
) -> None:
    """A program that was prepared while its weight set lay on the device gets it after it had to go."""
    manifest: Bundle = decode((heavy / MANIFEST).read_bytes())
    edit(programs=manifest.programs | {"again": manifest.programs["decoder"]})
    latent, tokens = np.zeros((1, toy.WIDTH, 2, 2, 3), np.float32), np.zeros((1, toy.LENGTH), np.int32)
    with programs_on(job(heavy, tmp_path), 15 * KILO) as programs:
        (before,) = programs.call("decoder", [latent], [True])
        programs.read_ahead(["text_encoder", "again"])
        assert programs._pending["again"].result().weights is None
        programs.call("text_encoder", [tokens, np.ones((1, toy.LENGTH), bool)], [True, True])
        assert not programs._placed["decoder"]
        (after,) = programs.call("again", [latent], [True])
        assert np.array_equal(before.numpy(), after.numpy())


def test_tight_memory_gives_the_same_video(heavy: Path, tmp_path: Path) -> None:
    """A run with room for one program at a time gives what one with plenty gives."""
    made = []
    for memory in (KILO * KILO, 24 * KILO):
        kept = tmp_path / f"{memory}.safetensors"
        batch = job(heavy, tmp_path, tensors_out=kept)
        batch.machine._opened["cpu"] = Accelerator(memory=memory)
        interpreter.run(batch, Log())
        made.append(SafetensorsFile(kept))
    for name in made[0].header.entries:
        assert np.array_equal(made[0].view(name), made[1].view(name)), name


def test_program_larger_than_the_device_is_refused(heavy: Path, tmp_path: Path) -> None:
    """Before anything is loaded, by name and with both sizes."""
    batch = job(heavy, tmp_path)
    batch.machine._opened["cpu"] = Accelerator(memory=5 * KILO)
    with pytest.raises(
        ProgramMismatch, match=r"text_encoder needs 11\.\d kB on each device, which has 5\.0 kB"
    ):
        interpreter.run(batch, Log())
    assert not (tmp_path / "out.mp4").exists()
