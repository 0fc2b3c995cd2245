"""Whole runs of the toy bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import toy
from runtime_helpers import PROMPT, Log, job

from ltx_run import run as interpreter
from ltx_run.bundle import decode
from ltx_run.errors import BundleInvalid
from ltx_run.lookup import MANIFEST
from ltx_run.noise import normal
from ltx_run.programs import Programs
from ltx_run.safetensors import SafetensorsFile
from ltx_run.tensors import write

WITHOUT_JAX = """
import sys
from ltx_run.cli import cli
cli(sys.argv[1:], standalone_mode=False)
loaded = {"jax", "torch", "transformers", "huggingface_hub", "ltxbuild"} & set(sys.modules)
sys.exit(f"imported: {loaded}" if loaded else 0)
"""


def expected(seed: int) -> dict[str, np.ndarray]:
    """The toy's results, computed with numpy."""
    weights = toy.weights()
    tokens, mask = np.zeros((1, toy.LENGTH), np.int32), np.zeros((1, toy.LENGTH), bool)
    tokens[0, 3:], mask[0, 3:] = [1, 2, 3, 4, 5], True
    context = toy.text_encoder(np, weights["table"], tokens, mask)
    state = tuple(
        normal(seed=seed, draw=i, shape=s, dtype="float32") for i, s in enumerate((toy.VIDEO, toy.SOUND))
    )
    sigmas = np.array(toy.SIGMAS, np.float32)
    for i in range(len(sigmas) - 1):
        pair = sigmas[i : i + 1], sigmas[i + 1 : i + 2]
        state = toy.denoise_step(np, weights["mix"], weights["back"], *state, *pair, *context)
    video, audio = toy.unpatchify(np, *state)
    ((frames,),) = toy.decode(np, weights["rgb"], video)
    return {
        "context.video": context[0],
        "context.audio": context[1],
        "latent.stage1.video": video,
        "latent.stage1.audio": audio,
        "waveform": toy.vocoder(np, audio)[0],
        "frames": (frames.astype(np.float32) * 255).astype(np.uint8),
    }


