"""Where bf16 is rounded: with one kind of attention on both sides, ours and the official modules round alike.

Attention kernels are free in how they round their weights, so torch's is replaced by one that rounds where
ours does. What is left are sums in another order; short texts keep those from flipping many roundings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from loading import load
from ltx_core.text_encoders.gemma.embeddings_processor import EmbeddingsProcessor, convert_to_additive_mask
from ltx_core.text_encoders.gemma.encoders.base_encoder import GemmaTextEncoder
from ltx_core.text_encoders.gemma.tokenizer import LTXVGemmaTokenizer
from numpy.typing import NDArray
from reference import Size
from safetensors.torch import load_file
from systems import BF16, F32, PROMPT, Official, System, distance
from torch import Tensor

from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.plan.programspec import Forms, ProgramSpec
from ltxbuild.programs import traceable
from ltxbuild.synthetic.checkpoint import shipped_config
from ltxbuild.targets import target

Array = NDArray[Any]

pytestmark = pytest.mark.xdist_group("e2e")

SIZE = Size(64, 96, 17, 24.0)
SLOTS = 128
SIGMAS = (0.909375, 0.725)
SHARE = 0.18
"""Of the distance between bf16 and f32, what may lie between two systems that round alike. It measures 0, in
the text tower 0.07; 0.2 (the feature norm) to 1.2 if a single kind of operation rounds elsewhere."""


def attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """Attention that rounds where ours does: the exponentials, and the result."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q.float() @ k.float().transpose(-1, -2) * (options.get("scale") or q.shape[-1] ** -0.5)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    peak = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(peak.isfinite(), peak, 0.0))
    total = weights.sum(-1, keepdim=True)
    return (weights.to(v.dtype).float() @ v.float() / torch.where(total > 0, total, 1.0)).to(q.dtype)


@pytest.fixture
def same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our kind of attention in the official modules."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)


@pytest.fixture(scope="module")
def weights(system: System) -> dict[str, Tensor]:
    """All tensors of the model file and of the text encoder's."""
    return load_file(system.files.model) | load_file(system.files.gemma / "model.safetensors")


def call(kind: str, weights: dict[str, Tensor], inputs: list[Any], **geometry: int | float) -> list[Tensor]:
    """Results of one of our programs in bf16, compiled with the flags of a build."""
    config: ModelConfig = shipped_config("ltx-2.3-tiny")
    component = "transformer" if kind == "denoise" else kind
    program = traceable(
        ProgramSpec(kind, kind, component, tuple(geometry.items())), config, "bfloat16", Forms()
    )
    params = load(COMPONENTS[component].table(config), weights, jnp.bfloat16)
    arrays = [jnp.asarray(x, t.dtype) for x, t in zip(inputs, program.tensors, strict=True)]
    compiled = jax.jit(program.function).lower(params, *arrays).compile(dict(target("cpu").flags(kind)))
    return [torch.from_numpy(np.array(result.astype(jnp.float32))) for result in compiled(params, *arrays)]


def assert_rounded_alike(ours: list[Tensor], theirs: list[Tensor], exact: list[Tensor]) -> None:
    """Ours and the official results in bf16 lie much nearer to each other than to f32."""
    for mine, bf16, f32 in zip(ours, theirs, exact, strict=True):
        apart, rounding = distance(mine, bf16), distance(bf16, f32)
        same = (mine == bf16.float()).float().mean().item()
        print(f"apart {apart:.1e}, from f32 {rounding:.1e}, equal {same:.3f}")
        assert apart < SHARE * rounding


@pytest.mark.usefixtures("same_attention")
def test_one_denoising_step(official: Official, weights: dict[str, Tensor]) -> None:
    """One Euler step of the transformer."""
    video, audio = SIZE.latents()
    generator = torch.Generator().manual_seed(0)
    widths = ((video.token_count(), 128), (audio.token_count(), 128), (6, 64), (6, 32))
    given = [torch.randn(1, *shape, generator=generator).to(BF16) for shape in widths]

    def theirs(dtype: torch.dtype) -> list[Tensor]:
        tokens_video, tokens_audio, *contexts = (tensor.to(dtype) for tensor in given)
        start = (tokens_video, tokens_audio)
        return list(official.system(dtype).denoise(tuple(contexts), start, SIGMAS, SIZE))

    grid = {"frames": video.frames, "height": video.height, "width": video.width, "audio": audio.frames}
    inputs = [*(tensor.float().numpy() for tensor in given), np.array(SIGMAS)]
    ours = call("denoise", weights, inputs, **grid, fps=SIZE.fps, length=6, steps=1)
    assert_rounded_alike(ours, theirs(BF16), theirs(F32))


class Text(NamedTuple):
    """A prompt in 128 slots, and the official modules that read it, per precision."""

    ids: Array
    mask: Array
    encoder: GemmaTextEncoder
    embeddings: EmbeddingsProcessor

    def features(self) -> list[Tensor]:
        """Official features of both modalities `[1, 128, D]`."""
        with torch.inference_mode():
            states, mask = self.encoder.encode(PROMPT)
            return list(self.embeddings.feature_extractor(states, mask))


@pytest.fixture
def texts(system: System, official: Official) -> tuple[Text, Text]:
    """In bf16, in f32."""
    tokenizer = LTXVGemmaTokenizer(str(system.files.gemma), SLOTS)
    pairs = tokenizer.tokenize_with_weights(PROMPT)["gemma"]
    ids, mask = (np.array([[int(pair[i]) for pair in pairs]]) for i in range(2))
    encoders = [GemmaTextEncoder(official.system(d).text_encoder.model, tokenizer) for d in (BF16, F32)]
    bf16, f32 = (
        Text(ids, mask, encoder, official.system(d).embeddings)
        for d, encoder in zip((BF16, F32), encoders, strict=True)
    )
    return bf16, f32


@pytest.mark.usefixtures("same_attention")
def test_text_tower(texts: tuple[Text, Text], weights: dict[str, Tensor]) -> None:
    """Text tower and feature extractor; pads are left out, nobody reads them."""
    bf16, f32 = texts
    valid = torch.from_numpy(bf16.mask[0].astype(bool))
    ours = call("text_encoder", weights, [bf16.ids, bf16.mask], batch=1, length=SLOTS)
    assert_rounded_alike(*([t[:, valid] for t in made] for made in (ours, bf16.features(), f32.features())))


@pytest.mark.usefixtures("same_attention")
def test_connectors(texts: tuple[Text, Text], weights: dict[str, Tensor]) -> None:
    """Both connectors, from the official features."""
    bf16, f32 = texts
    features, mask = bf16.features(), torch.from_numpy(bf16.mask)

    def theirs(text: Text, dtype: torch.dtype) -> list[Tensor]:
        additive = convert_to_additive_mask(mask, dtype)
        with torch.inference_mode():
            return list(text.embeddings.create_embeddings(*(f.to(dtype) for f in features), additive)[:2])

    inputs = [*(f.float().numpy() for f in features), bf16.mask]
    ours = call("connectors", weights, inputs, batch=1, length=SLOTS)
    assert_rounded_alike(ours, theirs(bf16, BF16), theirs(f32, F32))
