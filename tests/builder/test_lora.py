"""LoRAs: what fits is merged into what it touches; what doesn't is refused with a list."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from test_keys import BASE, FILES

from ltx_cache.key import Key
from ltx_cache.store import Store
from ltx_run.safetensors import SafetensorsError, SafetensorsFile, header_bytes, read_header
from ltxbuild.build import build
from ltxbuild.checkpoint import Checkpoint, LoraFile, read_config
from ltxbuild.cli.main import cli
from ltxbuild.cli.options import checkpoint_options
from ltxbuild.cli.planning import CheckpointOverrides, read_recipe
from ltxbuild.components import COMPONENTS
from ltxbuild.delta import delta, merged
from ltxbuild.errors import CheckpointError, RecipeError
from ltxbuild.fetch import locate
from ltxbuild.lora import Lora, Loras, linear_weights, read_loras
from ltxbuild.pipeline import Blueprint
from ltxbuild.planner import BuildPlan, plan_build
from ltxbuild.programspec import DISTILLED, ProgramSpec
from ltxbuild.recipe import Recipe, load
from ltxbuild.sharder import ShardedWeights, shard
from ltxbuild.shipped import shipped_config
from ltxbuild.synthetic import write_checkpoint, write_lora

CONFIG = shipped_config("ltx-2.3-tiny")
TABLES = {name: COMPONENTS[name].table(CONFIG) for name in ("transformer", "connectors")}
RULES, MESH = {"heads": "tp", "mlp": "tp"}, {"tp": 4}
QUERY = "diffusion_model.transformer_blocks.0.attn1.to_q"
CONNECTOR = "diffusion_model.video_embeddings_connector.transformer_1d_blocks.0.attn1.to_q"
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny checkpoint and its LoRA, written once."""
    folder = tmp_path_factory.mktemp("checkpoint")
    files = write_checkpoint(folder)
    return Checkpoint(*files, loras=(LoraFile(write_lora(folder)),))


def write(path: Path, tensors: Tensors) -> Path:
    """Write a safetensors file."""
    header = header_bytes([(k, t.dtype.name, t.shape) for k, t in tensors.items()], {})
    path.write_bytes(b"".join([header, *(t.tobytes() for t in tensors.values())]))
    return path


def pair(module: str, out_features: int = 64, in_features: int = 64, rank: int = 2) -> Tensors:
    """A random A and B for one module."""
    random = np.random.default_rng(0)
    return {
        f"{module}.lora_A.weight": random.standard_normal((rank, in_features)).astype("bfloat16"),
        f"{module}.lora_B.weight": random.standard_normal((out_features, rank)).astype("bfloat16"),
    }


def read(checkpoint: Checkpoint, *files: Path | LoraFile, **others: Any) -> Loras:
    """Read LoRAs for a checkpoint; the digest of a file is its name."""
    loras = tuple(file if isinstance(file, LoraFile) else LoraFile(file) for file in files)
    return read_loras(replace(checkpoint, loras=loras, **others), TABLES, lambda path: path.name)


