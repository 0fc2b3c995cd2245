"""What a plan implies before anything runs."""

from __future__ import annotations

import msgspec
import pytest
import toy

from ltx_run import plan as steps
from ltx_run.bundle import Blob, Memory, Program, TensorSpec
from ltx_run.errors import BundleInvalid
from ltx_run.fingerprint import native
from ltx_run.flow import Signature, needed, signatures, stages
from ltx_run.plan import Plan, Step, Tile

RESULTS = {
    "text_encoder": [(toy.TEXT, "bfloat16")] * 2,
    "denoise_step": [(toy.VIDEO, "float32"), (toy.SOUND, "float32")],
    "unpatchify": [((1, toy.WIDTH, *toy.GRID), "float32"), (toy.SOUND, "float32")],
    "vocoder": [((2, toy.SAMPLES), "float32")],
    "decoder": [((1, 3, 16, 24, 3), "bfloat16")],
}


def record(name: str) -> Program:
    """A program's record as the builder writes it, without an executable."""
    outputs = (TensorSpec(name="o", shape=s, dtype=d, spec=(None,) * len(s)) for s, d in RESULTS[name])
    _, inputs, weights, _ = toy.programs()[name]
    return Program(
        executable=Blob(sha256="0" * 64, size=0),
        fingerprint=native(1),
        inputs=inputs,
        outputs=tuple(outputs),
        mesh=((toy.TP, 1),),
        weights=weights,
        key="",
        memory=Memory(arguments=0, outputs=0, temp=0, code=0),
        flops=0.0,
    )


PROGRAMS = {name: record(name) for name in RESULTS}


def changed(kind: type, **fields: object) -> Plan:
    """The toy's plan with fields of one step replaced."""
    return tuple(msgspec.structs.replace(s, **fields) if isinstance(s, kind) else s for s in toy.PLAN)


def moved(tile: Tile) -> Tile:
    """The tile behind the end of the latent; what it makes stays where it was."""
    start, stop = ((time + 2, *rest) for time, *rest in (tile.start, tile.stop))
    return msgspec.structs.replace(tile, start=start, stop=stop)


def kinds(plan: Plan) -> list[str]:
    """Names of the steps' classes."""
    return [type(step).__name__ for step in plan]


def test_signatures_of_every_tensor() -> None:
    """Shapes and dtypes follow from plan and programs."""
    found = signatures(toy.PLAN, PROGRAMS)
    assert found["tokens"] == Signature((1, toy.LENGTH), "int32")
    assert found["mask"] == Signature((1, toy.LENGTH), "bool")
    assert found["sigmas"] == Signature((4,), "float32")
    assert found["latent.stage1.video"] == Signature((1, 16, 3, 2, 4), "float32")
    assert found["frames"] == Signature((5, 16, 32, 3), "uint8")
    assert set(found) == {name for step in toy.PLAN for name in step.outputs}


def test_permute_views_then_permutes() -> None:
    """The signature of a permuted tensor is that of the view, permuted."""
    noise = steps.Noise(outputs=("a",), shape=(1, 24, 16), dtype="bfloat16", draw=0)
    permute = steps.Permute(inputs=("a",), outputs=("b",), view=(1, 3, 2, 4, 16), axes=(0, 4, 1, 2, 3))
    assert signatures((noise, permute), {})["b"] == Signature((1, 16, 3, 2, 4), "bfloat16")


def test_view_has_as_many_values() -> None:
    """A tensor can't be viewed as a larger or smaller one."""
    noise = steps.Noise(outputs=("a",), shape=(2, 12), dtype="float32", draw=0)
    for view in ((5, 5), (2, 6), (-2, 12)):
        permute = steps.Permute(inputs=("a",), outputs=("b",), view=view, axes=(1, 0))
        with pytest.raises(BundleInvalid, match=r"views a, which is float32\[2, 12\], as"):
            signatures((noise, permute), {})


def test_decoder_has_one_result() -> None:
    """A program that makes more, or nothing, is no decoder."""
    for outputs in ((), PROGRAMS["decoder"].outputs * 2):
        other = msgspec.structs.replace(PROGRAMS["decoder"], outputs=outputs)
        with pytest.raises(BundleInvalid, match="its tile doesn't have that size"):
            signatures(toy.PLAN, {**PROGRAMS, "decoder": other})


