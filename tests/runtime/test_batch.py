"""Several prompts at once: what they share, what they don't, and what a failure costs."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import toy
from runtime_helpers import PROMPT, Log, batch, job, request

from ltx_cache.errors import LtxError
from ltx_run import prompts, run
from ltx_run.bundle import decode
from ltx_run.errors import BadPrompt, BadRequests, OutputError, ProgramFailed, ProgramMismatch
from ltx_run.interpreter import Interpreter
from ltx_run.lookup import MANIFEST
from ltx_run.pjrt import Executable
from ltx_run.programs import Programs
from ltx_run.report import Report

SEEDS = (3, 3, 8)
PROMPTS = (PROMPT, "rain", PROMPT)


def three(bundle: Path, folder: Path) -> tuple[Report, Log]:
    """Run three requests, of which two have the same prompt and two the same seed."""
    log = Log()
    requests = [
        request(folder, prompt=text, seed=seed, output=folder / str(number), directory=True)
        for number, (text, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True))
    ]
    return run.run(batch(bundle, *requests), log), log


def pictures(path: Path) -> np.ndarray:
    """All frames of a directory."""
    frames = []
    for file in sorted(path.iterdir()):
        with av.open(str(file)) as image:
            frames.append(next(image.decode(video=0)).to_ndarray())
    return np.stack(frames)


@pytest.mark.parametrize("devices", [1, 4])
def test_batch_gives_what_single_runs_give(bundles: dict[int, Path], tmp_path: Path, devices: int) -> None:
    """Every video of a batch is the one that its prompt and seed give alone."""
    three(bundles[devices], tmp_path)
    found = [pictures(tmp_path / str(number)) for number in range(3)]
    for number, (text, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = job(bundles[devices], tmp_path, prompt=text, seed=seed, output=tmp_path / "9", directory=True)
        run.run(alone, Log())
        assert np.array_equal(pictures(tmp_path / "9"), found[number])
    assert not any(np.array_equal(found[a], found[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_programs_are_loaded_once(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Stages run for all prompts before the next one begins; equal prompts are encoded once."""
    report, log = three(bundles[1], tmp_path)
    calls = {program.name: program.calls for program in report.programs}
    assert calls == {"text_encoder": 2, "denoise_step": 9, "unpatchify": 3, "decoder": 12}
    labels = ["text_encoder 3", "denoise_step 9", "unpatchify 3", "decode and write 12"]
    assert [event for event in log.events if " " in event] == labels
    assert log.events.count("advance") == 3 + 9 + 3 + 12
    assert [(v.prompt, v.seed, v.frames, v.error) for v in report.videos] == [
        (text, seed, toy.FRAMES, None) for text, seed in zip(PROMPTS, SEEDS, strict=True)
    ]