def test_the_tiny_lora_has_the_official_layout(tiny: Checkpoint) -> None:
    """Every linear layer of the transformer and nothing else, of several ranks; 1660 at full size."""
    (lora,) = read_loras(tiny, TABLES, lambda path: path.name).everywhere
    weights = linear_weights({"transformer": TABLES["transformer"]})
    assert lora.targets.keys() == weights.keys()
    down, up = lora.targets[f"model.{QUERY}.weight"]
    assert (down, up) == (f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight")
    entries = read_header(lora.path).entries
    assert len({entries[down].shape[0] for down, _ in lora.targets.values()}) > 1
    full = COMPONENTS["transformer"].table(shipped_config("ltx-2.3-22b"))
    assert len(linear_weights({"transformer": full})) == 1660


def test_every_misfit_is_listed_in_one_message(tiny: Checkpoint, tmp_path: Path) -> None:
    """Two files with six mistakes give one message with six lines."""
    first = {
        **pair(f"{QUERY}x"),
        **pair(QUERY.replace("to_q", "to_k"), in_features=32),
        "lora_unet_blocks_0.lora_up.weight": np.zeros((2, 2), np.float32),
    }
    second = {**pair(QUERY), **pair(CONNECTOR), **pair(QUERY.replace("to_q", "to_v"))}
    del second[f"{QUERY}.lora_B.weight"]
    del second[f"{CONNECTOR}.lora_A.weight"]
    value = QUERY.replace("to_q", "to_v")
    second[f"{value}.lora_A.weight"] = second[f"{value}.lora_A.weight"].astype(np.float32)
    with pytest.raises(CheckpointError) as caught:
        read(tiny, write(tmp_path / "one.safetensors", first), write(tmp_path / "two.safetensors", second))
    assert caught.value.message.splitlines()[1:] == [
        "  one.safetensors: unknown tensor: lora_unet_blocks_0.lora_up.weight [2, 2]",
        f"  one.safetensors: unknown target: {QUERY}x",
        f"  one.safetensors: shape: {QUERY.replace('to_q', 'to_k')} has A [2, 32] and B [64, 2], "
        "expected [r, 64] and [64, r]",
        f"  two.safetensors: missing: {QUERY}.lora_B.weight",
        f"  two.safetensors: missing: {CONNECTOR}.lora_A.weight",
        f"  two.safetensors: dtype: {value} has A float32 and B bfloat16, "
        "expected both one of bfloat16, float16, float32",
    ]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "changes no layer"),
        (pair(QUERY, rank=0), "shape:"),
        ({f"{QUERY}.lora_A.weight": np.zeros(64), f"{QUERY}.lora_B.weight": np.zeros((64, 1))}, "shape:"),
        (pair("diffusion_model.transformer_blocks.0.scale_shift_table"), "unknown target"),
        (pair("transformer_blocks.0.attn1.to_q"), "unknown tensor"),
    ],
)
def test_what_is_no_lora_of_this_model_is_refused(
    tiny: Checkpoint, tmp_path: Path, tensors: Tensors, message: str
) -> None:
    """Empty files, rank 0, vectors, layers that aren't linear and names without the prefix."""
    with pytest.raises(CheckpointError, match=message):
        read(tiny, write(tmp_path / "bad.safetensors", tensors))


def test_damaged_and_absent_files_are_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    """A truncated file is told with its sizes, one that isn't there by its path."""
    path = write(tmp_path / "cut.safetensors", pair(QUERY))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SafetensorsError, match="truncated"):
        read(tiny, path)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        read(tiny, Path("nowhere"))


def test_alpha_is_ignored(tiny: Checkpoint, tmp_path: Path) -> None:
    """As the official loader does: the strength alone scales."""
    path = write(tmp_path / "a.safetensors", {**pair(QUERY), f"{QUERY}.alpha": np.zeros((), np.float32)})
    assert list(read(tiny, path).everywhere[0].targets) == [f"model.{QUERY}.weight"]


def test_the_distilled_lora_must_not_reach_beyond_the_transformer(tiny: Checkpoint, tmp_path: Path) -> None:
    """Both stages have one context, so a second connector would never be used."""
    path = write(tmp_path / "d.safetensors", pair(CONNECTOR))
    with pytest.raises(CheckpointError, match="unknown target"):
        read(tiny, distilled_lora=LoraFile(path))


def transformer(store: Store, files: dict[str, Path], loras: tuple[Lora, ...], mesh: bool) -> ShardedWeights:
    """The tiny transformer's shard files."""
    split = (RULES, MESH) if mesh else ({}, {})
    return shard(TABLES["transformer"], files, *split, "bfloat16", store, lambda amount: None, loras)


@pytest.mark.parametrize("mesh", [False, True])
def test_merging_while_sharding_is_sharding_what_was_merged(
    tiny: Checkpoint, tmp_path: Path, mesh: bool
) -> None:
    """Two LoRAs over four ranks: the same files, to the byte, as from a checkpoint merged beforehand."""
    narrow = write(tmp_path / "narrow.safetensors", pair(QUERY))
    loras = read(tiny, LoraFile(tiny.loras[0].path, 0.8), LoraFile(narrow, -0.5)).everywhere
    model, tensors = SafetensorsFile(tiny.model), {}
    for key in (key for spec in TABLES["transformer"] for key in spec.sources):
        tensors[key] = model.view(key)
        parts = [
            delta(*map(SafetensorsFile(lora.path).view, lora.targets[key]), lora.strength, "bfloat16")
            for lora in loras
            if key in lora.targets
        ]
        if parts:
            tensors[key] = merged(tensors[key], parts, "bfloat16")
    beforehand = write(tmp_path / "merged.safetensors", tensors)
    store = Store(tmp_path / "store")
    expected = transformer(store, dict.fromkeys(tensors, beforehand), (), mesh)
    assert transformer(store, dict.fromkeys(tensors, tiny.model), loras, mesh) == expected
    assert transformer(store, dict.fromkeys(tensors, tiny.model), (), mesh) != expected


