"""Weight sets: whose keys LoRAs change, and a second set for the program of a component."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loras import CONFIG, CONNECTOR, QUERY, TABLES, C, Q, lora, plan, transformer
from test_keys import BASE, FILES

from ltx_cache.key import Key
from ltx_cache.store import Store
from ltx_run.safetensors import SafetensorsFile, header_bytes
from ltxbuild.build import build
from ltxbuild.errors import CheckpointError, RecipeError
from ltxbuild.plan.pipeline import Blueprint
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.plan.programspec import DISTILLED, Forms, ProgramSpec
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.checkpoint import write_checkpoint, write_lora
from ltxbuild.weights.checkpoint import Checkpoint, LoraFile, read_config
from ltxbuild.weights.lora import Lora, Loras, read_loras


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny checkpoint and its LoRA, written once."""
    folder = tmp_path_factory.mktemp("checkpoint")
    files = write_checkpoint(folder)
    return Checkpoint(*files, loras=(LoraFile(write_lora(folder)),))


def keys(plan: BuildPlan) -> dict[str, Key]:
    """Keys of programs and weight sets."""
    found = {f"program {name}": item.key for name, item in plan.programs.items()}
    return found | {f"weights {name}": item.key for name, item in plan.weights.items() if item.key}


@pytest.mark.parametrize(
    ("before", "after", "different"),
    [
        ((), (Q,), {"transformer"}),
        ((), (C,), {"connectors"}),
        ((), (lora(QUERY, CONNECTOR),), {"transformer", "connectors"}),
        ((Q,), (lora(QUERY, strength=0.5),), {"transformer"}),
        ((Q,), (lora(QUERY, sha256="f" * 64),), {"transformer"}),
        ((Q, C), (C, Q), set()),
        ((Q, lora(QUERY, strength=0.5)), (lora(QUERY, strength=0.5), Q), {"transformer"}),
        ((), (lora(QUERY, strength=0.0),), set()),
        ((Q,), (replace(Q, path=Path("elsewhere")),), set()),
    ],
)
def test_loras_are_factors_of_what_they_touch(
    tmp_path: Path, before: tuple[Lora, ...], after: tuple[Lora, ...], different: set[str]
) -> None:
    """Content, strength and order count, for the weights they change; programs are never rebuilt."""
    old, new = (keys(plan(tmp_path, Loras(loras))) for loras in (before, after))
    changed = {name for name in old if old[name].digest != new[name].digest}
    assert changed == {f"weights {name}" for name in different}


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pipeline whose second stage runs the first one's program on distilled weights."""
    specs = [
        ProgramSpec("stage1", "unpatchify", "transformer", (("height", 2),)),
        ProgramSpec("stage2", "unpatchify", DISTILLED, (("height", 2),)),
    ]
    drawn = Blueprint({spec.id: spec for spec in specs}, ())
    monkeypatch.setattr("ltxbuild.plan.planner.blueprint", lambda recipe, config: drawn)
    monkeypatch.setattr("ltxbuild.plan.planner.choose", lambda *_: Forms())
    return


def store_program(found: BuildPlan, store: Store) -> None:
    """Put a record into the store for the first stage's program."""
    executable = store.put_bytes(b"code")
    record = {
        "executable": {"sha256": executable.sha256, "size": executable.size},
        "fingerprint": {"platform": "cpu", "runtime": "", "features": [], "devices": 1},
        "inputs": [],
        "outputs": [],
        "mesh": [],
        "weights": "transformer",
        "key": "",
        "memory": {"arguments": 0, "outputs": 0, "temp": 0, "code": 4},
        "flops": 0.0,
    }
    store.put_entry(found.programs["stage1"].key, record, [executable])


