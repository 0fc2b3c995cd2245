"""Guided pipelines, from the command line to the file, against the official modules."""

from __future__ import annotations

from pathlib import Path

import guided
import pytest
import torch
from guided import Settings
from official import load_transformer
from systems import BF16, F32, PROMPT, SIZE, Official, System, cosine, noise, start
from test_parity import assert_equal_in_f32

pytestmark = pytest.mark.xdist_group("e2e")

SETTINGS = Settings("grey fog", 4, [1], (3.0, 1.0, 3.0, 0.7), (7.0, 1.0, 3.0, 0.7))
CHANGED = Settings("", 4, [1], (2.5, 0.5, 3.0, 0.0), (7.0, 0.0, 1.5, 0.7))
OPTIONS = (
    *("--negative-prompt", ""),
    *("--guidance", "video.cfg=2.5", "--guidance", "video.stg=0.5", "--guidance", "video.rescale=0"),
    *("--guidance", "audio.stg=0", "--guidance", "audio.modality=1.5"),
)
RECIPE = f"""
steps: {SETTINGS.steps}
guidance: {{stg_blocks: {SETTINGS.blocks}, negative_prompt: {SETTINGS.negative}}}
variants: {{default: {{height: {SIZE.height}, width: {SIZE.width}, frames: {SIZE.frames}, fps: 24}}}}
"""


@pytest.fixture(scope="module")
def distilled(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkpoint, for the second stage."""
    folder = tmp_path_factory.mktemp("distilled")
    system.call("ltxbuild", "make-tiny-checkpoint", str(folder), "--seed", "1")
    return folder / "ltx-2.3-tiny.safetensors"


@pytest.fixture(scope="module")
def two_stage_f32(system: System, distilled: Path) -> str:
    """Both stages in f32, on weights of their own."""
    text = f"pipeline: guided_two_stage\nprecision: float32\ncheckpoint: {{distilled: {distilled}}}\n{RECIPE}"
    return system.compile(system.extend("cpu_tiny_guided.yaml", "e2e-guided-f32", text))


@pytest.fixture(scope="module")
def one_stage_bf16(system: System) -> str:
    """One guided stage in bf16."""
    return system.compile(system.extend("cpu_tiny_guided.yaml", "e2e-guided-bf16", RECIPE))


@pytest.mark.parametrize(
    ("settings", "options"), [(SETTINGS, ()), (CHANGED, OPTIONS)], ids=["as in the recipe", "changed"]
)
def test_two_guided_stages_in_f32(
    system: System,
    official: Official,
    two_stage_f32: str,
    distilled: Path,
    settings: Settings,
    options: tuple[str, ...],
) -> None:
    """With the recipe's scales and prompt, and with others at run time, all that is left is rounding."""
    given = noise(SIZE, two_stage=True)
    ours = system.run(two_stage_f32, start(F32, two_stage=True), options=options).tensors
    second = load_transformer(distilled, F32)
    assert_equal_in_f32(ours, guided.run(official.system(F32), PROMPT, given, SIZE, settings, second))


def test_one_guided_stage_in_bf16(system: System, official: Official, one_stage_bf16: str) -> None:
    """In bf16 every tensor is the official one but for rounding, which guidance multiplies."""
    ours = system.run(one_stage_bf16, start(BF16)).tensors
    given = noise(SIZE, two_stage=False)
    theirs = guided.run(official.system(BF16), PROMPT, given, SIZE, SETTINGS)
    assert ours.keys() == theirs.keys()
    cosines = {name: cosine(ours[name], theirs[name]) for name in theirs}
    print({name: f"{1 - value:.1e}" for name, value in cosines.items()})
    assert min(cosines.values()) >= 0.999


def test_the_negative_prompt_is_read(system: System, one_stage_bf16: str) -> None:
    """Another negative prompt changes its own context and the video, and no other context."""
    plain = system.run(one_stage_bf16, start(BF16)).tensors
    other = system.run(one_stage_bf16, start(BF16), options=("--negative-prompt", "sunshine")).tensors
    same = {name for name in plain if torch.equal(plain[name], other[name])}
    assert same == {"context.video", "context.audio"}
