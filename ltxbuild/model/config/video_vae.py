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
    norm_layer: Literal["pixel_norm"] = "pixel_norm"
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
        sides = {side: data[side] for side in ("encoder_blocks", "decoder_blocks") if side in data}
        for side, entries in sides.items():
            if not isinstance(entries, list | tuple):
                raise ValueError(f"{side} is {entries!r}, not a list")
        return {**data, **{side: [_block(side, each) for each in sides[side]] for side in sides}}


def _block(side: str, entry: Any) -> Any:
    """A block from the checkpoint's pair of kind and options; one that is a block already stays."""
    match entry:
        case dict():
            return entry
        case [str(kind), int(layers)]:
            options = {"num_layers": layers}
        case [str(kind), dict(options)]:
            pass
        case _:
            raise ValueError(f"{side}: {entry!r} is not a pair of kind and options")
    known = {name: value for name, value in options.items() if name in ("num_layers", "multiplier")}
    if active := sorted(name for name, value in options.items() if name not in known and value):
        raise ValueError(f"{side}: {kind} has unsupported options {', '.join(active)}")
    # What an absent multiplier means depends on the kind.
    return {"kind": kind, "multiplier": 2 if kind.endswith("_res") else 1, **known}