def plan(tmp_path: Path, loras: Loras | None = None, files: dict[str, str] = FILES) -> BuildPlan:
    """Plan the two-stage recipe of the key laws."""
    return plan_build(Recipe.model_validate(BASE), CONFIG, Store(tmp_path / "home"), files, loras)


def keys(plan: BuildPlan) -> dict[str, Key]:
    """Keys of programs and weight sets."""
    found = {f"program {name}": item.key for name, item in plan.programs.items()}
    return found | {f"weights {name}": item.key for name, item in plan.weights.items() if item.key}


def lora(*modules: str, strength: float = 1.0, sha256: str = "e" * 64) -> Lora:
    """A LoRA on some modules."""
    return Lora(Path("x"), strength, sha256, {f"model.{module}.weight": ("", "") for module in modules})


Q, C = lora(QUERY), lora(CONNECTOR)


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
    monkeypatch.setattr("ltxbuild.planner.blueprint", lambda recipe, config: drawn)
    monkeypatch.setattr("ltxbuild.planner.choose_attention", lambda *_: "plain")
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


RECIPE = """
name: mini
target: {platform: cpu}
pipeline: distilled_one_stage
variants: {default: {height: 64, width: 96, frames: 9}}
"""


def recipe(folder: Path, checkpoint: str) -> Path:
    """A recipe file with a checkpoint section."""
    path = folder / "mini.yaml"
    path.write_text(f"{RECIPE}checkpoint: {checkpoint}\n", encoding="utf-8")
    return path


def test_recipes_name_loras(tmp_path: Path) -> None:
    """Paths are the recipe's own, the strength is 1 unless given."""
    text = "{loras: [{file: a.safetensors}, {file: hf://o/r/b, strength: -2}], distilled_lora: {file: c}}"
    section = load(recipe(tmp_path, text)).checkpoint
    assert [(lora.file, lora.strength) for lora in section.loras] == [
        (str(tmp_path / "a.safetensors"), 1.0),
        ("hf://o/r/b", -2.0),
    ]
    assert section.distilled_lora
    assert section.distilled_lora.file == str(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{loras: [{file: a, strenth: 1}]}", "unknown field; did you mean 'strength'?"),
        ("{loras: [{strength: 1}]}", "checkpoint.loras.0.file: missing"),
        ("{loras: [{file: a, strength: .inf}]}", "checkpoint.loras.0.strength"),
        ("{distilled: a, distilled_lora: {file: b}}", "takes one of them"),
    ],
)
def test_recipes_with_bad_loras_are_refused(tmp_path: Path, text: str, part: str) -> None:
    """The message names the field."""
    with pytest.raises(RecipeError) as caught:
        load(recipe(tmp_path, text))
    assert part in caught.value.message


def test_distilled_weights_are_located_where_a_pipeline_needs_them(tmp_path: Path) -> None:
    """LoRAs always; the second stage's source only for pipelines that have one, and then it must be named."""
    named = load(
        recipe(tmp_path, "{model: m, text_encoder: t, loras: [{file: a}], distilled_lora: {file: c}}")
    )
    plain = locate(named, with_upsampler=False)
    assert (plain.loras, plain.distilled_lora) == ((LoraFile(tmp_path / "a"),), None)
    found = locate(named, with_upsampler=False, with_distilled=True)
    assert found.distilled_lora == LoraFile(tmp_path / "c")
    file = load(recipe(tmp_path, "{model: m, text_encoder: t, distilled: d}"))
    assert locate(file, with_upsampler=False, with_distilled=True).distilled == tmp_path / "d"
    neither = load(recipe(tmp_path, "{model: m, text_encoder: t}"))
    with pytest.raises(CheckpointError, match=r"names no checkpoint\.distilled_lora"):
        locate(neither, with_upsampler=False, with_distilled=True)


