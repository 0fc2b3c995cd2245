"""Train the demo model: `python -m tools.train_demo STATE OUTPUT`.

STATE keeps what is needed to go on after a stop, and the loss curves; OUTPUT gets the finished files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.train_demo import (
    audio_vae,
    data,
    diffusion,
    export,
    text,
    tokenizer,
    upsampler,
    video_vae,
    vocoder,
)
from tools.train_demo.config import model_config


def main(state: Path, output: Path) -> None:
    """Train one component after another, each on what those before it make."""
    config = model_config()
    state.mkdir(parents=True, exist_ok=True)
    tokens = state / "tokenizer.json"
    tokenizer.save(tokens, config.gemma.vocab_size)
    video = video_vae.fit(config.ltx.vae, state)
    audio = audio_vae.fit(config.ltx.audio_vae, state)
    examples = data.make(config)
    read = text.fit(config, tokens, state)
    contexts = text.contexts(read, tokens, config, every=256)
    assert config.upsampler is not None
    trained = {
        **read,
        "transformer": diffusion.fit(config, examples, contexts, state),
        "upsampler": upsampler.fit(config.upsampler, video["decoder"]["statistics"], examples, state),
        "video_encoder": video["encoder"],
        "video_decoder": video["decoder"],
        "audio_encoder": audio["encoder"],
        "audio_decoder": audio["decoder"],
        "vocoder": vocoder.fit(config.ltx.vocoder, config.ltx.audio_vae, audio, state),
    }
    export.write(trained, config, tokens, output)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
