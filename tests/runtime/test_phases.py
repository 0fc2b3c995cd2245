"""The trace of a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from runtime_helpers import PROMPT, Inside

from ltx_run.phases import phase


def test_trace_names_the_phases(bundles: dict[int, Path], tmp_path: Path, inside: Inside) -> None:
    """Perfetto's file has slices for loading, running, decoding and writing; TensorBoard's lies beside it."""
    arguments = ["-p", PROMPT, "-o", tmp_path / "out.mp4", "-q", "--profile", tmp_path / "trace"]
    code, _, errors = inside(bundles[1], *arguments)
    assert code == 0, errors
    (run,) = (tmp_path / "trace" / "plugins" / "profile").iterdir()
    (planes,) = run.glob("*.xplane.pb")
    assert planes.stat().st_size > 0
    (packed,) = run.glob("*.trace.json.gz")
    events = json.loads(gzip.decompress(packed.read_bytes()))["traceEvents"]
    slices = {event["name"]: event for event in events if event.get("ph") == "X"}
    wanted = ["load denoise_step", "run denoise_step", "run decoder", "decode frames from 0", "write out.mp4"]
    assert set(wanted) <= set(slices)
    started, length = slices["write out.mp4"]["ts"], slices["write out.mp4"]["dur"]
    decoding = slices["decode frames from 0"]
    assert started <= decoding["ts"] <= decoding["ts"] + decoding["dur"] <= started + length


def test_trace_that_cannot_be_written(bundles: dict[int, Path], tmp_path: Path, inside: Inside) -> None:
    """A file where the folder should be is named before anything runs."""
    (tmp_path / "file").write_text("")
    arguments = ["-p", PROMPT, "-o", tmp_path / "out.mp4", "-q", "--profile", tmp_path / "file" / "trace"]
    code, _, errors = inside(bundles[1], *arguments)
    assert code == 1
    assert "trace" in errors
    assert "internal error" not in errors
    assert not (tmp_path / "out.mp4").exists()


def test_nothing_is_traced_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a trace a phase is no more than a with block."""
    with phase("run", "x") as found:
        assert found is None
