"""Files that a run writes: what a player finds in each, and that half of one is never seen."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from short_disk import short_disk

from ltx_run.encoders import Clip, Sound
from ltx_run.errors import OutputError
from ltx_run.movie import MP4, Movie
from ltx_run.outputs import FRAMES, SHEET, Kind, Output, check, kind_of
from ltx_run.pictures import Picture, pcm16

RATE, FRAMES_WRITTEN = 48000, 25
TAGS = {"comment": '{"prompt": "a", "seed": 7}', "description": "a bäll, 球"}
WRITER = """
import sys, time
from fractions import Fraction
from pathlib import Path
import numpy as np
from ltx_run.encoders import Clip
from ltx_run.outputs import Output, kind_of
path = Path(sys.argv[1])
with Output(kind_of(path, directory=not path.suffix), path, Clip(64, 32, 21, Fraction(24)), 8) as output:
    for _ in range(20):
        output.frame(np.zeros((32, 64, 3), np.float32))
    print("writing", flush=True)
    time.sleep(60)
"""


def clip(**changes: object) -> Clip:
    """A second of 440 Hz on the left, silence on the right."""
    seconds = np.arange(RATE) / RATE
    wave = np.stack([np.sin(2 * np.pi * 440 * seconds), np.zeros(RATE)]).astype(np.float32) / 2
    fields = {"width": 64, "height": 32, "frames": FRAMES_WRITTEN, "fps": Fraction("23.976")}
    return Clip(**{**fields, "sound": Sound(wave, RATE), "tags": TAGS, **changes})


def written(path: Path, what: Clip | None = None, depth: int = 4) -> Path:
    """A file of frames from black to white."""
    kind, what = kind_of(path, directory=not path.suffix), what or clip()
    with Output(kind, path, what, depth) as output:
        for i in range(what.frames if kind.pictures else 0):
            output.frame(np.full((32, 64, 3), i / (what.frames - 1), np.float32))
    return path


def frames(path: Path) -> list[np.ndarray]:
    """Frames as a player shows them."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def sound(path: Path) -> np.ndarray:
    """Sound as a player plays it, f32 `[2, N]`."""
    resampler = av.AudioResampler("fltp", "stereo", RATE)
    with av.open(str(path)) as file:
        return np.concatenate(
            [part.to_ndarray() for frame in file.decode(audio=0) for part in resampler.resample(frame)],
            axis=1,
        )


def assert_ramp(found: list[np.ndarray], tolerance: float) -> None:
    """Frames go from black to white."""
    assert (len(found), found[0].shape) == (FRAMES_WRITTEN, (32, 64, 3))
    assert all(abs(frame.mean() - i / 24 * 255) < tolerance for i, frame in enumerate(found))


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize(("suffix", "codecs"), [("mp4", ("h264", "aac")), ("webm", ("vp9", "opus"))])
def test_movie_as_a_player_reads_it(tmp_path: Path, suffix: str, codecs: tuple[str, str], depth: int) -> None:
    """Frame count, size, rate, colour tags, brightness, and sound of the right length and pitch."""
    path = written(tmp_path / f"clip.{suffix}", depth=depth)
    with av.open(str(path)) as file:
        context, audio = file.streams.video[0].codec_context, file.streams.audio[0]
        assert abs(file.streams.video[0].average_rate - Fraction(23976, 1000)) < Fraction(1, 1000)
        tags = context.color_range, context.colorspace, context.color_primaries, context.color_trc
        assert tags == (1, 1, 1, 1)
        assert (context.name, context.pix_fmt, audio.codec_context.name) == (codecs[0], "yuv420p", codecs[1])
        comment = {name.lower(): text for name, text in file.metadata.items()}
        assert (comment["comment"], comment["description"]) == (TAGS["comment"], TAGS["description"])
    assert_ramp(frames(path), 4)
    heard = sound(path)
    assert abs(heard.shape[1] / RATE - 1) < 0.03
    spectrum = np.abs(np.fft.rfft(heard[0, 4096 : 4096 + 24000]))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(heard[1]).max() < 0.01


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_silent_movie(tmp_path: Path, suffix: str) -> None:
    """Without sound there is no audio stream."""
    with av.open(str(written(tmp_path / f"clip.{suffix}", clip(sound=None)))) as file:
        assert (len(file.streams.video), len(file.streams.audio)) == (1, 0)


