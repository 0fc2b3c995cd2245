"""The prompt cache: the same prompt is encoded once, whatever else differs, and never wrongly."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import toy
from runtime_helpers import PROMPT, Inside, Log, batch, request

from ltx_cache.errors import StorageFull
from ltx_cache.store import Hit, Store
from ltx_run import contexts, flow, run
from ltx_run.bundle import decode
from ltx_run.contexts import PromptCache
from ltx_run.job import Batch, prepare
from ltx_run.lookup import MANIFEST, find
from ltx_run.plan import Permute, Plan, Run
from ltx_run.report import Report
from ltx_run.safetensors import SafetensorsFile
from ltx_run.tensors import write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def made(bundle: Path, folder: Path, store: Store, *prompts: str, **changes: object) -> tuple[Report, Batch]:
    """Run prompts with the cache."""
    requests = [
        request(folder, prompt=prompt, output=folder / f"{number}.wav", **changes)
        for number, prompt in enumerate(prompts)
    ]
    checked = prepare(requests, find(str(bundle)), PromptCache(store))
    return run.run(checked, Log()), checked


def calls(report: Report) -> dict[str, int]:
    """Calls by program."""
    return {program.name: program.calls for program in report.programs}


@pytest.mark.parametrize("devices", [1, 4])
def test_second_run_skips_the_text_encoder(
    bundles: dict[int, Path], tmp_path: Path, store: Store, devices: int
) -> None:
    """The same prompt with another seed doesn't load the text encoder, and its contexts are the same."""
    kept = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    first, _ = made(bundles[devices], tmp_path, store, PROMPT, seed=1, tensors_out=kept[0])
    second, _ = made(bundles[devices], tmp_path, store, f" {PROMPT} ", seed=2, tensors_out=kept[1])
    assert (first.videos[0].prompt_cache, second.videos[0].prompt_cache) == ("stored", "hit")
    assert "text_encoder" in calls(first)
    assert "text_encoder" not in calls(second)
    a, b = (SafetensorsFile(path) for path in kept)
    assert all(np.array_equal(a.view(name), b.view(name)) for name in toy.CONTEXT)
    assert not np.array_equal(a.view(toy.LATENTS[0]), b.view(toy.LATENTS[0]))


def test_a_hit_gives_the_same_video(bundles: dict[int, Path], tmp_path: Path, store: Store) -> None:
    """With contexts from the cache the latents are bit for bit those without."""
    latents = []
    for name in ("first", "second"):
        made(bundles[1], tmp_path, store, PROMPT, tensors_out=tmp_path / name)
        latents.append(SafetensorsFile(tmp_path / name).view(toy.LATENTS[0]))
    assert np.array_equal(*latents)


def test_batch_of_known_and_new_prompts(bundles: dict[int, Path], tmp_path: Path, store: Store) -> None:
    """In a batch only the new prompts are encoded, equal ones once, and all are known afterwards."""
    made(bundles[1], tmp_path, store, PROMPT)
    report, _ = made(bundles[1], tmp_path, store, "rain", PROMPT, "rain", "ball")
    assert calls(report)["text_encoder"] == 2
    assert [video.prompt_cache for video in report.videos] == ["stored", "hit", "stored", "stored"]
    assert len(list(store.entries(contexts.KIND))) == 3


def test_off_and_unused(inside: Inside, bundles: dict[int, Path], tmp_path: Path, home: Path) -> None:
    """Without the cache nothing is looked up or kept; a run that is given contexts doesn't use it either."""
    arguments = (bundles[1], "-p", PROMPT, "-o", tmp_path / "a.wav", "--json")
    for _ in range(2):
        code, output, errors = inside(*arguments, "--no-prompt-cache")
        assert (code, msgspec.json.decode(output)["videos"][0]["prompt_cache"]) == (0, "off"), errors
    assert not home.exists()
    write(tmp_path / "in", {toy.CONTEXT[1]: np.zeros(toy.TEXT, toy.weights()["table"].dtype)})
    _, output, _ = inside(*arguments, "--tensors-in", tmp_path / "in")
    assert msgspec.json.decode(output)["videos"][0]["prompt_cache"] == "unused"
    assert not home.exists()
    for status in ("stored", "hit"):
        _, output, _ = inside(*arguments)  # --offline would hold for all tests of this process
        assert msgspec.json.decode(output)["videos"][0]["prompt_cache"] == status


