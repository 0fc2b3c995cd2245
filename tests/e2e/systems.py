"""The two systems that are compared: ours behind its command lines, and the official modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from official import load
from reference import Files, Reference, Size, noise
from safetensors.torch import load_file, save_file
from torch import Tensor

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store

RECIPES = Path(__file__).parents[2] / "recipes"
SIZE = Size(128, 192, 17, 24.0)
LONG = Size(64, 64, 89, 24.0)
"""Twelve latent frames: the decode is cut into two tiles in time."""
PROMPT = "a red ball"
BF16, F32 = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Run:
    """What one run made: the named tensors, its report, the video."""

    tensors: dict[str, Tensor]
    report: dict[str, Any]
    video: Path


class System:
    """The two command lines, with a cache and a checkpoint of their own."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        self._environment = os.environ | {"LTX_HOME": str(home)}
        checkpoint = folder / "checkpoint"
        self.call("ltxbuild", "make-tiny-checkpoint", str(checkpoint))
        self.files = Files(
            checkpoint / "ltx-2.3-tiny.safetensors",
            checkpoint / "gemma",
            checkpoint / "ltx-2.3-tiny-upsampler-x2.safetensors",
        )

    def call(self, tool: str, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        command = [str(Path(sys.executable).parent / tool), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        return done.stdout

    def extend(self, base: str, name: str, text: str) -> Path:
        """A recipe laid over a shipped one."""
        path = self._folder / f"{name}.yaml"
        path.write_text(f"extends: {RECIPES / base}\nname: {name}\n{text}", encoding="utf-8")
        return path

    def compile(self, recipe: Path, tool: str = "ltxbuild") -> str:
        """Name of the recipe's bundle, built; by another tool of the same command line, if one is named."""
        model, gemma, upsampler = map(str, self.files)
        options = ["--checkpoint", model, "--text-encoder", gemma, "--upsampler", upsampler, "--json"]
        built: dict[str, Any] = json.loads(self.call(tool, "compile", str(recipe), *options))
        return str(built["recipe"])

    def recipe(self, bundle: str) -> Path:
        """The recipe that a bundle was built from: a shipped one, or one that was laid over it."""
        shipped = RECIPES / f"{bundle.replace('-', '_')}.yaml"
        return shipped if shipped.exists() else self._folder / f"{bundle}.yaml"

    def manifest(self, bundle: str) -> dict[str, Any]:
        """The bundle's manifest."""
        manifest: dict[str, Any] = json.loads(self.call("ltxbuild", "show", bundle, "--json"))
        return manifest

    def executables(self, bundle: str) -> dict[str, bytes]:
        """Code of the bundle's programs."""
        store = Store(Path(self._environment["LTX_HOME"]))
        records = {name: p["executable"] for name, p in self.manifest(bundle)["programs"].items()}
        return {name: store.open(BlobRef(**record)).read_bytes() for name, record in records.items()}

    def run(
        self,
        bundle: str,
        given: Mapping[str, Tensor],
        *,
        prompt: str = PROMPT,
        variant: str = "default",
        images: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> Run:
        """Run a bundle with some of its tensors given."""
        inputs, outputs, video = (
            self._folder / name for name in ("in.safetensors", "out.safetensors", "o.mp4")
        )
        save_file({name: tensor.contiguous() for name, tensor in given.items()}, inputs)
        text = ["--prompt", prompt, "--variant", variant, "--json", "-q"]
        files = ["-o", str(video), "--tensors-in", str(inputs), "--tensors-out", str(outputs)]
        shown = [word for image in images for word in ("--image", image)]
        report = json.loads(self.call("ltx-run", bundle, *text, *files, *shown, *options))
        return Run(load_file(outputs), report, video)


class Official:
    """The official system on the same checkpoint, in both precisions; what it made is kept."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._loaded: dict[torch.dtype, Reference] = {}
        self._made: dict[Any, dict[str, Tensor]] = {}

    def system(self, dtype: torch.dtype) -> Reference:
        """The modules in one precision."""
        if dtype not in self._loaded:
            self._loaded[dtype] = load(self._files, dtype)
        return self._loaded[dtype]

    def run(
        self, dtype: torch.dtype, *, prompt: str = PROMPT, size: Size = SIZE, two_stage: bool = False
    ) -> dict[str, Tensor]:
        """Every named tensor, from the noise of `start`."""
        key = (dtype, prompt, size, two_stage)
        if key not in self._made:
            given = noise(size, two_stage=two_stage)
            self._made[key] = self.system(dtype).run(prompt, given, size, two_stage=two_stage)
        return self._made[key]


def start(dtype: torch.dtype, *, size: Size = SIZE, two_stage: bool = False) -> dict[str, Tensor]:
    """The noise that both systems start from, in a bundle's precision."""
    return {name: tensor.to(dtype) for name, tensor in noise(size, two_stage=two_stage).items()}


def values(tensor: Tensor) -> Tensor:
    """A tensor as numbers around zero, so that the grey level of frames does not count as agreement."""
    centre = 127.5 if tensor.dtype == torch.uint8 else 0.0
    return tensor.double().flatten() - centre


def cosine(ours: Tensor, theirs: Tensor) -> float:
    """Cosine of the angle between two tensors of one shape."""
    assert ours.shape == theirs.shape
    return torch.nn.functional.cosine_similarity(values(ours), values(theirs), dim=0).item()


def distance(ours: Tensor, exact: Tensor) -> float:
    """Root of the mean squared difference, over that of the exact values."""
    difference = values(ours) - values(exact)
    return (difference.norm() / values(exact).norm()).item()