def given(*arguments: str) -> CheckpointOverrides:
    """What the options of a command say of the checkpoint."""
    seen: list[CheckpointOverrides] = []

    def command(overrides: CheckpointOverrides, **_: object) -> None:
        seen.append(overrides)

    CliRunner().invoke(click.command()(checkpoint_options(command)), arguments, standalone_mode=False)
    return seen[0]


def test_options_name_loras_with_strengths(tmp_path: Path) -> None:
    """A strength follows the last colon; the one of hf:// is none. Options replace what the recipe says."""
    overrides = given(
        "--lora", "a.safetensors:0.5", "--lora", "hf://o/r/b", "--distilled-lora", "hf://o/r/c:2"
    )
    assert overrides.loras
    assert [(lora.file, lora.strength) for lora in overrides.loras] == [
        ("a.safetensors", 0.5),
        ("hf://o/r/b", 1.0),
    ]
    path = recipe(tmp_path, "{loras: [{file: x}], distilled: y}")
    section = read_recipe(path, overrides).checkpoint
    assert (section.loras, section.distilled) == (overrides.loras, None)
    assert section.distilled_lora
    assert (section.distilled_lora.file, section.distilled_lora.strength) == ("hf://o/r/c", 2.0)
    assert len(read_recipe(path, given()).checkpoint.loras) == 1
    with pytest.raises(RecipeError, match="exclude each other"):
        read_recipe(path, given("--distilled", "a", "--distilled-lora", "b"))


@pytest.mark.parametrize("value", ["a.safetensors:strong", "a:nan", "a:"])
def test_a_bad_strength_is_refused(tmp_path: Path, value: str) -> None:
    """The option's error shows the value."""
    done = CliRunner().invoke(cli, ["plan", str(recipe(tmp_path, "{}")), "--lora", value])
    assert done.exit_code == 2
    assert "is not a strength" in done.output


def test_plan_shows_what_a_lora_changes(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to the plan: the transformer has a LoRA, nothing else does."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "home"))
    path = recipe(tmp_path, f"{{model: {tiny.model}, text_encoder: {tiny.text_encoder}}}")
    options = ["plan", str(path), "--json", "--lora", f"{tiny.loras[0].path}:0.5"]
    done = CliRunner().invoke(cli, options, catch_exceptions=False)
    weights = json.loads(done.output)["weights"]
    assert {name for name, item in weights.items() if item["loras"]} == {"transformer"}


SHARD_WITH_LORA = """
import json, sys
from pathlib import Path
from ltx_cache.store import Store
from ltxbuild.lora import Lora
from ltxbuild.model.params import linear, prefixed, stack
from ltxbuild.sharder import shard
layers = (linear("up", f"l{i}", 4096, 8192, ("mlp", None), bias=False) for i in range(3))
table = prefixed("blocks", stack(layers))
keys = [key for spec in table for key in spec.sources]
lora = Lora(Path(sys.argv[2]), 0.5, "", {key: (f"{key}.A", f"{key}.B") for key in keys})
store = Store(Path(sys.argv[3]))
shard(table, dict.fromkeys(keys, Path(sys.argv[1])), {"mlp": "tp"}, {"tp": 4}, "bfloat16", store, int, [lora])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of zeros that takes no room."""
    header = header_bytes([(key, "bfloat16", shape) for key, shape in shapes.items()], {})
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(2 * int(np.prod(shape)) for shape in shapes.values()))
    return path


def test_merging_needs_the_memory_of_one_tensor(tmp_path: Path) -> None:
    """Three tensors of 64 MB with a LoRA of rank 128 stay under 300 MB, the interpreter included."""
    keys = [f"l{i}.weight" for i in range(3)]
    model = sparse(tmp_path / "model", dict.fromkeys(keys, (4096, 8192)))
    halves = {f"{key}.A": (128, 8192) for key in keys} | {f"{key}.B": (4096, 128) for key in keys}
    arguments = [model, sparse(tmp_path / "lora", halves), tmp_path / "store"]
    command = [sys.executable, "-c", SHARD_WITH_LORA, *map(str, arguments)]
    peak = int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024
    assert peak < 300 * 1000**2
