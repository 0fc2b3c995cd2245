"""Images in the official way: prepared, encoded, and put into the stages of the pipelines.

Where the published release conditions otherwise than later ones do, the later way is taken.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from oracles import import_oracles
from PIL import Image
from reference import STAGE_1, STAGE_2, Pair, Reference, Size, positions
from torch import Tensor

import_oracles()

from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.patchifiers import AudioPatchifier, VideoLatentPatchifier  # noqa: E402
from ltx_core.guidance.perturbations import BatchedPerturbationConfig  # noqa: E402
from ltx_core.model.transformer.modality import Modality  # noqa: E402

CRF = 33


class Picture(NamedTuple):
    """An image at a frame."""

    path: Path
    frame: int
    strength: float

    @property
    def option(self) -> str:
        """What `--image` takes."""
        return f"{self.path}:{self.frame}:{self.strength}"


class State(NamedTuple):
    """Video tokens that are given in part: clean ones, how much noise they get, bounds of each."""

    clean: Tensor
    mask: Tensor
    positions: Tensor


def paint(path: Path, seed: int, height: int = 150, width: int = 201) -> Path:
    """Write an image with colours and edges."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 6 : height * 1j, 0 : 6 : width * 1j]
    waves = [np.sin(a * x + b * y) for a, b in random.uniform(-2, 2, (3, 2))]
    blocks = random.uniform(-60, 60, (3, 3, 3)).repeat(50, 0).repeat(67, 1)
    values = 128 + 60 * np.stack(waves, -1) + blocks[:height, :width]
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
    return path


def prepared(path: Path, size: Size, divisor: int) -> Tensor:
    """Pixels `[1, 3, 1, H, W]` in [-1, 1]: through one frame of H.264, scaled to cover, cut in the middle."""
    pixels = _compressed(np.asarray(Image.open(path).convert("RGB")))
    height, width = size.height // divisor, size.width // divisor
    tensor = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
    scale = max(height / tensor.shape[2], width / tensor.shape[3])
    scaled = [math.ceil(side * scale) for side in tensor.shape[2:]]
    tensor = torch.nn.functional.interpolate(tensor, size=scaled, mode="bilinear", align_corners=False)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    return (tensor[:, :, top : top + height, left : left + width] / 127.5 - 1)[:, :, None]


def _compressed(pixels: np.ndarray) -> np.ndarray:
    """One slice, as on a machine with one core."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": str(CRF), "preset": "veryfast"})
        stream.height, stream.width, stream.codec_context.thread_count = height, width, 1
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def noise(size: Size, keyframes: int, seed: int = 0) -> dict[str, Tensor]:
    """Random start of both stages with the tokens of keyframes, rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for stage, divisor in (("stage1", 2), ("stage2", 1)):
        video, audio = size.latents(divisor)
        tokens = video.token_count() + keyframes * video.height * video.width
        for name, count in (("video", tokens), ("audio", audio.token_count())):
            shape = (1, count, 128)
            drawn[f"noise.{stage}.{name}"] = torch.randn(shape, generator=generator, dtype=torch.bfloat16)
    return drawn


@torch.inference_mode()
def run(
    reference: Reference, prompt: str, noises: Mapping[str, Tensor], pictures: Sequence[Picture], size: Size
) -> dict[str, Tensor]:
    """Every named tensor of the distilled two-stage pipeline with images."""
    noises = {name: tensor.to(reference.dtype) for name, tensor in noises.items()}
    contexts = reference.encode(prompt)
    made = dict(zip(("context.video", "context.audio"), contexts, strict=True))
    start: Pair | None = None
    for stage, divisor, sigmas in (("stage1", 2, STAGE_1), ("stage2", 1, STAGE_2)):
        pixels = [prepared(picture.path, size, divisor).to(reference.dtype) for picture in pictures]
        latents = [reference.video_encoder(image) for image in pixels]
        state = _state(pictures, latents, size, divisor)
        tokens = _begin(
            state, start, (noises[f"noise.{stage}.video"], noises[f"noise.{stage}.audio"]), sigmas
        )
        video, audio = _denoise(reference, contexts, tokens, state, sigmas, size, divisor)
        slots = _slots(pictures)
        made |= {f"image.{n}.latent.{stage}": latent for n, latent in zip(slots, latents, strict=True)}
        made |= {f"latent.{stage}.video": video, f"latent.{stage}.audio": audio}
        if stage == "stage1":
            made["latent.upscaled"] = reference.upsample(video)
            start = made["latent.upscaled"], audio
    return made | {"frames": reference.frames(video), "waveform": reference.waveform(audio)}