@pytest.mark.parametrize("devices", [1, 4])
def test_whole_run(bundles: dict[int, Path], tmp_path: Path, devices: int) -> None:
    """A run writes a playable file and the right tensors, and never imports jax."""
    arguments = [str(bundles[devices]), "-p", PROMPT, "-o", str(tmp_path / "out.mp4"), "--seed", "3"]
    arguments += ["--tensors-out", str(tmp_path / "out.safetensors"), "--json"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [program["name"] for program in report["programs"]] == list(toy.programs())
    assert {program["name"]: program["calls"] for program in report["programs"]}["denoise_step"] == 3

    kept = SafetensorsFile(tmp_path / "out.safetensors")
    for name, reference in expected(seed=3).items():
        found = kept.view(name)
        assert found.dtype == reference.dtype
        assert np.abs(found.astype(np.float32) - reference.astype(np.float32)).max() <= 1e-6, name
    assert sorted(kept.header.entries) == report["videos"][0]["kept"] == sorted(expected(seed=3))

    with av.open(str(tmp_path / "out.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert (len(frames), frames[0].shape) == (toy.FRAMES, (toy.HEIGHT, toy.PIXELS, 3))


def test_given_latents_skip_their_steps(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Latents from a file replace all that makes them, need no prompt, and give the same frames."""
    whole = job(bundles[1], tmp_path, tensors_out=tmp_path / "whole.safetensors")
    interpreter.run(whole, Log())
    made = SafetensorsFile(tmp_path / "whole.safetensors")
    write(tmp_path / "in.safetensors", {name: made.view(name) for name in toy.LATENTS})

    again = job(
        bundles[1], tmp_path, prompt=None,
        tensors_in=tmp_path / "in.safetensors", tensors_out=tmp_path / "again.safetensors",
    )  # fmt: skip
    report = interpreter.run(again, Log())
    assert [program.name for program in report.programs] == ["vocoder", "decoder"]
    kept = SafetensorsFile(tmp_path / "again.safetensors")
    assert sorted(kept.header.entries) == sorted((*toy.LATENTS, "waveform", "frames"))
    assert np.array_equal(kept.view("frames"), made.view("frames"))


def test_one_given_output_of_two(bundles: dict[int, Path], tmp_path: Path) -> None:
    """A step of which one result is given still runs for the other, and the given one counts."""
    silence = np.zeros(toy.TEXT, toy.weights()["table"].dtype)
    write(tmp_path / "in.safetensors", {"context.audio": silence})
    given = job(
        bundles[1], tmp_path, tensors_in=tmp_path / "in.safetensors", tensors_out=tmp_path / "out.safetensors"
    )
    report = interpreter.run(given, Log())
    kept = SafetensorsFile(tmp_path / "out.safetensors")
    assert report.programs[0].name == "text_encoder"
    assert not kept.view("context.audio").any()
    assert np.abs(kept.view("latent.stage1.audio") - expected(10)["latent.stage1.audio"]).max() > 1e-3
    assert np.abs(kept.view("latent.stage1.video") - expected(10)["latent.stage1.video"]).max() <= 1e-6


def test_given_frames_are_only_written(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Frames from a file are written as they are; no video is decoded."""
    frames = np.full((toy.FRAMES, toy.HEIGHT, toy.PIXELS, 3), 200, np.uint8)
    write(tmp_path / "in.safetensors", {"frames": frames})
    report = interpreter.run(job(bundles[1], tmp_path, tensors_in=tmp_path / "in.safetensors"), Log())
    assert "decoder" not in [program.name for program in report.programs]
    with av.open(str(tmp_path / "out.mp4")) as video:
        shown = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.astype(int) - 200).max() <= 3


def test_nothing_outlives_its_last_use(bundles: dict[int, Path], tmp_path: Path) -> None:
    """Programs and weight sets go after the last stage that uses them; the next ones are loading by then."""
    resident: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    sound = job(bundles[4], tmp_path)
    with Programs(sound.bundle, sound.machine) as programs:
        log = Log(on_start=lambda label: resident.setdefault(label, programs.resident))
        run = interpreter.Runner(sound, programs, log)
        run.run()
        assert programs.resident == (frozenset(), frozenset())
        assert not run._jobs[0]._values
    assert resident["text_encoder"][0] == {"text_encoder", "denoise_step"}
    assert resident["unpatchify"] == ({"unpatchify", "vocoder"}, frozenset())
    assert resident["decode and write"][0] == {"decoder"}


def test_progress_counts_steps_and_tiles(bundles: dict[int, Path], tmp_path: Path) -> None:
    """The observer hears of every denoising step and of every tile."""
    log = Log()
    interpreter.run(job(bundles[1], tmp_path), log)
    assert log.events[3:7] == ["denoise_step 3", "advance", "advance", "advance"]
    assert log.events[-6:] == ["decode and write 4", *["advance"] * 4, "finish"]


def test_weights_are_not_copied(bundles: dict[int, Path], tmp_path: Path) -> None:
    """On a CPU the device reads the mapped file itself, also for one layer of a stack and on every rank."""
    sound = job(bundles[4], tmp_path)
    with Programs(sound.bundle, sound.machine) as programs:
        programs.read_ahead(["denoise_step"])
        loaded = programs._get("denoise_step")
        files = programs._weights["transformer"]
        for index, record in enumerate(sound.bundle.manifest.programs["denoise_step"].inputs[:3]):
            tensor = loaded._arguments[index]
            assert tensor is not None
            for rank, part in enumerate(files.parts(record, tensor.distribution)):
                assert tensor._shard(rank).ctypes.data == part.ctypes.data


def test_donated_inputs_survive_while_needed(bundles: dict[int, Path], tmp_path: Path) -> None:
    """What a program takes over is copied first if a later step reads it, and only then."""
    sound = job(bundles[1], tmp_path)
    with Programs(sound.bundle, sound.machine) as programs:
        context = np.zeros(toy.TEXT, toy.weights()["table"].dtype)
        sigma = np.ones(1, np.float32)
        state = [np.ones(toy.VIDEO, np.float32), np.ones(toy.SOUND, np.float32)]
        rest = [sigma, sigma / 2, context, context]
        first = programs.call("denoise_step", [*state, *rest], [True] * 6)
        before = np.array(first[0].numpy())
        programs.call("denoise_step", [*first, *rest], [False] * 6)
        assert np.array_equal(first[0].numpy(), before)
        programs.call("denoise_step", [*first, *rest], [True] * 6)
        assert first[0].array.is_deleted()


def test_damaged_weights_stop_the_run(toy_bundle: Path, tmp_path: Path) -> None:
    """A flipped bit in a weight file is found before the file is used, and leaves no output."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())
    blob = manifest.weights["decoder"].shared
    assert blob is not None
    path = toy_bundle / "blobs" / blob.sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleInvalid, match="damaged"):
        interpreter.run(job(toy_bundle, tmp_path), Log())
    assert sorted(item.name for item in tmp_path.iterdir()) == ["toy"]


def test_weights_of_another_shape(toy_bundle: Path, edit: Callable[..., Path], tmp_path: Path) -> None:
    """A weight file that holds another tensor than the program takes is refused by name."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())
    folder = toy.Folder(toy_bundle)
    wrong = folder.tensors({"rgb": np.zeros((toy.WIDTH, 4), np.float32)})
    sets = manifest.weights | {"decoder": toy.bundle.WeightSet(shared=wrong, ranks=(), key="")}
    edit(weights=sets)
    with pytest.raises(BundleInvalid, match=r"holds rgb as float32\[16, 4\], needed is float32\[16, 3\]"):
        interpreter.run(job(toy_bundle, tmp_path), Log())
