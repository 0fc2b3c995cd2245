"""`ltx-run` with an address: receive what is needed, check who made it, run; and without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hubserver
import msgspec
import pytest
from hubserver import Hub
from runtime_helpers import PROMPT, Inside
from sharing import KEY, public_file, share

from ltx_cache.folder_remote import FolderRemote
from ltx_cache.hub_remote import HubRemote
from ltx_cache.store import Store
from ltx_run.acquire import origin
from ltx_run.bundle import Bundle, decode
from ltx_run.lookup import MANIFEST

REPO, URL = "org/repo", "hf://org/repo"
WATCHED = (
    "import atexit, os\n"
    "events = []\n"
    "sys.addaudithook(lambda event, arguments: event.startswith('socket.') and events.append(event))\n"
    "atexit.register(lambda: print('SOCKETS', events, sorted(sys.modules.keys() & {wanted!r})))"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local server."""
    with hubserver.serve() as server:
        hubserver.point_at(server, monkeypatch)
        yield server


@pytest.fixture
def maker(bundles: dict[int, Path], tmp_path: Path) -> Store:
    """Another machine's cache, with all blobs of the toy bundle."""
    store = Store(tmp_path / "maker")
    for path in (bundles[1] / "blobs").iterdir():
        store.put_file(path)
    return store


@pytest.fixture
def toy(bundles: dict[int, Path]) -> Bundle:
    """The toy bundle, with a second variant that needs nothing but the tokenizer."""
    bundle = decode((bundles[1] / MANIFEST).read_bytes())
    default = bundle.variants["default"]
    return msgspec.structs.replace(
        bundle, variants={"default": default, "empty": msgspec.structs.replace(default, plan=())}
    )


def watched(*arguments: object, before: str, env: dict[str, str]) -> tuple[int, str, str]:
    """The command in a process of its own; what it opened and loaded is the last line of the output."""
    code = f"import sys\n{before}\nfrom ltx_run.cli import main\nsys.argv[0] = 'ltx-run'\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    return done.returncode, done.stdout, done.stderr


def test_from_the_hub_and_then_offline(
    hub: Hub, maker: Store, toy: Bundle, inside: Inside, tmp_path: Path
) -> None:
    """The whole way; the second run opens no socket and loads no client of the Hub."""
    share(maker, HubRemote(REPO), toy)
    out, key = tmp_path / "out.mp4", public_file(tmp_path)
    common = ("-p", PROMPT, "-o", out, "--trust", key)
    code, _, errors = inside(URL, *common[:-2])
    assert (code, out.exists()) == (2, False)
    assert f"by no key that you trust: {KEY.public.fingerprint}" in errors
    assert "kept" not in errors
    code, _, errors = inside(URL, *common, "--json")
    assert code == 0, errors
    assert "received" in errors
    assert out.stat().st_size > 1000
    out.unlink()
    before = WATCHED.format(wanted={"huggingface_hub", "httpx", "requests"})
    env = hubserver.environment(hub, tmp_path / "hf")
    code, output, errors = watched(URL, *common, "--offline", before=before, env=env)
    assert code == 0, errors
    assert output.splitlines()[-1] == "SOCKETS [] []"
    assert out.stat().st_size > 1000


def test_a_pinned_bundle_is_not_asked_for_again(
    hub: Hub, maker: Store, toy: Bundle, inside: Inside, tmp_path: Path
) -> None:
    """By commit: the second run sends no request; another variant does."""
    share(maker, HubRemote(REPO), toy)
    pinned = f"{URL}@{HubRemote(REPO).state()}"
    common = (pinned, "-p", PROMPT, "--trust", public_file(tmp_path), "-o", tmp_path / "out.wav")
    code, _, errors = inside(*common)
    assert code == 0, errors
    hub.requests.clear()
    code, _, errors = inside(*common)
    assert code == 0, errors
    assert hub.requests == []


def test_a_pinned_bundle_is_trusted_later(
    hub: Hub, maker: Store, toy: Bundle, inside: Inside, tmp_path: Path
) -> None:
    """By commit: what was accepted unsigned gets its signature, and nothing else, when a key is named."""
    share(maker, HubRemote(REPO), toy)
    common = (f"{URL}@{HubRemote(REPO).state()}", "-p", PROMPT, "-o", tmp_path / "out.wav")
    code, _, errors = inside(*common, "--allow-unsigned")
    assert code == 0, errors
    code, _, errors = inside(*common, "--trust", public_file(tmp_path))
    assert code == 0, errors
    assert "received" not in errors


def test_only_what_the_variant_needs_is_received(
    hub: Hub, maker: Store, toy: Bundle, inside: Inside, tmp_path: Path, home: Path
) -> None:
    """A variant that runs nothing costs the tokenizer and the manifest."""
    share(maker, HubRemote(REPO), toy)
    inside(URL, "-p", PROMPT, "-o", tmp_path / "x.mp4", "--allow-unsigned", "--variant", "empty")
    (ref,) = Store(home).refs()
    known = origin(ref)
    assert known is not None
    assert known.variants == ("empty",)
    assert {path.name for path in (home / "blobs").glob("*/*")} == {ref.manifest.sha256, toy.tokenizer.sha256}


def test_a_bundle_for_another_machine_is_not_received(
    hub: Hub, maker: Store, toy: Bundle, inside: Inside, tmp_path: Path
) -> None:
    """Its programs are looked at before a byte of them travels."""
    programs = {
        name: msgspec.structs.replace(
            program, fingerprint=msgspec.structs.replace(program.fingerprint, features=("sve9", "x86_64"))
        )
        for name, program in toy.programs.items()
    }
    share(maker, HubRemote(REPO), msgspec.structs.replace(toy, programs=programs))
    code, _, errors = inside(URL, "-p", PROMPT, "-o", tmp_path / "x.mp4", "--allow-unsigned")
    assert code == 3
    assert "sve9" in errors
    received = {path.rpartition("/")[2] for path in hub.paths("GET", "/(blobs|cdn)/")}
    assert len(received) == 1  # the manifest


def test_offline_without_an_earlier_run(hub: Hub, tmp_path: Path) -> None:
    """It says what to do, and asks nobody."""
    before = WATCHED.format(wanted={"huggingface_hub"})
    env = hubserver.environment(hub, tmp_path / "hf") | {"LTX_OFFLINE": "1"}
    code, output, errors = watched(URL, "-p", "x", "-o", tmp_path / "x.mp4", before=before, env=env)
    assert code == 2
    assert "was not received before" in errors
    assert "run this once without --offline" in errors
    assert output == "SOCKETS [] []\n"
    assert hub.requests == []


def test_from_a_folder(maker: Store, toy: Bundle, inside: Inside, tmp_path: Path) -> None:
    """A folder is a remote like any other; nothing of the Hub is loaded for it."""
    remote = FolderRemote(tmp_path / "remote")
    share(maker, remote, toy)
    common = (f"{remote.url}#{toy.name}", "-p", PROMPT, "-o", tmp_path / "out.wav", "--json")
    code, _, errors = inside(*common)
    assert code == 2, errors
    code, output, errors = inside(*common, "--trust", public_file(tmp_path))
    assert code == 0, errors
    assert json.loads(output)["videos"][0]["error"] is None


def test_trust_is_for_remotes(inside: Inside, tmp_path: Path) -> None:
    """With a name of the cache the options would do nothing, so they are refused."""
    code, _, errors = inside("toy", "-p", PROMPT, "-o", tmp_path / "x.mp4", "--allow-unsigned")
    assert (code, "are for bundles from" in errors) == (2, True)