def _slots(pictures: Sequence[Picture]) -> list[int]:
    later = [picture for picture in pictures if picture.frame]
    return [later.index(picture) + 1 if picture.frame else 0 for picture in pictures]


def _state(pictures: Sequence[Picture], latents: Sequence[Tensor], size: Size, divisor: int) -> State:
    """An image at frame 0 gives the first latent frame, one at a later frame adds tokens of its own."""
    shapes = size.latents(divisor)
    cells, dtype = shapes[0].height * shapes[0].width, latents[0].dtype
    clean = torch.zeros(1, shapes[0].token_count(), 128, dtype=dtype)
    mask = torch.ones(1, shapes[0].token_count(), 1)
    bounds = positions(shapes, size.fps)[0]
    for picture, latent in zip(pictures, latents, strict=True):
        tokens = VideoLatentPatchifier(1).patchify(latent)
        if picture.frame == 0:
            clean[:, :cells], mask[:, :cells] = tokens, 1.0 - picture.strength
            continue
        where = bounds[:, :, :cells].clone()
        where[:, 0] = torch.tensor([picture.frame, picture.frame + 1.0]) / size.fps
        share = torch.full((1, cells, 1), 1.0 - picture.strength, dtype=dtype).float()
        clean, mask = torch.cat([clean, tokens], 1), torch.cat([mask, share], 1)
        bounds = torch.cat([bounds, where], 2)
    return State(clean, mask, bounds)


def _begin(state: State, start: Pair | None, noises: Pair, sigmas: Sequence[float]) -> Pair:
    """Tokens at the first noise level, nearer to the images where those are."""
    video, audio = torch.zeros_like(noises[0]), torch.zeros_like(noises[1])
    if start is not None:
        audio = AudioPatchifier(1).patchify(start[1])
        tokens = VideoLatentPatchifier(1).patchify(start[0])
        video[:, : tokens.shape[1]] = tokens
    noisy = torch.lerp(video.float(), noises[0].float(), sigmas[0])
    mixed = torch.lerp(audio.float(), noises[1].float(), sigmas[0])
    return torch.lerp(state.clean.float(), noisy, state.mask).to(video.dtype), mixed.to(audio.dtype)


def _denoise(
    reference: Reference,
    contexts: Pair,
    tokens: Pair,
    state: State,
    sigmas: Sequence[float],
    size: Size,
    divisor: int,
) -> Pair:
    shapes = size.latents(divisor)
    heard = positions(shapes, size.fps)[1]
    schedule = torch.tensor(sigmas, dtype=torch.float32)
    video, audio = tokens
    for index, sigma in enumerate(schedule[:-1]):
        times = sigma.expand(1, audio.shape[1], 1)
        clean_video, clean_audio = reference.transformer(
            Modality(video, sigma.expand(1), state.mask * sigma, state.positions, contexts[0]),
            Modality(audio, sigma.expand(1), times, heard, contexts[1]),
            BatchedPerturbationConfig.empty(1),
        )
        kept = state.clean.float() * (1 - state.mask)
        clean_video = (clean_video.float() * state.mask + kept).to(video.dtype)
        video = EulerDiffusionStep().step(video, clean_video, schedule, index)
        audio = EulerDiffusionStep().step(audio, clean_audio, schedule, index)
    video = VideoLatentPatchifier(1).unpatchify(video[:, : shapes[0].token_count()], shapes[0])
    return video, AudioPatchifier(1).unpatchify(audio, shapes[1])
