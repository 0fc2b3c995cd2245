"""Tensor files in and out."""

from __future__ import annotations

import errno
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from short_disk import short_disk

from ltx_run.errors import BadTensor
from ltx_run.flow import Signature
from ltx_run.safetensors import SafetensorsError
from ltx_run.tensors import read, write

ALLOWED = {"context.video": Signature((1, 2), "bfloat16"), "waveform": Signature((2, 3), "float32")}
CONTEXT = np.array([[1.5, -2]], ml_dtypes.bfloat16)


def test_other_readers_read_what_is_written(tmp_path: Path) -> None:
    """The safetensors library finds the same tensors, bf16 as bf16, none of them in the wrong place."""
    tensors = {
        "odd": np.arange(3, dtype=np.uint8),
        "context.video": CONTEXT,
        "even": np.ones((16, 4), np.float32),
    }
    write(tmp_path / "out.safetensors", tensors)
    found = load_file(tmp_path / "out.safetensors")
    assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in tensors.items()}
    assert all(np.array_equal(found[name], array) for name, array in tensors.items())
    assert [item.name for item in tmp_path.iterdir()] == ["out.safetensors"]


def test_written_tensors_are_read_back(tmp_path: Path) -> None:
    """What the library wrote is taken, if the plan has it."""
    save_file({"context.video": CONTEXT}, tmp_path / "in.safetensors")
    found = read(tmp_path / "in.safetensors", ALLOWED)
    assert list(found) == ["context.video"]
    assert np.array_equal(found["context.video"], CONTEXT)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"waveform": np.zeros((2, 4), np.float32)},
            r"waveform is float32\[2, 4\], the plan has float32\[2, 3\]",
        ),
        (
            {"waveform": np.zeros((2, 3), np.float16)},
            r"waveform is float16\[2, 3\], the plan has float32\[2, 3\]",
        ),
        ({"wave": np.zeros((2, 3), np.float32)}, r"the plan has no tensor wave"),
    ],
)
def test_unfit_tensors_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    """A tensor of another name, shape or dtype is refused; the plan's tensors are listed."""
    save_file(tensors, tmp_path / "in.safetensors")
    with pytest.raises(BadTensor, match=message):
        read(tmp_path / "in.safetensors", ALLOWED)


def test_allowed_tensors_are_listed(tmp_path: Path) -> None:
    """The hint has every name with shape and dtype."""
    save_file({"wave": np.zeros(1, np.float32)}, tmp_path / "in.safetensors")
    with pytest.raises(BadTensor) as caught:
        read(tmp_path / "in.safetensors", ALLOWED)
    assert "context.video bfloat16[1, 2]" in str(caught.value)
    assert "waveform float32[2, 3]" in str(caught.value)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    """A file cut short is named, with both sizes."""
    write(tmp_path / "in.safetensors", {"context.video": CONTEXT})
    data = (tmp_path / "in.safetensors").read_bytes()
    (tmp_path / "in.safetensors").write_bytes(data[:-1])
    with pytest.raises(SafetensorsError, match="truncated"):
        read(tmp_path / "in.safetensors", ALLOWED)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The error has the name that the user knows, and nothing is left behind."""
    path = tmp_path / "out.safetensors"
    with pytest.raises(OSError, match="File too large") as caught, short_disk():
        write(path, {"context.video": CONTEXT})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is replaced, as for videos."""
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    write(tmp_path / "link.safetensors", {"context.video": CONTEXT})
    assert (tmp_path / "link.safetensors").is_symlink()
    assert (tmp_path / "real.safetensors").is_file()


@pytest.mark.parametrize(
    ("shape", "stop"),
    [
        (["1e999"], "4"),
        (["1"], "1e999"),
        (["9" * 4000] * 2, "4"),
        (["1"], "9" * 4300),
        (["9" * 18] * 1000, "4"),
    ],
)
def test_numbers_that_no_tensor_has(tmp_path: Path, shape: list[str], stop: str) -> None:
    """Infinity, and numbers with more digits than a message can have, are an unusable entry."""
    entry = f'{{"dtype": "F32", "shape": [{", ".join(shape)}], "data_offsets": [0, {stop}]}}'
    header = f'{{"waveform": {entry}}}'.encode()
    (tmp_path / "in.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(SafetensorsError, match="tensor waveform has an unusable header entry") as caught:
        read(tmp_path / "in.safetensors", ALLOWED)
    assert len(caught.value.message) < 1000


def test_a_deep_header_is_refused(tmp_path: Path) -> None:
    """Nesting ends in an error of ours, not in the interpreter's."""
    header = b'{"waveform": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    (tmp_path / "in.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(SafetensorsError, match="is not valid JSON"):
        read(tmp_path / "in.safetensors", ALLOWED)
