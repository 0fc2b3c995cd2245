"""Putting a bundle together: manifest from plan and results, published under the recipe's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltx_cache.blobref import BlobRef
from ltx_cache.store import Store
from ltx_run import bundle as manifest
from ltxbuild import __version__
from ltxbuild.plan.keys import compiler_versions
from ltxbuild.plan.planner import BuildPlan
from ltxbuild.plan.sources import remembered, source_digest
from ltxbuild.programs import MODULES
from ltxbuild.recipe import Recipe
from ltxbuild.targets import target


def publish(
    plan: BuildPlan,
    programs: Mapping[str, manifest.Program],
    weights: Mapping[str, manifest.WeightSet],
    tokenizer: BlobRef,
    files: Mapping[str, str],
    store: Store,
) -> BlobRef:
    """Write the manifest and move the bundle's name to it.

    Returns:
        The manifest's blob; its digest names the bundle.
    """
    with remembered(store):
        provenance = _provenance(plan, files)
    bundle = manifest.Bundle(
        name=plan.recipe.name,
        recipe=public_recipe(plan.recipe),
        variants={
            variant.name: manifest.Variant(
                height=variant.section.height,
                width=variant.section.width,
                frames=variant.section.frames,
                fps=variant.section.fps,
                plan=variant.plan,
            )
            for variant in plan.blueprint.variants
        },
        programs=dict(programs),
        weights=dict(weights),
        tokenizer=manifest.Blob(sha256=tokenizer.sha256, size=tokenizer.size),
        provenance=provenance,
    )
    blob = store.put_bytes(manifest.encode(bundle))
    store.set_ref(plan.recipe.name, blob)
    return blob


def public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the paths of the machine that built it."""
    data = recipe.model_dump(mode="json")
    del data["checkpoint"]
    return data


def _provenance(plan: BuildPlan, files: Mapping[str, str]) -> dict[str, str]:
    section = plan.recipe.target
    versions = compiler_versions(section.platform) | target(section.platform).tools(section)
    loras = {f"lora {number}": lora for number, lora in enumerate(plan.loras.everywhere, 1)}
    loras |= {f"distilled lora {number}": lora for number, lora in enumerate(plan.loras.distilled, 1)}
    return {
        "ltxbuild": __version__,
        "sources": source_digest(*MODULES.values()),
        **versions,
        **{f"sha256 {role}": digest for role, digest in files.items()},
        **{f"sha256 {role}": lora.sha256 for role, lora in loras.items()},
        **{f"strength {role}": str(lora.strength) for role, lora in loras.items()},
    }
