"""Programs: for each kind, the function to trace, its tensors with shapes, and the names of its results.

Each module below has one function per kind, named like it. Kinds are looked up lazily: keys need the name
of a kind's module, never its import.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from ltxbuild.components import ModelConfig
from ltxbuild.plan.programspec import Forms, ProgramSpec

if TYPE_CHECKING:
    from ltxbuild.compiler.lower import Traceable

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "text_encoder": "ltxbuild.programs.text",
        "connectors": "ltxbuild.programs.text",
        "denoise": "ltxbuild.programs.denoising",
        "denoise_from": "ltxbuild.programs.denoising",
        "denoise_step": "ltxbuild.programs.denoising",
        "rope_tables": "ltxbuild.programs.denoising",
        "mix_images": "ltxbuild.programs.denoising",
        "mix_noise": "ltxbuild.programs.denoising",
        "unpatchify": "ltxbuild.programs.denoising",
        "upsampler": "ltxbuild.programs.upsampling",
        "video_encoder": "ltxbuild.programs.video",
        "video_decoder": "ltxbuild.programs.video",
        "audio_decoder": "ltxbuild.programs.audio",
        "vocoder": "ltxbuild.programs.audio",
    }
)


def traceable(spec: ProgramSpec, config: ModelConfig, precision: str, forms: Forms) -> Traceable:
    """The program of a spec, ready to lower.

    Args:
        spec: Kind and geometry.
        config: Of the model.
        precision: Compute dtype, `bfloat16` or `float32`.
        forms: How it is written.
    """
    build = getattr(import_module(MODULES[spec.kind]), spec.kind)
    program: Traceable = build(dict(spec.geometry), config, precision, forms)
    return program