def test_wav(tmp_path: Path) -> None:
    """Samples come back as they were; the comment is there."""
    path = written(tmp_path / "clip.wav")
    assert np.array_equal(np.round(sound(path) * 32768).astype(int), pcm16(clip().sound.waveform))
    with av.open(str(path)) as file:
        assert (file.metadata["comment"], len(file.streams.video)) == (TAGS["comment"], 0)


@pytest.mark.parametrize("size", [5, 254, 255, 256, 1000])
def test_gif(tmp_path: Path, size: int) -> None:
    """Frames have their colours and times; a comment of any length is there."""
    path = written(tmp_path / "clip.gif", clip(tags={"comment": "x" * size}))
    assert_ramp(frames(path), 3)
    with av.open(str(path)) as file:
        times = [frame.time for frame in file.decode(video=0)]
        assert np.abs(np.array(times) - np.arange(FRAMES_WRITTEN) / 23.976).max() < 0.011
        assert file.metadata["comment"] == "x" * size


def test_gif_keeps_colours(tmp_path: Path) -> None:
    """Up to 256 colours of a frame come back within a unit, whatever the other frames hold."""
    colours = (
        np.random.default_rng(0).integers(0, 256, (3, 4, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    )
    path = tmp_path / "clip.gif"
    with Output(kind_of(path, directory=False), path, clip(frames=3)) as output:
        for colour in colours:
            output.frame((colour / np.float32(255) + np.float32(1e-4)).astype(np.float32))
    assert all(np.abs(a - b.astype(int)).max() <= 1 for a, b in zip(frames(path), colours, strict=True))


def test_directory_of_frames(tmp_path: Path) -> None:
    """Every frame is a PNG file with exact values and the texts; a second video replaces the first."""
    path = written(tmp_path / "frames")
    names = [f"frame_{number:05}.png" for number in range(1, FRAMES_WRITTEN + 1)]
    assert sorted(item.name for item in path.iterdir()) == names
    values = [frames(path / name)[0] for name in names]
    assert all((values[i] == int(np.float32(i / 24) * np.float32(255))).all() for i in range(FRAMES_WRITTEN))
    assert TAGS["comment"].encode() in (path / names[3]).read_bytes()
    written(path, clip(frames=2))
    assert sorted(item.name for item in path.iterdir()) == names[:2]
    assert [item.name for item in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize(("count", "shape"), [(1, (32, 64)), (3, (32, 192)), (5, (64, 256)), (25, (96, 256))])
def test_contact_sheet(tmp_path: Path, count: int, shape: tuple[int, int]) -> None:
    """Frames from first to last, in rows of four, at most twelve."""
    with Output(SHEET, tmp_path / "sheet.png", clip(frames=count)) as output:
        for i in range(count):
            output.frame(np.full((32, 64, 3), (i + 1) / count, np.float32))
    (sheet,) = frames(tmp_path / "sheet.png")
    assert sheet.shape == (*shape, 3)
    cells = sheet[16::32, 32::64, 0].reshape(-1)[: min(count, 12)].astype(float)
    assert (np.diff(cells) > 0).all()
    assert (cells[-1], round(cells[0])) == (255, 255 // count)


def test_contact_sheet_of_large_frames(tmp_path: Path) -> None:
    """Large frames are scaled to cells of 384 pixels."""
    with Output(SHEET, tmp_path / "sheet.png", clip(frames=2, width=768, height=512)) as output:
        for level in (0.25, 0.75):
            output.frame(np.full((512, 768, 3), level, np.float32))
    (sheet,) = frames(tmp_path / "sheet.png")
    assert sheet.shape == (256, 768, 3)
    assert {int(level) for level in np.unique(sheet)} == {63, 191}


def test_rename_replaces_an_older_file(tmp_path: Path) -> None:
    """An existing file stays until the new one is complete, then it is replaced."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with Output(kind_of(path, directory=False), path, clip()) as output:
        output.frame(np.zeros((32, 64, 3), np.float32))
        assert path.read_bytes() == b"older"
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]


@contextmanager
def failing(path: Path, depth: int) -> Iterator[None]:
    """A file that is given up after some frames."""
    kind = kind_of(path, directory=not path.suffix)
    with Output(kind, path, clip(), depth) as output:
        for _ in range(12 if kind.pictures else 0):
            output.frame(np.zeros((32, 64, 3), np.float32))
        yield


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.wav", "frames"])
def test_error_leaves_nothing(tmp_path: Path, name: str, depth: int) -> None:
    """An exception while writing removes what was written, and the thread ends."""
    with pytest.raises(RuntimeError, match="stop"), failing(tmp_path / name, depth):
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_kill_leaves_nothing_of_that_name(tmp_path: Path, name: str) -> None:
    """A process killed while it writes leaves nothing under the target's name."""
    path = tmp_path / name
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    deadline = time.monotonic() + 10
    while [item.suffix for item in tmp_path.iterdir()] != [".part"] and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    assert [item.suffix for item in tmp_path.iterdir()] == [".part"]


class FullDisk(Movie):
    """An encoder whose disk is full at the third picture."""

    def add(self, picture: Picture) -> None:
        """Fail, or append."""
        if self._frames == 2:
            raise av.error.FFmpegError(errno.ENOSPC, "No space left on device", "internal name")
        super().add(picture)


@pytest.mark.parametrize("depth", [0, 2, 99])
def test_encoder_failure_names_the_file(tmp_path: Path, depth: int) -> None:
    """What FFmpeg fails with, in a thread or not, is a system error with the name that the user knows."""
    path = tmp_path / "clip.mp4"

    def write() -> None:
        with Output(Kind(partial(FullDisk, MP4), pictures=True, sound=True), path, clip(), depth) as output:
            for _ in range(FRAMES_WRITTEN):
                output.frame(np.zeros((32, 64, 3), np.float32))

    with pytest.raises(OSError, match="No space left on device") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.wav", "frames", "sheet.png"])
def test_a_full_disk_names_the_file(tmp_path: Path, name: str, depth: int) -> None:
    """Whoever writes: the message has the name that the user knows, not none and not a temporary one."""
    path = tmp_path / name
    kind = SHEET if path.suffix == ".png" else kind_of(path, directory=not path.suffix)

    def write() -> None:
        with short_disk(), Output(kind, path, clip(), depth) as output:
            for _ in range(FRAMES_WRITTEN if kind.pictures else 0):
                output.frame(np.random.default_rng(0).random((32, 64, 3), np.float32))

    with pytest.raises(OSError, match="File too large") as caught:
        write()
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_what_takes_the_place_meanwhile_is_named(tmp_path: Path) -> None:
    """A directory that somebody makes where a file is to go is named, and stays."""
    path = tmp_path / "a.wav"
    with pytest.raises(IsADirectoryError) as caught, Output(kind_of(path, directory=False), path, clip()):
        path.mkdir()
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "directory", "words"),
    [
        ("a.avi", False, "the suffix must be one of .mp4, .webm, .gif, .wav"),
        ("a", False, "the suffix must be one of"),
        ("no/a.mp4", False, "there is no directory"),
        ("no/frames", True, "there is no directory"),
        ("file", True, "it is a file"),
        ("full", True, "notes.txt in it is no frame"),
        ("a\0.mp4", False, r"a\\x00.mp4': embedded null byte"),
        ("circle.mp4", False, "circle.mp4': (Symlink loop|Too many levels)"),
        ("lost.mp4", False, "there is no directory .*/gone"),
        ("pipe.mp4", False, "it is no regular file"),
        ("a" * 300, True, "File name too long"),
        ("a" * 300 + ".mp4", False, "File name too long"),
    ],
)
def test_paths_that_cannot_be_written(tmp_path: Path, name: str, directory: bool, words: str) -> None:
    """Each is refused before anything is made."""
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    (tmp_path / "full" / "frame_00001.png").write_text("")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "lost.mp4").symlink_to("gone/lost.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(OutputError, match=words):
        check(tmp_path / name, kind_of(tmp_path / name, directory=directory))


@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_the_longest_name(tmp_path: Path, suffix: str) -> None:
    """A name is refused exactly if the file system doesn't take the one that the file has meanwhile."""
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(f"..{os.getpid()}.part")
    name = "ä" + "a" * (longest - 2 - len(suffix)) + suffix
    kind = kind_of(tmp_path / name, directory=not suffix)
    check(tmp_path / name, kind)
    written(tmp_path / name)
    with pytest.raises(OutputError, match=f"the name of {longest + 1} bytes is too long: it has"):
        check(tmp_path / f"a{name}", kind)


def test_existing_directories_take_frames(tmp_path: Path) -> None:
    """An existing directory needs no slash, and may be empty or hold frames."""
    assert kind_of(tmp_path, directory=False) is FRAMES
    check(tmp_path, FRAMES)
    (tmp_path / "frame_00001.png").write_text("")
    check(tmp_path, FRAMES)
    with pytest.raises(OutputError, match="it is a directory"):
        check(tmp_path)
