"""Headers of NEFFs: what is read from them, and what is refused."""

from __future__ import annotations

import struct

import pytest

from ltx_run.neuron.neff import BadNeff, NeffHeader, read_header


def made(**fields: int) -> bytes:
    """A NEFF with a payload of five bytes, field by field at the offsets of AWS's documentation."""
    data = bytearray(1024)
    chosen = {"package": 2, "header": 1024, "payload": 5, "major": 2, "minor": 1, "lnc": 2} | fields
    for index, name in enumerate(("package", "header", "payload", "major", "minor")):
        struct.pack_into("<Q", data, 8 * index, chosen[name])
    data[40:55] = b"2.0.21884.0%dev"
    data[204:220] = bytes(range(16))
    data[220:225] = b"model"
    struct.pack_into("<I", data, 552, chosen["lnc"])
    return bytes(data) + b"12345"


def test_a_header_says_version_core_size_and_names() -> None:
    """Every field from its documented place, and the header alone is enough when the size is told."""
    expected = NeffHeader((2, 1), "2.0.21884.0%dev", bytes(range(16)).hex(), "model", 2, 1029)
    assert read_header(made()) == expected
    assert read_header(made()[:1024], 1029) == expected
    assert read_header(made(lnc=1)).lnc == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes are less"),
        (made()[:1000], "1000 bytes are less"),
        (made()[:-1], "archive has 5 bytes, 4 are there"),
        (made(payload=0), "archive has 0 bytes"),
        (made(package=7), "archive of kind 7"),
        (made(header=512), "header of 512 bytes"),
        (made(major=3), "version 3.1"),
        (b"\x7fELF" * 300, "no NEFF"),
    ],
)
def test_what_is_no_whole_neff_is_refused(data: bytes, said: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(BadNeff, match=said):
        read_header(data)