def test_one_failure_leaves_the_others(
    bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose program fails is reported; the others come out complete, and its memory is let go."""
    call = Programs.call

    def failing(self: Programs, name: str, *rest: object) -> object:
        if name == "unpatchify" and self.reports.get(name) and self.reports[name].calls == 1:
            self.reports[name].calls += 1
            raise ProgramFailed("no luck")
        return call(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Programs, "call", failing)
    stopped: list[Interpreter] = []
    monkeypatch.setattr(Interpreter, "stop", lambda self: stopped.append(self))
    report, _ = three(bundles[1], tmp_path)
    assert [video.error for video in report.videos] == [None, "no luck", None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]
    assert [one.job.request.prompt for one in stopped] == ["rain"]


def test_output_that_vanishes_costs_one_video(bundles: dict[int, Path], tmp_path: Path) -> None:
    """A directory that is gone when the video is written is an error of that job."""
    gone = tmp_path / "gone"
    gone.mkdir()
    requests = [request(tmp_path, output=gone / "a.mp4"), request(tmp_path, output=tmp_path / "b.mp4")]
    checked = batch(bundles[1], *requests)
    gone.rmdir()
    report = run.run(checked, Log())
    assert "No such file" in str(report.videos[0].error)
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]


def test_weights_that_the_devices_do_not_take_stop_all(
    bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next video would need the same memory, so nothing is loaded for it again."""
    tries: list[int] = []

    def full(self: Executable, index: int, *_: object) -> None:
        tries.append(index)
        raise ProgramFailed("no memory")

    monkeypatch.setattr(Executable, "put_parts", full)
    with pytest.raises(ProgramMismatch, match="no memory"):
        three(bundles[1], tmp_path)
    assert len(tries) == 1


def test_damage_stops_all(toy_bundle: Path, tmp_path: Path) -> None:
    """Damaged weights are found once, not once per job, and are the run's error."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())
    blob = manifest.weights["transformer"].shared
    assert blob is not None
    path = toy_bundle / "blobs" / blob.sha256
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(LtxError, match="is damaged"):
        three(toy_bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def lines(folder: Path, *texts: object) -> Path:
    """A file of prompts; objects are written as JSON."""
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in texts))
    return path


def test_lines_take_defaults_from_the_command_line(tmp_path: Path) -> None:
    """A line says what it wants otherwise; one without an output is named by its number."""
    last = {"prompt": "b", "seed": 2**64 - 1, "output": "x/b/", "contact_sheet": "b.png"}
    path = lines(tmp_path, {"prompt": "a"}, "", last)
    first, second = prompts.read(path, tmp_path / "out", request(tmp_path, seed=5, variant="wide"))
    assert (first.prompt, first.seed, first.output) == ("a", 5, tmp_path / "out" / "0001.mp4")
    assert (second.prompt, second.seed, second.output) == ("b", 2**64 - 1, tmp_path / "out" / "x" / "b")
    assert (first.directory, first.contact_sheet) == (False, None)
    assert (second.directory, second.contact_sheet) == (True, tmp_path / "out" / "b.png")
    assert first.variant == second.variant == "wide"
    assert second.where == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a"', "line 2: Input data was truncated"),
        ({"seed": 1}, "line 2: Object missing required field `prompt`"),
        ({"prompt": "a", "sed": 1}, "line 2: Object contains unknown field `sed`"),
        ({"prompt": "a", "output": ""}, "line 2: an empty text names no output"),
        ({"prompt": "a", "contact_sheet": ""}, "line 2: an empty text names no output"),
        ({"prompt": "a", "seed": -1}, "line 2: seed -1 is not between 0 and"),
        ({"prompt": "a", "seed": 2**64}, "line 2: seed 18446744073709551616 is not between"),
        ({"prompt": ["a"]}, "line 2: Expected `str`, got `array`"),
    ],
)
def test_unreadable_lines_are_named(tmp_path: Path, line: object, words: str) -> None:
    """A line that can't be read is refused with its number and the reason."""
    with pytest.raises(BadRequests, match=words):
        prompts.read(lines(tmp_path, {"prompt": "a"}, line), tmp_path, request(tmp_path))


def test_files_without_use(tmp_path: Path) -> None:
    """A file without prompts, and lines without an output when there is no directory, are refused."""
    with pytest.raises(BadRequests, match="has no prompts"):
        prompts.read(lines(tmp_path, "", " "), tmp_path, request(tmp_path))
    with pytest.raises(BadRequests, match="line 1: it names no output"):
        prompts.read(lines(tmp_path, {"prompt": "a"}), None, request(tmp_path))


def test_every_bad_prompt_is_listed(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Checks that need the bundle name the lines too, all of them at once."""
    long = {"prompt": "rain " * 50}
    path = lines(tmp_path, long, {"prompt": PROMPT}, long)
    with pytest.raises(BadRequests) as several:
        batch(bundles[1], *prompts.read(path, tmp_path, request(tmp_path)))
    assert [words in several.value.message for words in ("line 1: ", "line 2: ", "line 3: ")] == [
        True,
        False,
        True,
    ]
    path = lines(tmp_path, {"prompt": PROMPT}, long)
    with pytest.raises(BadPrompt, match="line 2: the prompt has 51 tokens"):
        batch(bundles[1], *prompts.read(path, tmp_path, request(tmp_path)))


def test_two_lines_of_one_output(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Two lines that write the same file are refused, both named."""
    path = lines(tmp_path, {"prompt": "a", "output": "a.mp4"}, {"prompt": "rain", "output": "a.mp4"})
    with pytest.raises(OutputError, match=r"line 1 and .* line 2 both go to"):
        batch(bundles[1], *prompts.read(path, tmp_path, request(tmp_path)))
