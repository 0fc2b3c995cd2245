"""The video file: conversion, what a player finds in it, and that half of one is never seen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ltx_run.video import VideoWriter, i420, pcm16

WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from ltx_run.video import VideoWriter
with VideoWriter(Path(sys.argv[1]), 64, 32, 24.0, np.zeros((2, 48000), np.float32), 48000) as writer:
    for _ in range(20):
        writer.frame(np.zeros((32, 64, 3), np.float32))
    print("writing", flush=True)
    time.sleep(60)
"""


def test_i420_against_doubles() -> None:
    """Planes are those of the matrix, computed pixel by pixel in f64, up to the last unit where f32 cuts."""
    frame = np.random.default_rng(0).random((34, 18, 3)).astype(np.float32)
    r, g, b = frame.astype(np.float64).transpose(2, 0, 1)
    y = (0.2126 * r + 0.7152 * g + 0.0722 * b) * 219 + 16
    u = (-0.1146 * r - 0.3854 * g + 0.5 * b) * 224 + 128
    v = (0.5 * r - 0.4542 * g - 0.0458 * b) * 224 + 128
    halves = [plane.reshape(17, 2, 9, 2).mean((1, 3)).reshape(-1) for plane in (u, v)]
    expected = np.concatenate([y.reshape(-1), *halves]).astype(np.uint8).reshape(51, 18)
    difference = i420(frame).astype(int) - expected
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.001


@pytest.mark.parametrize(
    ("colour", "planes"),
    [((0, 0, 0), (16, 128, 128)), ((1, 1, 1), (235, 128, 128)), ((1, 0, 0), (62, 102, 240))],
)
def test_i420_of_plain_colours(colour: tuple[int, ...], planes: tuple[int, ...]) -> None:
    """Black, white and red have their textbook values in limited range, within the cut."""
    picture = i420(np.full((4, 4, 3), colour, np.float32))
    found = picture[0, 0], picture[4, 0], picture[5, 0]
    assert max(abs(int(a) - b) for a, b in zip(found, planes, strict=True)) <= 1


def test_values_outside_are_clipped() -> None:
    """Frames and sound outside their range don't wrap around."""
    assert set(i420(np.full((2, 2, 3), 9, np.float32))[:2].reshape(-1).tolist()) == {255}
    assert pcm16(np.array([[2.0, -2.0], [0.5, -0.5]], np.float32)).tolist() == [
        [32767, -32767],
        [16383, -16383],
    ]


def test_file_as_a_player_reads_it(tmp_path: Path) -> None:
    """Frame count, size, exact rate, colour tags, brightness, and sound of the right length and pitch."""
    path = tmp_path / "clip.mp4"
    seconds = np.arange(48000) / 48000
    wave = np.stack([np.sin(2 * np.pi * 440 * seconds), np.zeros(48000)]).astype(np.float32) / 2
    with VideoWriter(path, 64, 32, 23.976, wave, 48000) as writer:
        for i in range(25):
            writer.frame(np.full((32, 64, 3), i / 24, np.float32))
    with av.open(str(path)) as file:
        context, audio = file.streams.video[0].codec_context, file.streams.audio[0]
        assert file.streams.video[0].average_rate == Fraction(23976, 1000)
        tags = context.color_range, context.colorspace, context.color_primaries, context.color_trc
        assert tags == (1, 1, 1, 1)
        assert (context.name, context.pix_fmt, audio.codec_context.name) == ("h264", "yuv420p", "aac")
        assert abs(float(audio.duration * audio.time_base) - 1) < 0.03
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
    assert (len(frames), frames[0].shape) == (25, (32, 64, 3))
    assert all(abs(frame.mean() - i / 24 * 255) < 4 for i, frame in enumerate(frames))
    spectrum = np.abs(np.fft.rfft(sound[0, 4096 : 4096 + 24000]))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(sound[1]).max() < 0.01


def test_rename_replaces_an_older_file(tmp_path: Path) -> None:
    """An existing file stays until the new one is complete, then it is replaced."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with VideoWriter(path, 64, 32, 24.0, np.zeros((2, 0), np.float32), 48000) as writer:
        writer.frame(np.zeros((32, 64, 3), np.float32))
        assert path.read_bytes() == b"older"
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]


def test_error_leaves_nothing(tmp_path: Path) -> None:
    """An exception while writing removes the temporary file."""

    def fail() -> None:
        with VideoWriter(tmp_path / "clip.mp4", 64, 32, 24.0, np.zeros((2, 9), np.float32), 48000) as writer:
            writer.frame(np.zeros((32, 64, 3), np.float32))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_kill_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    """A process killed while it writes leaves no file under the target's name."""
    path = tmp_path / "clip.mp4"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert [item.suffix for item in tmp_path.iterdir()] == [".part"]
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not path.exists()
