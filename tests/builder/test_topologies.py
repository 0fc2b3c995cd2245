"""Targets of machines that are not there: topologies, what recipes may ask of them, and missing compilers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from ltx_cache.store import Store
from ltxbuild.environment import scrubbed
from ltxbuild.errors import RecipeError, ToolMissing
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.recipe import Recipe, load
from ltxbuild.synthetic.shipped import shipped_config
from ltxbuild.targets import cuda, target, tpu

RECIPES = Path(__file__).parents[2] / "recipes"
WITHOUT_LIBTPU = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")

BASE: dict[str, Any] = {
    "name": "far",
    "target": {"platform": "tpu", "topology": "v6e:2x2", "tensor_parallel": 4, "profile": "ironwood"},
    "pipeline": "distilled_two_stage",
    "variants": {"default": {"height": 1024, "width": 1536, "frames": 121}},
}


def planned(tmp_path: Path, config: str = "ltx-2.3-tiny", **target: Any) -> BuildPlan:
    """The plan of a recipe with another target."""
    recipe = Recipe.model_validate({**BASE, "target": {**BASE["target"], **target}})
    return plan_build(recipe, shipped_config(config), Store(tmp_path), None)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"topology": "v6e:2x3"}, "v6e:2x3, which is not known", "v5e:2x2 or v5p:2x2x1 or v6e:2x2"),
        ({"topology": "v6e:2x3"}, "v6e:2x4 (8), v6e:4x4 (16)", "for the 4 devices"),
        ({"topology": None}, "target.topology is missing; tpu has", "for the 4 devices"),
        ({"topology": "tpu7x:2x2x1"}, "has 8 devices, the recipe takes 4", "all devices"),
        ({"platform": "cuda", "topology": "a100"}, "h100 (1), h100:2 (2)", "h100:4 or h200:4"),
    ],
)
def test_topologies_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str, hint: str
) -> None:
    """The message lists what there is, with devices; the hint names what has as many as the recipe takes."""
    with pytest.raises(RecipeError) as caught:
        planned(tmp_path, **changes)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_weights_that_two_programs_take_in_different_forms_are_refused(tmp_path: Path) -> None:
    """One stage in four parts and the other whole, of the same weights."""
    recipe = Recipe.model_validate({**BASE, "programs": {"denoise": {"platform": "cpu"}}})
    with pytest.raises(RecipeError, match="on 4 devices read the weights transformer in different forms"):
        plan_build(recipe, shipped_config("ltx-2.3-tiny"), Store(tmp_path), None)


def test_weights_that_two_programs_take_whole_are_one_form(tmp_path: Path) -> None:
    """A mesh of one device splits nothing."""
    fields = {
        "target": {"platform": "cuda", "topology": "h200", "profile": "hopper"},
        "programs": {"denoise": {"platform": "cpu"}},
    }
    recipe = Recipe.model_validate({**BASE, **fields})
    assert plan_build(recipe, shipped_config("ltx-2.3-tiny"), Store(tmp_path), None).weights


def test_the_topologies_that_are_listed_are_those_of_the_program(tmp_path: Path) -> None:
    """A program may run on another platform than the recipe."""
    fields = {"target": {"platform": "cpu"}, "programs": {"denoise": {"platform": "cuda"}}}
    recipe = Recipe.model_validate({**BASE, **fields})
    with pytest.raises(RecipeError, match="topology is missing; cuda has"):
        plan_build(recipe, shipped_config("ltx-2.3-tiny"), Store(tmp_path), None)


def test_one_device_of_many_is_enough(tmp_path: Path) -> None:
    """A recipe that splits nothing runs on one device of any topology."""
    plan = planned(tmp_path, topology="v6e:2x4", tensor_parallel=1, profile="single")
    assert {item.placement.devices for item in plan.programs.values()} == {1}


def test_the_topology_is_part_of_every_key(tmp_path: Path) -> None:
    """Another generation of the same shape shares no program."""
    here, there = (planned(tmp_path, topology=name).programs for name in ("v6e:2x2", "v5e:2x2"))
    assert all(here[name].key != there[name].key for name in here)


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 3, and the extra in the hint."""
    monkeypatch.setattr(tpu, "find_spec", lambda name: None)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    for platform, extra in (("tpu", "ltxbuild[tpu]"), ("cuda", "ltxbuild[cuda13]")):
        with pytest.raises(ToolMissing) as caught:
            target(platform).check()
        assert extra in (caught.value.hint or "")
        assert caught.value.exit_code == 3


