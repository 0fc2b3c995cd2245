"""Plans of all pipelines: they agree with their programs, and say what a recipe says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from ltx_run import flow, soundness
from ltx_run import plan as steps
from ltx_run.bundle import Blob, Memory, Program, TensorInput, TensorSpec
from ltx_run.fingerprint import native
from ltxbuild.components import COMPONENTS
from ltxbuild.errors import RecipeError
from ltxbuild.model import schedule
from ltxbuild.model.params import tree
from ltxbuild.plan.pipeline import Blueprint, blueprint
from ltxbuild.plan.programspec import DISTILLED, Forms, ProgramSpec
from ltxbuild.programs import traceable
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped_config

CONFIG = shipped_config("ltx-2.3-tiny")
SIZE = {"height": 64, "width": 64, "frames": 9, "fps": 24}


def recipe(**fields: Any) -> Recipe:
    """A guided recipe with changes."""
    base = {
        "name": "guided",
        "target": {"platform": "cpu"},
        "pipeline": "guided_one_stage",
        "steps": 5,
        "guidance": {"stg_blocks": [1]},
        "variants": {"default": SIZE},
    }
    return Recipe.model_validate({**base, **fields})


def drawn(**fields: Any) -> Blueprint:
    """What follows from a recipe."""
    return blueprint(recipe(**fields), CONFIG)


def plan(**fields: Any) -> steps.Plan:
    """The plan of the default variant."""
    return drawn(**fields).variants[0].plan


def found(plan: steps.Plan, kind: Any) -> list[Any]:
    """Steps of a kind."""
    return [step for step in plan if isinstance(step, kind)]


def record(spec: ProgramSpec) -> Program:
    """The record of a program that is traced and not compiled."""
    traced = traceable(spec, CONFIG, "bfloat16", Forms())
    table = COMPONENTS[spec.component].table(CONFIG) if spec.component else ()
    params = tree({p.name: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16) for p in table})
    tensors = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in traced.tensors]
    made = jax.eval_shape(traced.function, params, *tensors)
    return Program(
        executable=Blob(sha256="", size=0),
        fingerprint=native(1),
        inputs=tuple(
            TensorInput(name=t.name, shape=t.shape, dtype=t.dtype, spec=(None,) * len(t.shape))
            for t in traced.tensors
        ),
        outputs=tuple(
            TensorSpec(name=name, shape=o.shape, dtype=o.dtype.name, spec=(None,) * len(o.shape))
            for name, o in zip(traced.outputs, made, strict=True)
        ),
        mesh=(),
        weights=spec.weights,
        key="",
        memory=Memory(arguments=0, outputs=0, temp=0, code=0),
        flops=0.0,
    )


IN_TURN = {"target": {"platform": "cpu", "profile": "trn2"}}
IMAGES = {"variants": {"default": {**SIZE, "keyframes": 2}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"pipeline": "guided_two_stage", **IMAGES},
        {"pipeline": "guided_two_stage", "loop": "stepwise", "guidance_batch": "sequential", **IMAGES},
        {"loop": "stepwise", "guidance": {"stg_blocks": [0], "skip_step": 2}, **IMAGES},
        {"guidance": {"video": {"cfg": 1}, "audio": {"cfg": 1}, "stg_blocks": [0]}},
        IN_TURN,
    ],
    ids=["two stages", "two stages stepwise", "skipped steps", "no negative prompt", "prompts in turn"],
)
def test_plans_agree_with_their_programs(fields: dict[str, Any]) -> None:
    """Every tensor has the shape and dtype that its reader takes, down to the frames."""
    made = drawn(**fields)
    kinds = {"vocoder", "audio_decoder", "video_decoder"}  # the same in all pipelines
    records = {name: record(spec) for name, spec in made.programs.items() if spec.kind not in kinds}
    known = [step for step in made.variants[0].plan if flow_knows(step, records)]
    soundness.check(made.variants[0].plan)
    signatures = flow.signatures(tuple(known), records)
    assert signatures["latent.stage1.video"].dtype == "bfloat16"
    assert {name for step in known for name in step.outputs} == signatures.keys()


def flow_knows(step: steps.Step, records: dict[str, Program]) -> bool:
    """Whether all programs of a step were traced."""
    return not isinstance(step, steps.WriteVideo) and records.keys() >= set(steps.programs_of(step))


def test_guided_first_stage_has_the_schedule_of_its_steps() -> None:
    """Sigmas are those of the undistilled model; a second stage keeps the distilled ones."""
    first, second = found(plan(pipeline="guided_two_stage", steps=7), steps.Constant)
    assert first.values == schedule.shifted(7)
    assert second.values == schedule.DISTILLED_STAGE_2


def test_second_stage_is_unguided_on_distilled_weights() -> None:
    """Its program reads no guidance and another weight set; the sound is that of the first stage."""
    made = drawn(pipeline="guided_two_stage")
    by_kind = {spec.kind: spec for spec in made.programs.values()}
    assert by_kind["denoise"].weights == "transformer"
    assert by_kind["denoise_from"].weights == DISTILLED
    assert "batched" not in dict(by_kind["denoise_from"].geometry)
    runs = {step.program.split(".")[0]: step for step in found(made.variants[0].plan, steps.Run)}
    assert runs["audio_decoder"].inputs == ("latent.stage1.audio",)
    assert not {"guidance.video", "context.negative.video"} & set(runs["denoise_from"].inputs)


def test_programs_that_a_name_does_not_tell_apart_are_numbered() -> None:
    """One size is the second stage of a variant and the first of another: same shapes, other weights."""
    neutral = {"cfg": 1, "stg": 0, "modality": 1}
    made = drawn(
        pipeline="guided_two_stage",
        loop="stepwise",
        guidance={"video": neutral, "audio": neutral},
        variants={"small": SIZE, "large": {**SIZE, "height": 128, "width": 128}},
    )
    weights = [
        [made.programs[loop.program].weights for loop in found(variant.plan, steps.Loop)]
        for variant in made.variants
    ]
    assert weights == [["transformer", DISTILLED]] * 2
    twins = [name for name in made.programs if name.endswith("-2")]
    assert len(twins) == 1
    assert twins[0].startswith("denoise_step.2x2x2")


def test_a_video_shorter_than_an_audio_latent_is_refused() -> None:
    """One frame of sixty in a second has no sound."""
    with pytest.raises(RecipeError, match=r"last 0.017 s, shorter than half an audio latent \(0.020 s\)"):
        plan(variants={"default": {**SIZE, "frames": 1, "fps": 60}})


def test_prompts_are_one_batch() -> None:
    """The negative prompt is the second row of every text program, with the recipe's text as its default."""
    made = drawn(guidance={"stg_blocks": [1], "negative_prompt": "fog"})
    (tokenize,) = found(made.variants[0].plan, steps.Tokenize)
    assert tokenize.inputs == ("prompt", "negative_prompt")
    assert tokenize.defaults == {"negative_prompt": "fog"}
    assert dict(made.programs["text_encoder.x2"].geometry)["batch"] == 2