def test_odd_sizes_are_refused() -> None:
    """Encoders of video take even ones alone."""
    frames = steps.Noise(outputs=("f",), shape=(5, 15, 32, 3), dtype="uint8", draw=0)
    sound = steps.Noise(outputs=("s",), shape=(2, 100), dtype="float32", draw=1)
    write = steps.WriteVideo(inputs=("f", "s"), fps=24, sample_rate=48000)
    with pytest.raises(BundleInvalid, match="no video has frames"):
        signatures((frames, sound, write), {})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (changed(steps.Tokenize, length=9), "text_encoder takes different tensors"),
        (changed(steps.Constant, outputs=("other",)), "reads sigmas before any step makes it"),
        (changed(steps.Noise, shape=(1, 5, 16)), "denoise_step takes different tensors"),
        (changed(steps.Noise, dtype="bfloat16"), "denoise_step takes different tensors"),
        (changed(steps.Run, program="nothing"), "runs program nothing, which the bundle doesn't have"),
        (changed(steps.Tokenize, outputs=("tokens",)), "names 1 results"),
        (changed(steps.DecodeTiles, frames=6), "don't cover the video"),
        (changed(steps.DecodeTiles, tiles=toy.tiles()[::-1]), "don't cover the video"),
        (changed(steps.DecodeTiles, tiles=toy.tiles()[:2]), "don't cover the video"),
        (changed(steps.DecodeTiles, tiles=()), "don't cover the video"),
        (
            changed(steps.DecodeTiles, tiles=(moved(toy.tiles()[0]), *toy.tiles()[1:])),
            "outside of the latent",
        ),
        (changed(steps.DecodeTiles, inputs=("latent.stage1.audio",)), "no latent of a video"),
        (changed(steps.DecodeTiles, together=2), "decoder takes different tensors"),
        (changed(steps.Noise, dtype="complex64"), "noise.video as complex64"),
        (changed(steps.Noise, shape=(1, 0, 16)), r"noise.video as float32\[1, 0, 16\]"),
        (changed(steps.Noise, shape=(-2, -24, 16)), "which no program takes"),
        (changed(steps.Noise, shape=(10**40,)), "which no program takes"),
        (changed(steps.Tokenize, length=0), r"tokens as int32\[1, 0\]"),
        (changed(steps.Tokenize, inputs=()), r"tokens as int32\[0, 8\]"),
        (changed(steps.Tokenize, inputs=("negative_prompt",)), "has no default for it"),
        (changed(steps.Tokenize, inputs=("tokens",)), "a step tokenize reads tokens"),
        (changed(steps.Constant, values=()), r"sigmas as float32\[0\]"),
        (changed(steps.Constant, values=(1.0,)), "loops along sigmas"),
        (changed(steps.Constant, dtype="int32"), "loops along sigmas"),
        (changed(steps.Constant, outputs=("tokens",)), "makes tokens, which is there already"),
        (changed(steps.Constant, outputs=("prompt",)), "makes prompt, which is there already"),
        (changed(steps.Noise, outputs=("a", "b")), "names 2 results"),
        (changed(steps.Run, outputs=("a", "a")), "makes a, which is there already"),
        (changed(steps.Run, inputs=("prompt",)), "a step run reads prompt"),
        (changed(steps.Loop, sigmas="prompt"), "a step loop reads prompt"),
        (changed(steps.WriteVideo, inputs=("waveform", "waveform")), "no video has frames"),
        (changed(steps.WriteVideo, inputs=("frames", "sigmas")), "no video has frames"),
    ],
)
def test_contradictions_are_refused(plan: Plan, message: str) -> None:
    """A plan that can't run to its end doesn't start."""
    with pytest.raises(BundleInvalid, match=message):
        signatures(plan, PROGRAMS)


def test_everything_is_needed_when_nothing_is_given() -> None:
    """Pruning keeps a whole plan as it is."""
    assert needed(toy.PLAN, ()) == toy.PLAN


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (toy.LATENTS, ["Run", "DecodeTiles", "WriteVideo"]),
        ((*toy.LATENTS, "waveform"), ["DecodeTiles", "WriteVideo"]),
        (("frames", "waveform"), ["WriteVideo"]),
        (toy.CONTEXT, ["Constant", "Noise", "Noise", "Loop", "Run", "Run", "DecodeTiles", "WriteVideo"]),
        (("latent.stage1.video",), kinds(toy.PLAN)),
    ],
)
def test_given_tensors_drop_steps(given: tuple[str, ...], left: list[str]) -> None:
    """Steps go of which every result is given or read by nobody; one missing result keeps a step."""
    assert kinds(needed(toy.PLAN, given)) == left


def test_plan_without_output_is_refused() -> None:
    """A plan that writes nothing is no plan."""
    with pytest.raises(BundleInvalid, match="writes no video"):
        needed(toy.PLAN[:-1], ())


def test_decode_runs_with_its_reader() -> None:
    """A decode and the step that reads its frames are one stage, wherever the decode stands."""
    *start, decode, write = toy.PLAN
    whole: list[tuple[Step, ...]] = [*((step,) for step in start), (decode, write)]
    assert list(stages(toy.PLAN)) == whole
    assert list(stages((decode, *start, write))) == whole


def test_frames_need_one_reader() -> None:
    """Frames that nobody reads would never be decoded."""
    with pytest.raises(BundleInvalid, match="no step reads the frames"):
        stages(toy.PLAN[:-1])