@WITHOUT_LIBTPU
def test_a_libtpu_of_another_jax_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions are named; the one that is installed here fits."""
    target("tpu").check()
    monkeypatch.setattr(tpu, "version", {"jax": "0.10.2", "libtpu": "0.0.51"}.get)
    with pytest.raises(ToolMissing, match=r"jax 0.10.2 needs libtpu 0\.0\.\d+\.\*, installed is 0.0.51"):
        target("tpu").check()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_programs_are_written_for_the_platform(tmp_path: Path, platform: str) -> None:
    """At full size: no scores, one shape of tile; 3-D convolutions where the compiler likes them."""
    topology = {"tpu": "v6e:2x4", "cuda": "h200:8"}[platform]
    plan = planned(
        tmp_path, "ltx-2.3-22b", platform=platform, topology=topology, tensor_parallel=8, profile="ironwood"
    )
    forms = {item.spec.kind: item.forms for item in plan.programs.values()}
    kernel = {"tpu": "pallas", "cuda": "cudnn"}[platform]
    assert {forms["denoise"].attention, forms["denoise_from"].attention} == {kernel}
    assert forms["video_decoder"].convolution == {"tpu": "direct", "cuda": "taps"}[platform]
    assert sum(item.spec.kind == "video_decoder" for item in plan.programs.values()) == 1


def test_flash_attention_is_refused_where_there_is_none(tmp_path: Path) -> None:
    """No silent fallback: not on CPUs, not in f32, not with blocks that don't fit each other."""
    cpu = {**BASE, "target": {"platform": "cpu"}}
    for changes, problem in (
        ({**cpu, "attention": "flash"}, "cpu has no kernel"),
        ({**BASE, "attention": "flash", "precision": "float32"}, "needs precision bfloat16"),
        ({**BASE, "flash": {"keys": 1024, "compute": 384}}, "does not divide keys"),
    ):
        with pytest.raises(ValueError, match=problem):
            Recipe.model_validate(changes)


FLASH = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from importlib import import_module
from ltxbuild.model import layers
from ltxbuild.model.flash import Blocks
platform, topology, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
backend = import_module(f"ltxbuild.compiler.{platform}")
(device,) = backend.devices({"topology": topology}, 1)
whole = NamedSharding(Mesh([device], "x"), PartitionSpec())
q = jax.ShapeDtypeStruct((1, tokens, 2, 128), jnp.bfloat16)
kind = {"tpu": Blocks(1024, 1024, 512), "cuda": "cudnn"}[platform]
attend = lambda q, k, v: layers.attention(q, k, v, scale=0.1, kind=kind)
compiled = jax.jit(attend, in_shardings=(whole,) * 3, out_shardings=whole).lower(q, q, q).compile()
code = compiled.runtime_executable().serialize()
print(json.dumps([device.device_kind, compiled.memory_analysis().temp_size_in_bytes, len(code)]))
"""


def flash_figures(platform: str, topology: str, tokens: int) -> tuple[str, int, int]:
    """Device kind, bytes of temporaries and of code of attention among so many tokens, two heads."""
    environment = target(platform).environment({"topology": topology}, 1)
    done = subprocess.run(
        [sys.executable, "-c", FLASH, platform, topology, str(tokens)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**scrubbed(), **environment, "PATH": os.environ["PATH"]},
    )
    kind, temp, code = json.loads(done.stdout.splitlines()[-1])
    return kind, temp, code


@WITHOUT_LIBTPU
@pytest.mark.parametrize("tokens", [4096, pytest.param(24576, marks=pytest.mark.slow)])
def test_attention_for_tpu_holds_no_scores(tokens: int) -> None:
    """Compiled for a v6e: temporaries are a few times the queries, and a small part of one head's scores."""
    kind, temp, code = flash_figures("tpu", "v6e:1x1", tokens)
    assert kind == tpu.GENERATIONS["v6e"].kind
    assert code > 0
    assert temp < 4 * (2 * tokens * 128 * 2)
    assert temp < tokens * tokens


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("jax_cuda13_plugin") is None, reason="ltxbuild[cuda13] (4.4 GB) isn't installed"
)
def test_attention_for_cuda_holds_no_scores() -> None:
    """Compiled for an H200 by cuDNN: next to nothing."""
    kind, temp, code = flash_figures("cuda", "h200", 24576)
    assert kind == cuda.GPUS["h200"].kind
    assert code > 0
    assert temp < 1 << 20


@WITHOUT_LIBTPU
def test_a_program_for_four_chips(ltxbuild: Command, store: Store) -> None:
    """The tiny system's last stage for `v6e:2x2`, compiled here: what the manifest will say of it."""
    recipe = RECIPES / "tpu_tiny.yaml"
    done = ltxbuild("compile", str(recipe), "--programs-only", "--only", "denoise_from", "-j1")
    assert done.code == 0, done.err
    plan = plan_build(load(recipe), shipped_config("ltx-2.3-tiny"), store, None)
    (record,) = (item.record for item in plan.programs.values() if item.record)
    fingerprint = record.fingerprint
    assert (fingerprint.platform, fingerprint.devices) == ("tpu", 4)
    assert fingerprint.features == ("TPU v6 lite", "v6e:2x2")
    assert re.fullmatch(r"jaxlib [\d.]+, libtpu 0\.0\.42[\d.]*", fingerprint.runtime)
    assert min(record.memory.arguments, record.memory.temp, record.memory.code) > 0
    assert record.flops > 0


TOPOLOGIES = """
import json, sys
from ltxbuild.compiler.tpu import devices
found = {name: devices({"topology": name}, 10**6) for name in sys.argv[1:]}
print(json.dumps({name: [[d.device_kind, d.id] for d in here] for name, here in found.items()}))
"""


@WITHOUT_LIBTPU
def test_libtpu_knows_the_topologies() -> None:
    """Device kinds and counts are libtpu's, and devices come by number."""
    done = subprocess.run(
        [sys.executable, "-c", TOPOLOGIES, *tpu.TOPOLOGIES],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**scrubbed(), **target("tpu").environment({"topology": "v6e:1x1"}, 1)},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == tpu.TOPOLOGIES.keys()
    for name, devices in found.items():
        kind = tpu.GENERATIONS[name.partition(":")[0]].kind
        assert devices == [[kind, number] for number in range(tpu.TOPOLOGIES[name])]