@pytest.mark.usefixtures("guided")
def test_a_second_weight_set_shares_the_program(tmp_path: Path) -> None:
    """One key and one executable for both stages; each names its own weights."""
    distilled = Loras((C, Q), (lora(QUERY, strength=0.9),))
    first = plan(tmp_path, distilled)
    assert first.programs["stage1"].key == first.programs["stage2"].key
    assert list(first.weights) == ["transformer", DISTILLED]
    assert [item.strength for item in first.weights["transformer"].loras] == [1.0]
    assert [item.strength for item in first.weights[DISTILLED].loras] == [1.0, 0.9]
    store_program(first, Store(tmp_path / "home"))
    records = [item.record for item in plan(tmp_path, distilled).programs.values()]
    assert [record.weights for record in records if record] == ["transformer", DISTILLED]


@pytest.mark.usefixtures("guided")
def test_distilled_weights_come_from_a_lora_or_a_file(tmp_path: Path) -> None:
    """A weight set is known by its content: the user's LoRAs count in both; it needs one of the two."""
    with pytest.raises(RecipeError, match="needs distilled weights"):
        plan(tmp_path)
    assert plan_build(Recipe.model_validate(BASE), CONFIG, Store(tmp_path), None).weights[DISTILLED]
    file = plan(tmp_path, Loras((Q,)), {**FILES, "distilled": "d" * 64}).weights
    other = plan(tmp_path, Loras((Q,)), {**FILES, "model": "d" * 64, "distilled": "d" * 64}).weights
    assert file["transformer"].key != file[DISTILLED].key
    assert other["transformer"].key == other[DISTILLED].key == file[DISTILLED].key


class _Silent:
    """Progress that nobody sees."""

    def start(self, task: str, total: int | None) -> None: ...
    def advance(self, task: str, amount: int) -> None: ...
    def finish(self, task: str, detail: str) -> None: ...


@pytest.mark.usefixtures("guided")
def test_both_weight_sets_are_sharded_from_their_sources(tiny: Checkpoint, tmp_path: Path) -> None:
    """With the distilled LoRA merged, or from the distilled file: other bytes, found again as they are."""
    store = Store(tmp_path / "home")
    other = write_checkpoint(tmp_path / "distilled", seed=1)[0]
    by_lora = replace(tiny, loras=(), distilled_lora=LoraFile(tiny.loras[0].path, 0.7))
    by_file = replace(tiny, loras=(), distilled=other)
    found: dict[str, list[Any]] = {"transformer": [], DISTILLED: []}
    for checkpoint in (by_lora, by_file):
        read_config(checkpoint)
        loras = read_loras(checkpoint, TABLES, store.file_digest)
        files = FILES | ({"distilled": "d" * 64} if checkpoint.distilled else {})
        drawn = plan(tmp_path, loras, files)
        store_program(drawn, store)
        built = build(plan(tmp_path, loras, files), checkpoint, store, _Silent(), jobs=1, only=set())
        for name, weights in built.weights.items():
            found[name].append(weights.shared)
    assert found["transformer"][0] == found["transformer"][1]
    assert len({blob.sha256 for blob in (*found["transformer"], *found[DISTILLED])}) == 3
    direct = transformer(store, {k: other for s in TABLES["transformer"] for k in s.sources}, (), mesh=False)
    assert found[DISTILLED][1].sha256 == direct.shared.sha256


def test_a_distilled_file_of_another_model_is_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    """Both single files must have one transformer configuration."""
    file = SafetensorsFile(tiny.model)
    config = json.loads(file.header.metadata["config"])
    config["transformer"]["num_layers"] += 1
    path = tmp_path / "other.safetensors"
    metadata = {**file.header.metadata, "config": json.dumps(config)}
    tensors = {key: np.array(file.view(key)) for key in file.header.entries}
    header = header_bytes([(k, t.dtype.name, t.shape) for k, t in tensors.items()], metadata)
    path.write_bytes(b"".join([header, *(t.tobytes() for t in tensors.values())]))
    with pytest.raises(CheckpointError, match="another transformer configuration"):
        read_config(replace(tiny, distilled=path))