def test_prompts_in_turn_share_a_program() -> None:
    """Where the profile says so, each prompt is tokenized and encoded by itself, by the same programs."""
    made = drawn(**IN_TURN)
    tokenized = found(made.variants[0].plan, steps.Tokenize)
    assert [step.inputs for step in tokenized] == [("prompt",), ("negative_prompt",)]
    assert [list(step.defaults) for step in tokenized] == [[], ["negative_prompt"]]
    assert dict(made.programs["text_encoder"].geometry)["batch"] == 1
    runs = [step.program for step in found(made.variants[0].plan, steps.Run)]
    assert runs[:4] == ["text_encoder", "text_encoder", "connectors", "connectors"]


@pytest.mark.parametrize(
    ("guidance", "passes", "fixed"),
    [
        ({}, 4, ()),
        ({"audio": {"stg": 0}}, 4, ()),
        ({"video": {"stg": 0}, "audio": {"stg": 0}}, 3, ("video.stg",)),
        (
            {"video": {"cfg": 1, "modality": 1}, "audio": {"cfg": 1, "modality": 1}},
            2,
            ("video.cfg", "video.modality"),
        ),
    ],
)
def test_neutral_passes_are_not_compiled(
    guidance: dict[str, Any], passes: int, fixed: tuple[str, ...]
) -> None:
    """A coefficient that is neutral for both modalities leaves its pass out, and can't be changed later."""
    made = drawn(guidance={"stg_blocks": [1], **guidance})
    (spec,) = (spec for spec in made.programs.values() if spec.kind == "denoise")
    size = dict(spec.geometry)
    assert 1 + size["negative"] + bool(size["stg_blocks"]) + size["isolated"] == passes
    assert found(made.variants[0].plan, steps.Scales)[0].fixed == fixed


