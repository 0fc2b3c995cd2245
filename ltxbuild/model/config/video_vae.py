"""Configuration of the video VAE."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ltxbuild.model.config.section import Section


class VaeBlock(Section):
    """One stage of the video VAE: `res_x` (residual blocks) or a sampler such as `compress_all_res`."""

    kind: str
    num_layers: int = 1
    multiplier: int = 1


class VideoVaeConfig(Section):
    """The `vae` section."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 128
    patch_size: int = 4
    decoder_base_channels: int = 128
    encoder_blocks: tuple[VaeBlock, ...]
    decoder_blocks: tuple[VaeBlock, ...]

    dims: Literal[3] = 3
    norm_layer: Literal["pixel_norm"]
    latent_log_var: Literal["uniform"] = "uniform"
    causal_decoder: Literal[False] = False
    timestep_conditioning: Literal[False]
    spatial_padding_mode: Literal["zeros"]

    @model_validator(mode="before")
    @classmethod
    def _blocks(cls, data: Any) -> Any:
        """Turn the checkpoint's `[kind, options]` pairs into blocks."""
        if not isinstance(data, dict):
            return data
        known = {"num_layers", "multiplier"}
        out = dict(data)
        for side in ("encoder_blocks", "decoder_blocks"):
            blocks = []
            for entry in data.get(side, ()):
                if isinstance(entry, dict):
                    blocks.append(entry)
                    continue
                kind, options = entry
                options = {"num_layers": options} if isinstance(options, int) else dict(options)
                active = sorted(k for k, v in options.items() if k not in known and v)
                if active:
                    raise ValueError(f"{side}: {kind} has unsupported options {', '.join(active)}")
                # What an absent multiplier means depends on the kind.
                defaults = {"multiplier": 2 if kind.endswith("_res") else 1}
                blocks.append({"kind": kind, **defaults, **{k: v for k, v in options.items() if k in known}})
            out[side] = blocks
        return out
