"""A checkpoint between tiny and full: every width is the real one, with 4 blocks instead of 48.

python bench/middle.py FOLDER        # 5 GB of random weights and two recipes
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

from ltxbuild.synthetic.checkpoint import GEMMA_DIRECTORY, MODEL_FILE, write_model
from ltxbuild.synthetic.shipped import shipped

BLOCKS = 4
CONNECTOR_LAYERS = 2
TEXT_LAYERS = 2
VOCABULARY = 512
RECIPE = """\
name: middle-{precision}
checkpoint: {{model: {model}, text_encoder: {gemma}}}
target: {{platform: cpu}}
pipeline: guided_one_stage
steps: 2
loop: stepwise
guidance:
  video: {{cfg: 1, stg: 0, modality: 1}}
  audio: {{cfg: 1, stg: 0, modality: 1}}
precision: {precision}
variants:
  default: {{height: 384, width: 512, frames: 25, fps: 24}}
"""


def configuration() -> dict[str, Any]:
    """The configuration of the 22 B model with fewer layers and a small vocabulary."""
    data = copy.deepcopy(shipped("ltx-2.3-22b"))
    data["ltx"]["transformer"] |= {"num_layers": BLOCKS, "connector_num_layers": CONNECTOR_LAYERS}
    data["gemma"] |= {"num_hidden_layers": TEXT_LAYERS, "vocab_size": VOCABULARY}
    return data


def prepare(folder: Path) -> dict[str, Path]:
    """Write the checkpoint, unless it is there, and a recipe per precision.

    Returns:
        Recipe by precision.
    """
    model, gemma = folder / MODEL_FILE, folder / GEMMA_DIRECTORY
    done = folder / "complete"
    if not done.exists():
        write_model(folder, configuration())
        done.touch()
    recipes = {}
    for precision in ("bfloat16", "float32"):
        recipes[precision] = folder / f"middle_{precision}.yaml"
        text = RECIPE.format(precision=precision, model=model, gemma=gemma)
        recipes[precision].write_text(text, encoding="utf-8")
    return recipes


if __name__ == "__main__":
    print(*prepare(Path(sys.argv[1])).values(), sep="\n")