def test_scales_are_those_of_the_recipe() -> None:
    """In the order that programs take: cfg, stg, modality, rescale; what is left out has its own default."""
    video, audio = found(plan(guidance={"stg_blocks": [1], "video": {"cfg": 4}}), steps.Scales)
    assert video.names == ("video.cfg", "video.stg", "video.modality", "video.rescale")
    assert video.values == (4.0, 1.0, 3.0, 0.7)
    assert audio.values == (7.0, 1.0, 3.0, 0.7)


def test_guidance_that_is_all_neutral_is_none() -> None:
    """One pass has nothing to be guided by: no scales, no second prompt."""
    neutral = {"cfg": 1, "stg": 0, "modality": 1}
    made = plan(guidance={"video": neutral, "audio": neutral})
    assert not found(made, steps.Scales)
    assert found(made, steps.Tokenize)[0].inputs == ("prompt",)


def test_images_are_encoded_at_the_resolution_of_each_stage() -> None:
    """Per stage and slot one image at its size; a temporal upsampler halves the frames they are at."""
    size = {**SIZE, "frames": 17, "keyframes": 1}
    made = blueprint(
        recipe(pipeline="guided_two_stage", upsample="temporal_x2", variants={"default": size}),
        shipped_config("ltx-2.3-tiny", "temporal_x2"),
    )
    loads, places = (found(made.variants[0].plan, k) for k in (steps.LoadImage, steps.PlaceImages))
    assert [load.slot for load in loads] == [0, 1, 0, 1]
    assert [place.every for place in places] == [2, 1]
    spatial = plan(pipeline="guided_two_stage", variants={"default": {**SIZE, "keyframes": 0}})
    assert [load.height for load in found(spatial, steps.LoadImage)] == [32, 64]


def test_a_variant_without_keyframes_takes_no_images() -> None:
    """No encoder is built for it, and its programs have no slots."""
    made = drawn()
    assert not found(made.variants[0].plan, steps.LoadImage | steps.PlaceImages)
    assert "video_encoder" not in {spec.kind for spec in made.programs.values()}


def test_blocks_that_the_model_lacks_are_refused() -> None:
    """The default is the full model's block 28; a model with two blocks says which it has."""
    with pytest.raises(RecipeError, match=r"stg_blocks names 28; the model has blocks 0 to 1"):
        drawn(guidance={})
    assert drawn(guidance={"video": {"stg": 0}, "audio": {"stg": 0}}).programs


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pipeline": "distilled_one_stage"}, "guidance is for guided pipelines"),
        ({"guidance": {"stg_blocks": []}}, "stg_blocks is empty"),
        ({"guidance": {"video": {"cfg": float("inf")}}}, "finite number"),
        ({"steps": 1}, "greater than or equal to 2"),
        ({"variants": {"default": {**SIZE, "keyframes": -1}}}, "greater than or equal to 0"),
    ],
)
def test_guidance_that_does_not_fit_is_refused(fields: dict[str, Any], reason: str) -> None:
    """Sections of guided pipelines in others, and values out of range."""
    with pytest.raises(ValueError, match=reason):
        recipe(**fields)
