"""The demo model behind the command lines: many prompts in one run, and what their videos show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from demo_reading import Seen, read

from tools.train_demo.world import COLOURS, DIRECTIONS, SHAPES, TUNES, Names, caption, is_held_out

ROOT = Path(__file__).parents[2]
RECIPES, MODEL = ROOT / "recipes", ROOT / "demo_model"


@dataclass(frozen=True)
class Wish:
    """A prompt, and what its video should show."""

    prompt: str
    wanted: Seen
    image: Path | None = None
    negative: str | None = None

    def line(self, number: int) -> dict[str, Any]:
        """Its line in a file of prompts."""
        line: dict[str, Any] = {"prompt": self.prompt, "seed": number, "output": f"{number}.mp4"}
        if self.image is not None:
            line["image"] = f"{self.image}:0:1:0"
        if self.negative is not None:
            line["negative_prompt"] = self.negative
        return line


def held_out() -> list[Names]:
    """All captions that name everything and that training never saw: 36."""
    sizes = (len(COLOURS), len(SHAPES), len(DIRECTIONS), len(TUNES))
    named = product(*map(range, sizes))
    return [Names(*choice) for choice in named if is_held_out(*choice[:3])]


def seen(names: Names) -> Seen:
    """The words of a caption that names everything."""
    assert None not in names
    colour, shape, direction, tune = names
    return Seen(list(COLOURS)[colour], SHAPES[shape], list(DIRECTIONS)[direction], list(TUNES)[tune])  # type: ignore[index,call-overload]


def wishes(count: int | None = None) -> list[Wish]:
    """Held-out prompts, of all kinds however few."""
    names = held_out()
    # Seven has no divisor in common with 36: each once, with neighbours of other shapes and tones.
    order = [names[7 * i % len(names)] for i in range(len(names))]
    return [Wish(caption(n), seen(n)) for n in order[:count]]


class Demo:
    """The command lines with a cache of their own."""

    def __init__(self, home: Path) -> None:
        self._environment = os.environ | {"LTX_HOME": str(home)}

    def call(self, tool: str, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        command = [str(Path(sys.executable).with_name(tool)), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        return done.stdout

    def compile(self, recipe: Path, *options: str) -> str:
        """Name of the recipe's bundle, built."""
        return str(json.loads(self.call("ltxbuild", "compile", str(recipe), "--json", *options))["recipe"])

    def make(self, bundle: str, wanted: Sequence[Wish], folder: Path, *options: str) -> list[Seen]:
        """Make all videos and read them."""
        folder.mkdir(exist_ok=True)
        prompts = folder / "prompts.jsonl"
        lines = [json.dumps(wish.line(number)) for number, wish in enumerate(wanted)]
        prompts.write_text("\n".join(lines), encoding="utf-8")
        self.call("ltx-run", bundle, "--prompts", str(prompts), "-o", f"{folder}/", "-q", *options)
        return [read(folder / f"{number}.mp4") for number in range(len(wanted))]


def shares(wanted: Iterable[Wish], found: Iterable[Seen]) -> dict[str, float]:
    """Share of right answers for each thing that was asked for."""
    pairs = [(wish.wanted, got) for wish, got in zip(wanted, found, strict=True)]
    return {
        field: sum(getattr(want, field) == getattr(got, field) for want, got in pairs) / len(pairs)
        for field in Seen._fields
    }
