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
from ltx_run.plan import Plan, Step

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
