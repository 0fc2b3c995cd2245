"""Program of the video decoder."""

from __future__ import annotations

from functools import partial
from typing import Any

from ltxbuild.components import ModelConfig
from ltxbuild.lower import Traceable
from ltxbuild.model import video_decoder as model
from ltxbuild.programs.shapes import one_to_one, video_latent


def video_decoder(size: dict[str, Any], config: ModelConfig, dtype: str, kind: str) -> Traceable:
    """One latent tile `[1, C, t, h, w]` to frames `[8 t - 7, 32 h, 32 w, 3]`."""
    decode = partial(model.decode, config=config.ltx.vae)
    return one_to_one(decode, video_latent(size, config, dtype), "frames")