def test_damage_is_repaired(bundles: dict[int, Path], tmp_path: Path, store: Store) -> None:
    """Contexts that were damaged on the disk are made and kept again."""
    _, checked = made(bundles[1], tmp_path, store, PROMPT)
    key = checked.jobs[0].key
    assert key is not None
    hit = store.lookup(key)
    assert isinstance(hit, Hit)
    path = store.open(hit.blobs[0])
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    statuses = [made(bundles[1], tmp_path, store, PROMPT)[0].videos[0].prompt_cache for _ in range(2)]
    assert statuses == ["stored", "hit"]


def test_a_store_that_cannot_be_written_stops_nothing(
    inside: Inside, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is made, and the talk says that its contexts were not kept, and why."""

    def full(store: Store) -> None:
        raise StorageFull(store.root, "No space left on device")

    monkeypatch.setattr(Store, "writer", full)
    code, _, errors = inside(bundles[1], "-p", PROMPT, "-o", tmp_path / "a.wav")
    assert code == 0
    assert "prompt cache: not stored: cannot write to the store" in errors
    assert (tmp_path / "a.wav").is_file()


def test_key_depends_on_all_that_makes_the_results(toy_bundle: Path) -> None:
    """Another token, program, weight file, prompt length or step is another key; other parts don't matter."""
    manifest = decode((toy_bundle / MANIFEST).read_bytes())

    def digest(plan: Plan = toy.PLAN, ids: tuple[tuple[int, ...], ...] = ((1, 2),), **changes: object) -> str:
        return contexts.key(msgspec.structs.replace(manifest, **changes), plan, ids).digest

    def program(name: str) -> dict[str, object]:
        other = msgspec.structs.replace(
            manifest.programs[name], executable=toy.bundle.Blob(sha256="0" * 64, size=1)
        )
        return {**manifest.programs, name: other}

    def weights(name: str) -> dict[str, object]:
        other = toy.bundle.WeightSet(shared=toy.bundle.Blob(sha256="0" * 64, size=1), ranks=(), key="")
        return {**manifest.weights, name: other}

    def longer() -> Plan:
        return (msgspec.structs.replace(toy.PLAN[0], length=9), *toy.PLAN[1:])

    same = digest()
    others = [
        digest(ids=((1, 3),)),
        digest(ids=((1, 2), (1,))),
        digest(ids=((1, 2, 0),)),
        digest(programs=program("text_encoder")),
        digest(weights=weights("text")),
        digest(plan=longer()),
    ]
    assert len({same, *others}) == 7
    defaults = (msgspec.structs.replace(toy.PLAN[0], defaults={"negative_prompt": "ugly"}), *toy.PLAN[1:])
    equal = [
        digest(programs=program("denoise_step")),
        digest(weights=weights("decoder")),
        digest(name="other"),
        digest(plan=defaults),
    ]
    assert set(equal) == {same}


def test_results_are_what_others_read() -> None:
    """What follows from the prompt alone, and is read by what doesn't, also through other steps."""
    assert contexts.results(toy.PLAN) == set(toy.CONTEXT)
    assert flow.from_prompts(toy.PLAN) == {"tokens", "mask", *toy.CONTEXT}
    encode = Run(program="text_encoder", inputs=("tokens", "mask"), outputs=("features", "other"))
    permute = Permute(inputs=("features",), outputs=(toy.CONTEXT[0],), view=(1,), axes=(0,))
    connect = Run(program="connector", inputs=("other", "mask"), outputs=(toy.CONTEXT[1],))
    plan = (toy.PLAN[0], encode, permute, connect, *toy.PLAN[2:])
    assert contexts.results(plan) == set(toy.CONTEXT)


def test_nothing_is_looked_up_without_a_cache(bundles: dict[int, Path], tmp_path: Path) -> None:
    """A batch that was prepared without a cache has no keys."""
    checked = batch(bundles[1], request(tmp_path))
    assert (checked.jobs[0].key, checked.cache) == (None, None)
