"""Configuration of the audio VAE."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ltxbuild.model.config.section import Section


class AudioVaeConfig(Section):
    """The `audio_vae` section, flattened to what the decoder needs."""

    ch: int = 128
    out_ch: int = 2
    in_channels: int = 2
    ch_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 8
    mel_bins: int = 64
    sampling_rate: int = 16000
    hop_length: int = 160
    double_z: Literal[True] = True
    attn_resolutions: tuple[()] = ()
    mid_block_add_attention: Literal[False]
    norm_type: Literal["pixel"] = "pixel"
    causality_axis: Literal["height"] = "height"
    stft_causal: Literal[True] = True

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: Any) -> Any:
        """Accept the checkpoint's nested section as well as the flat form."""
        if not isinstance(data, dict) or "model" not in data:
            return data
        params = _part(data, "model", "params")
        stft = _part(data, "preprocessing", "stft")
        return {
            **_part(params, "ddconfig"),
            "sampling_rate": params.get("sampling_rate", 16000),
            "hop_length": stft.get("hop_length", 160),
            "stft_causal": stft.get("causal", True),
        }


def _part(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """A section inside a section; empty where there is none."""
    for name in names:
        data = data.get(name, {})
        if not isinstance(data, dict):
            raise ValueError(f"{name} is {data!r}, not a section")
    return data
