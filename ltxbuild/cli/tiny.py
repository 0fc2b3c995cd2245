"""`ltxbuild make-tiny-checkpoint`: random weights in the official layout."""

from __future__ import annotations

from pathlib import Path

import click

from ltx_run.console import hint, human_bytes


@click.command("make-tiny-checkpoint")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the weights.")
def tiny_command(directory: Path, seed: int) -> None:
    """Write a tiny checkpoint with random weights into DIRECTORY.

    It has the layout of the official release - a single file, a Gemma-3 directory, the upsamplers, a LoRA -
    at a size that a laptop builds and runs in seconds. The video it makes is noise.

    \b
    Example:
      ltxbuild make-tiny-checkpoint demo/checkpoint
    """
    from ltxbuild.synthetic.checkpoint import UPSAMPLER_FILES, write_checkpoint, write_lora, write_upsampler

    model, gemma, _ = write_checkpoint(directory, seed=seed)
    upsamplers = [write_upsampler(directory, kind, seed=seed) for kind in UPSAMPLER_FILES]
    lora = write_lora(directory, seed=seed)
    for path in (model, gemma / "model.safetensors", *upsamplers, lora):
        click.echo(f"{path}  {human_bytes(path.stat().st_size)}")
    hint("ltxbuild compile recipes/cpu_tiny.yaml")
