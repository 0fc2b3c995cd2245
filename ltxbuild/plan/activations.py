"""What a program needs beside its inputs while it runs, estimated from its sizes.

A formula per kind of component: what lives through a layer, plus the most that any part of a layer holds at
once. Compilers fuse more or less than that; a test holds the result within a factor of `ACCURACY` of what
XLA:CPU reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from ltxbuild.components import ModelConfig
from ltxbuild.model.config import GeneratorConfig
from ltxbuild.model.forms import BAND_BYTES, BLOCK_QUERIES
from ltxbuild.model.geometry import MEL_STRIDE
from ltxbuild.model.video_stages import decoder_stages, encoder_stages
from ltxbuild.plan.arguments import F32, batched_passes, table_numbers
from ltxbuild.plan.placement import Placement
from ltxbuild.plan.programspec import Forms, ProgramSpec

ACCURACY = 2
"""Factor within which the estimate and XLA:CPU agree, in either direction."""
CONVOLUTIONS = frozenset({"upsampler", "video_encoder", "video_decoder"})
LARGEST = 4
"""Part of such a program's weights that its largest convolutions hold, at most: one in so many."""
TAPS = 9
"""Of the spatial kernels."""
F32_WEIGHTS = frozenset({"vocoder"})
COPIES = 4
"""Of the widest activation, with convolutions band by band: input, what is added, repeated ends, output."""
FILTERS = 3 * 16
"""Numbers for Winograd's products, of each pair of channels."""


class _Case(NamedTuple):
    """What the formulas look at.

    Attributes:
        sizes: Geometry of the program.
        config: Of the model.
        parts: Devices that a logical axis is split over.
        forms: How the program is written.
        item: Bytes of a number.
        platform: Target platform.
    """

    sizes: dict[str, Any]
    config: ModelConfig
    parts: Callable[[str], int]
    forms: Forms
    item: int
    platform: str


class _Layer(NamedTuple):
    """One layer of a transformer on one device: tokens that ask and that are asked, and widths."""

    asking: int
    asked: int
    width: int
    inner: int
    heads: int
    hidden: int


def temporary(
    spec: ProgramSpec, config: ModelConfig, placement: Placement, forms: Forms, item: int, weights: int
) -> int:
    """Bytes of scratch memory and of results on each device.

    Args:
        spec: The program.
        config: Of the model.
        placement: Where it runs.
        forms: How it is written.
        item: Bytes of a number in the recipe's precision.
        weights: Bytes of its weights on a device.
    """
    case = _Case(dict(spec.geometry), config, placement.parts, forms, item, placement.platform)
    return _FORMULAS[spec.kind](case) + _copied(spec, case, weights)


def _copied(spec: ProgramSpec, case: _Case, weights: int) -> int:
    """What XLA:CPU copies: stacks of layers to get at their bits; or what a convolution turns round."""
    if case.platform != "cpu" or spec.kind in F32_WEIGHTS or case.forms.convolution == "winograd":
        return 0
    if spec.kind in CONVOLUTIONS:
        return weights // LARGEST
    return weights if case.forms.layers == "bits" and case.item < F32 else 0


