"""Program of the latent upsampler."""

from __future__ import annotations

from functools import partial
from typing import Any

from ltxbuild.compiler.lower import Traceable
from ltxbuild.components import ModelConfig
from ltxbuild.model import upsampler as model
from ltxbuild.plan.programspec import Forms
from ltxbuild.programs.shapes import one_to_one, video_latent


def upsampler(size: dict[str, Any], config: ModelConfig, dtype: str, forms: Forms) -> Traceable:
    """Latent `[1, C, F, h, w]` to `[1, C, F, 2h, 2w]`."""
    assert config.upsampler is not None
    upsample = partial(model.upsample, config=config.upsampler, form=forms.convolution)
    return one_to_one(upsample, video_latent(size, config, dtype), "upscaled")
