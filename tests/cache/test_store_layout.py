"""The folders of a store and their version."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_cache.errors import FileNotReadable, UnsupportedLayout
from ltx_cache.key import Key
from ltx_cache.layout import Layout
from ltx_cache.store import Store


def test_everything_is_where_the_docs_say(store: Store) -> None:
    """After one of each, the store holds exactly the documented files."""
    blob = store.put_bytes(b"hello")
    key = Key("program", ())
    store.put_entry(key, None, [blob])
    store.set_ref("tiny", blob)
    store.log_path("compile").write_text("log")
    with store.lock("build"):
        pass
    found = {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
    assert found == {
        "VERSION",
        f"blobs/2c/{blob.sha256}",
        f"entries/program/{key.digest}.json",
        "refs/tiny.json",
        f"stamps/{blob.sha256}.json",
        "locks/build.lock",
        "logs/compile.log",
    }


@pytest.mark.parametrize("version", ["2\n", "", "one", "\xff"])
def test_another_layout_is_refused(tmp_path: Path, version: str) -> None:
    """A store of another version is not read, let alone written; the message says what to do."""
    (tmp_path / "VERSION").write_text(version, encoding="latin-1")
    with pytest.raises(UnsupportedLayout, match="this version reads layout 1") as caught:
        Store(tmp_path)
    assert "LTX_HOME" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_version_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A VERSION that is not a file is an error with its path."""
    (tmp_path / "VERSION").mkdir()
    with pytest.raises(FileNotReadable, match="VERSION"):
        Store(tmp_path)


def test_opening_creates_nothing(tmp_path: Path) -> None:
    """A store comes into being with the first write, and is complete then."""
    store = Store(tmp_path / "new" / "store")
    assert not (tmp_path / "new").exists()
    store.put_bytes(b"x")
    assert (store.root / "VERSION").read_text() == "1\n"


def test_a_relative_root_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the working directory does not move the store."""
    monkeypatch.chdir(tmp_path)
    assert Layout(Path("store")).root == tmp_path / "store"