def _denoise(case: _Case) -> int:
    """Both streams, rotary tables and modulated text; the larger layer; weights where they are gathered."""
    sizes, model, item = case.sizes, case.config.ltx.transformer, case.item
    video, audio, length = model.video_dim, model.audio_dim, sizes["length"]
    tokens = (sizes["frames"] + sizes.get("keyframes", 0)) * sizes["height"] * sizes["width"]
    own, heads = tokens // case.parts("tokens"), case.parts("heads")
    passes = batched_passes(sizes)
    streams = 2 * (own * video + sizes["audio"] * audio) + length * (video + audio)
    made = table_numbers(sizes, case.config) // case.parts("tokens") // heads
    tables = 0 if "tables" in sizes else made
    hidden = 4 * video // case.parts("mlp")
    gathered = 2 * hidden * video if case.parts("embed") > 1 else 0
    count = model.num_attention_heads // heads
    layers = (
        _Layer(own, max(tokens, length), video, video // heads, count, hidden),
        _Layer(sizes["audio"], max(tokens, length), audio, audio // heads, count, hidden * audio // video),
    )
    layer = max(_layer(case, each) for each in layers)
    return int(item * (passes * streams + tables + gathered) + passes * layer)


def _layer(case: _Case, layer: _Layer) -> int:
    """The larger of attention and feed-forward; both sum up their result in f32."""
    item, result = case.item, layer.asking * layer.width * (case.item + F32)
    attention = 2 * layer.asking * layer.inner * item + 2 * layer.asked * layer.inner * item
    feeding = layer.asking * layer.hidden * (item + F32)
    return result + max(attention + _scores(case, layer), feeding)


def _scores(case: _Case, layer: _Layer) -> int:
    """Scores in f32, and what the second product takes of them; XLA:CPU keeps them three times."""
    rows = {"plain": layer.asking, "blocked": min(layer.asking, BLOCK_QUERIES)}.get(case.forms.attention, 0)
    copies = 3 * F32 if case.platform == "cpu" else F32 + case.item
    return rows * layer.asked * layer.heads * copies


def _text_encoder(case: _Case) -> int:
    """One layer of the tower, the f32 sums of both features, and the projection of one hidden state."""
    gemma, model, item = case.config.gemma, case.config.ltx.transformer, case.item
    tokens, heads = case.sizes["batch"] * case.sizes["length"], case.parts("heads")
    mlp, own = case.parts("mlp"), gemma.num_attention_heads // heads
    features, hidden = (model.video_dim + model.audio_dim) // mlp, 2 * gemma.intermediate_size // mlp
    width = gemma.hidden_size
    layer = _Layer(tokens, case.sizes["length"], width, own * gemma.head_dim, own, hidden)
    sums = 2 * F32 * tokens * features + item * features * width
    return int(sums + 2 * item * tokens * width) + _layer(case, layer)


def _connectors(case: _Case) -> int:
    """Both streams, and a layer of the larger connector."""
    model, length, batch = case.config.ltx.transformer, case.sizes["length"], case.sizes["batch"]
    heads, mlp = case.parts("heads"), case.parts("mlp")
    layers = [
        _Layer(batch * length, length, width, width // heads, count // heads, 4 * width // mlp)
        for width, count in (
            (model.video_dim, model.connector_num_attention_heads),
            (model.audio_dim, model.audio_connector_num_attention_heads),
        )
    ]
    streams = 2 * case.item * batch * length * (model.video_dim + model.audio_dim)
    return int(streams) + max(_layer(case, each) for each in layers)


def _tokens(case: _Case) -> int:
    """Programs that only rearrange tokens: once in, once out, in f32."""
    sizes, model = case.sizes, case.config.ltx.transformer
    tokens = (sizes["frames"] + sizes.get("keyframes", 0)) * sizes["height"] * sizes["width"]
    return int(2 * F32 * (tokens * model.in_channels + sizes["audio"] * model.audio_in_channels))


def _rope_tables(case: _Case) -> int:
    """The tables, and each of them once more while it is put together."""
    return 2 * case.item * table_numbers(case.sizes, case.config)


def _video_decoder(case: _Case) -> int:
    vae, sizes = case.config.ltx.vae, case.sizes
    cells, stages = sizes["frames"] * sizes["height"] * sizes["width"], decoder_stages(vae)
    live = cells * stages[0].inputs
    for stage in stages:
        cells *= prod(stage.stride or ())
        live = max(live, cells * stage.outputs)
    frames = cells * vae.out_channels * vae.patch_size**2
    made = 1 if sizes["tiles"] == 1 else 1 + sizes["tiles"]  # its own, and then those of all devices
    if case.forms.convolution == "winograd":
        held = max(COPIES * live, FILTERS * max(s.inputs * s.outputs * prod(s.stride or ()) for s in stages))
        return int(case.item * (held + frames * made))
    return _convolved(case, live) + int(case.item * frames * made)


def _video_encoder(case: _Case) -> int:
    vae, sizes = case.config.ltx.vae, case.sizes
    cells, stages = sizes["height"] * sizes["width"] // vae.patch_size**2, encoder_stages(vae)
    live = cells * stages[0].inputs
    for stage in stages:
        cells //= prod((stage.stride or ())[1:])  # one frame stays one
        live = max(live, cells * stage.outputs)
    return _convolved(case, live)


def _upsampler(case: _Case) -> int:
    sizes, upsampler = case.sizes, case.config.upsampler
    assert upsampler is not None
    cells = sizes["frames"] * sizes["height"] * sizes["width"]
    spread = 2 if upsampler.temporal_upsample else 4 if upsampler.spatial_scale == 2 else 9
    return _convolved(case, cells * spread * upsampler.mid_channels)


def _audio_decoder(case: _Case) -> int:
    audio = case.config.ltx.audio_vae
    live = MEL_STRIDE * case.sizes["audio"] * audio.mel_bins * audio.ch
    product = min(TAPS * F32 * live, BAND_BYTES) if case.forms.convolution == "products" else 0
    return _convolved(case, live) + product


def _convolved(case: _Case, live: int) -> int:
    """Input, activation with its frames repeated, and the sum over taps in f32, of the widest layer."""
    return live * (2 * case.item + 2 * F32)


def _vocoder(case: _Case) -> int:
    """The widest stage of either generator, for every kernel size; activations run at twice its rate."""
    vocoder = case.config.ltx.vocoder
    samples = case.sizes["mel"] * prod(vocoder.vocoder.upsample_rates)
    rate = vocoder.bwe.output_sampling_rate // vocoder.bwe.input_sampling_rate
    extended = samples * rate // prod(vocoder.bwe.upsample_rates)
    stages = [*_stages(vocoder.vocoder, case.sizes["mel"]), *_stages(vocoder.bwe, extended)]
    return 3 * F32 * max(stages)


def _stages(generator: GeneratorConfig, steps: int) -> list[int]:
    """Numbers that each stage of a generator holds, for all its kernel sizes."""
    channels, held = generator.upsample_initial_channel, []
    for rate in generator.upsample_rates:
        steps, channels = steps * rate, channels // 2
        held.append(2 * steps * channels * len(generator.resblock_kernel_sizes))
    return held


_FORMULAS: Mapping[str, Callable[[_Case], int]] = MappingProxyType(
    {
        "text_encoder": _text_encoder,
        "connectors": _connectors,
        "rope_tables": _rope_tables,
        "denoise": _denoise,
        "denoise_from": _denoise,
        "denoise_step": _denoise,
        "mix_images": _tokens,
        "mix_noise": _tokens,
        "unpatchify": _tokens,
        "upsampler": _upsampler,
        "video_encoder": _video_encoder,
        "video_decoder": _video_decoder,
        "audio_decoder": _audio_decoder,
        "vocoder": _vocoder,
    }
)
