"""`ltxbuild keygen`, `push`, `pull` and `compile --from` with the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hubserver
import pytest
from bundles import fake_bundle, publish
from commands import Command
from hubserver import Hub
from sharing import KEY, share, two_variants
from test_explain import BASE, VARIANT, plan
from test_readthrough import built

from ltx_cache.hub_remote import HubRemote
from ltx_cache.store import Store
from ltx_run.bundle import encode

REPO, URL = "org/repo", "hf://org/repo"


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A local server, and no trusted keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with hubserver.serve() as server:
        hubserver.point_at(server, monkeypatch)
        yield server


def bundle_in(store: Store, name: str = "two", platform: str = "cpu") -> None:
    """A bundle of two variants in the cache."""
    store.set_ref(name, store.put_bytes(encode(two_variants(store, name, platform))))


def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Another cache, in use from now on."""
    monkeypatch.setenv("LTX_HOME", str(tmp_path / "other"))
    return Store(tmp_path / "other")


def test_from_key_to_trust(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make a key, push with it, pull on another machine that trusts it."""
    bundle_in(store)
    made = ltxbuild("keygen", str(tmp_path / "release.key"), "--comment", "maker")
    assert made.out.startswith("ssh-ed25519 ")
    sent = ltxbuild("push", "two", URL, "--private", "--sign", str(tmp_path / "release.key"), "--json")
    assert sent.code == 0, sent.err
    assert json.loads(sent.out)["commit"] == HubRemote(REPO).state()
    assert hub.repos[REPO].private
    other = other_machine(tmp_path, monkeypatch)
    refused = ltxbuild("pull", URL)
    assert (refused.code, other.refs()) == (2, [])
    assert "by no key that you trust" in refused.err
    trusted = tmp_path / "config" / "ltxbuild" / "trusted-keys"
    assert f"add the key to {trusted}" in refused.err
    trusted.parent.mkdir(parents=True)
    trusted.write_text(made.out)
    done = ltxbuild("pull", URL, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["bundle"] == store.ref("two").sha256
    assert ltxbuild("verify").code == 0


def test_an_openssf_signature(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made and checked by the same commands; a second push with the same key changes nothing."""
    pytest.importorskip("model_signing", reason="needs pip install 'ltxbuild[sign]'")
    bundle_in(store)
    key = str(tmp_path / "release.key")
    made = ltxbuild("keygen", key, "--openssf", "--comment", "maker")
    assert made.out.startswith("ecdsa-sha2-nistp256 ")
    commits = [json.loads(ltxbuild("push", "two", URL, "--sign", key, "--json").out)["commit"] for _ in "ab"]
    assert commits[0] == commits[1]
    other_machine(tmp_path, monkeypatch)
    stranger = ltxbuild("pull", URL, "--trust", KEY.public.line)
    assert (stranger.code, "by no key that you trust" in stranger.err) == (2, True)
    monkeypatch.setattr("ltxbuild.cli.remotes.refuse_connections", lambda: None)
    for more in ((), ("--offline",)):
        done = ltxbuild("pull", URL, "--trust", f"{key}.pub", *more)
        assert done.code == 0, done.err
        assert "not signed" not in done.err
    files = dict(hub.repos[REPO].files("main") or {})
    (path,) = (path for path in files if path.startswith("signatures/"))
    hub.repos[REPO].commit("main", files | {path: files[path].replace(b'"sig":"M', b'"sig":"N')})
    wrong = ltxbuild("pull", URL, "--trust", f"{key}.pub")
    assert (wrong.code, "has a wrong signature" in wrong.err) == (2, True)


def test_a_second_variant_sends_its_program_only(hub: Hub, store: Store, ltxbuild: Command) -> None:
    """Counted at the server: weights and tokenizer stay where they are."""
    weights = tuple(bytes([n]) * 100_000 for n in range(3))
    publish(store, fake_bundle(store, "square", tensors=weights))
    assert ltxbuild("push", "square", URL).code == 0
    publish(store, fake_bundle(store, "wide", tensors=weights, code=b"wide executable"))
    hub.received = 0
    sent = json.loads(ltxbuild("push", "wide", URL, "--json").out)
    assert sent["bytes"] == len(b"wide executable") + store.ref("wide").size
    assert hub.received < 20_000


def test_a_variant_alone(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes without the others' programs, and the cache is whole with it."""
    bundle_in(store)
    ltxbuild("push", "two", URL)
    other = other_machine(tmp_path, monkeypatch)
    done = ltxbuild("pull", URL, "--allow-unsigned", "--variant", "small")
    assert done.code == 0, done.err
    assert "not signed" in done.err
    assert not other.has(store.put_bytes(b"two large executable"))
    assert ltxbuild("verify").code == 0
    assert ltxbuild("verify", "two").code == 0
    part = ltxbuild("push", "two", "hf://org/second")
    assert (part.code, "only small was received" in part.err) == (1, True)
    assert ltxbuild("bundle", "two", str(tmp_path / "two.tar")).code == 1
    wrong = ltxbuild("pull", URL, "--allow-unsigned", "--variant", "huge")
    assert (wrong.code, "it has: large" in wrong.err) == (2, True)


def test_the_platform_chooses(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several bundles the one for a platform is taken."""
    for name, platform in (("here", "cpu"), ("there", "tpu")):
        bundle_in(store, name, platform)
        ltxbuild("push", name, URL)
    other = other_machine(tmp_path, monkeypatch)
    several = ltxbuild("pull", URL, "--allow-unsigned")
    assert (several.code, "'hf://org/repo#here' or 'hf://org/repo#there'" in several.err) == (2, True)
    assert ltxbuild("pull", URL, "--allow-unsigned", "--platform", "tpu").code == 0
    assert [ref.name for ref in other.refs()] == ["there"]


def test_offline_is_what_was_received(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same address; under another name too."""
    # There is no way back from the real one; the request count shows the same.
    monkeypatch.setattr("ltxbuild.cli.remotes.refuse_connections", lambda: None)
    bundle_in(store)
    ltxbuild("push", "two", URL)
    other = other_machine(tmp_path, monkeypatch)
    assert ltxbuild("pull", URL, "--allow-unsigned", "--offline").code == 2
    ltxbuild("pull", URL, "--allow-unsigned")
    hub.requests.clear()
    done = ltxbuild("pull", URL, "--allow-unsigned", "--offline", "--as", "mine")
    assert (done.code, hub.requests) == (0, [])
    assert other.ref("mine") == other.ref("two")


def test_results_are_taken_from_the_hub(
    hub: Hub, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that matches, or with --only that program alone; never what nobody trusted has signed."""
    from ltxbuild.cli import compile as compiling

    maker = Store(tmp_path / "maker")
    share(maker, HubRemote(REPO), built(maker, plan(maker)))
    monkeypatch.setattr(compiling, "_build", lambda *arguments: None)
    recipe = tmp_path / "recipe.yaml"
    content: dict[str, Any] = {
        **BASE,
        "checkpoint": {"config": "ltx-2.3-tiny"},
        "variants": {"default": VARIANT},
    }
    recipe.write_text(json.dumps(content))
    common = ("compile", str(recipe), "--programs-only", "--from", URL)
    assert ltxbuild(*common).code == 2
    assert not list(store.entries("program"))
    trusted = (*common, "--trust", KEY.public.line)
    one = ltxbuild(*trusted, "--only", "vocoder")
    assert one.code == 0, one.err
    assert "1 results taken from" in one.err
    assert len(list(store.entries("program"))) == 1
    rest = ltxbuild(*trusted)
    assert "results taken from" in rest.err
    assert len(list(store.entries("program"))) == len(plan(store).programs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "two", "hf://org/repo@" + "0" * 40), "names a commit"),
        (("push", "two", f"hf://org/repo#sha256:{'0' * 64}"), "can't be pushed to"),
        (("push", "two", "file:///mnt/x", "--private"), "can't be made private"),
        (("push", "two", "hf://org"), "is no address"),
        (("pull", "hf://org/nothing"), "no such repository"),
        (("compile", "recipe.yaml", "--allow-unsigned"), "are of use with --from only"),
        (("pull", "hf://org/repo", "--trust", "nothing.pub"), "cannot read nothing.pub"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, store: Store, ltxbuild: Command) -> None:
    """One message, no traceback, nothing on standard output."""
    bundle_in(store)
    done = ltxbuild(*arguments)
    assert (done.code in (1, 2), done.out) == (True, "")
    assert message in done.err


def test_offline_builds_ask_nobody(hub: Hub, ltxbuild: Command, tmp_path: Path) -> None:
    """What needs the network is refused before anything is read."""
    done = ltxbuild("compile", str(tmp_path / "recipe.yaml"), "--from", URL, "--offline")
    assert (done.code, hub.requests) == (2, [])
    assert "can't be used with --offline" in done.err
