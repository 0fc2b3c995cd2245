"""Bundles as files: the same bytes each time, and nothing in a forged one gets in."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from bundles import fake_bundle, publish
from commands import Command

from ltx_cache.blobref import BlobRef
from ltx_cache.errors import BadName, LtxError, MissingBlob, StorageFull, WrongBytes
from ltx_cache.store import Store
from ltx_run.bundle import Bundle, blobs, encode
from ltx_run.contents import contents
from ltx_run.errors import BundleInvalid, OutputError
from ltx_run.lookup import MANIFEST, MANIFEST_DIGEST, digest_line, find
from ltxbuild.bundles import unarchive
from ltxbuild.bundles.archive import NotWritten, pack, unfold
from ltxbuild.bundles.unarchive import ArchiveInvalid, unpack

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A store with a bundle."""
    made = Store(tmp_path / "source")
    publish(made, fake_bundle(made))
    return made


@pytest.fixture
def archive(source: Store, tmp_path: Path) -> Path:
    """The bundle's archive."""
    pack(source, source.ref("fake"), tmp_path / "fake.tar")
    return tmp_path / "fake.tar"


def test_a_bundle_survives(archive: Path, source: Store, store: Store) -> None:
    """Name, manifest and blobs come back; a second time changes nothing."""
    for _ in range(2):
        with archive.open("rb") as file:
            assert unpack(file, store) == ("fake", source.ref("fake"))
    manifest = store.open(store.ref("fake"), paranoid=True).read_bytes()
    for ref in contents(manifest):
        assert store.open(ref, paranoid=True).read_bytes() == source.open(ref).read_bytes()


def test_the_same_bundle_gives_the_same_bytes(
    archive: Path, source: Store, store: Store, tmp_path: Path
) -> None:
    """Whatever store it comes from, and however often it travelled."""
    with archive.open("rb") as file:
        unpack(file, store, "another-name")
    size = pack(store, store.ref("another-name"), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    assert size == archive.stat().st_size


def test_other_tools_read_it(archive: Path, tmp_path: Path) -> None:
    """What tar unpacks is a bundle directory, and sha256sum agrees with it."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "xf", str(archive), "-C", str(folder)], check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", MANIFEST_DIGEST], cwd=folder, check=True)
    opened = find(str(folder))
    assert [opened.path(blob).stat().st_size for blob in blobs(opened.manifest)]


def test_the_directory_form(source: Store, tmp_path: Path) -> None:
    """`ltx-run DIR` opens it; each flipped bit of the manifest is found; it never replaces anything."""
    folder = tmp_path / "made"
    unfold(source, source.ref("fake"), folder)
    opened = find(str(folder))
    assert opened.digest == source.ref("fake").sha256
    assert {opened.path(blob).name for blob in blobs(opened.manifest)} == {
        path.name for path in (folder / "blobs").iterdir()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "source"]
    sound = (folder / MANIFEST).read_bytes()
    for bit in range(8 * len(sound)):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / MANIFEST).write_bytes(flipped)
        with pytest.raises(BundleInvalid, match="damaged"):
            find(str(folder))
    with pytest.raises(LtxError, match="exists"):
        unfold(source, source.ref("fake"), folder)


def test_a_lost_blob_leaves_no_archive(source: Store, tmp_path: Path) -> None:
    """An earlier archive stays, and no half of a new one."""
    target = tmp_path / "out.tar"
    target.write_text("earlier")
    source.open(BlobRef.of(b"tokenizer")).unlink()
    with pytest.raises(MissingBlob):
        pack(source, source.ref("fake"), target)
    assert target.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tar", "source"]
    with pytest.raises(MissingBlob):
        unfold(source, source.ref("fake"), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tar", "source"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_what_stops_a_directory_leaves_nothing(
    stop: type[BaseException] | OSError, source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an interrupt nor a full disk leaves blobs behind; the disk's error names the directory."""
    monkeypatch.setattr(Path, "rename", Mock(side_effect=stop))
    with pytest.raises((KeyboardInterrupt, NotWritten)) as caught:
        unfold(source, source.ref("fake"), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    if isinstance(stop, OSError):
        assert f"cannot write {tmp_path / 'folder'}: No space left" in str(caught.value)
        assert "LTX_HOME" not in str(caught.value)


def test_two_that_write_one_directory_spare_each_other(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to be complete gets the name; the other's blobs go, and it is told."""
    folder, manifest, really_open = tmp_path / "folder", source.ref("fake"), Store.open

    def open_late(store: Store, ref: BlobRef) -> Path:
        if ref != manifest:
            monkeypatch.undo()
            with monkeypatch.context() as process:
                process.setattr(os, "getpid", lambda: 1)
                unfold(store, manifest, folder)
        return really_open(store, ref)

    monkeypatch.setattr(Store, "open", open_late)
    with pytest.raises(NotWritten, match=f"cannot write {folder}: Directory not empty"):
        unfold(source, manifest, folder)
    assert find(str(folder)).digest == manifest.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source"]


def test_an_archive_replaces_files_only(source: Store, tmp_path: Path) -> None:
    """A pipe stays one, as a device would, and a directory too."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = {path: path.lstat().st_mode for path in tmp_path.iterdir()}
    names = {"pipe": "no regular file", "link": "no regular file", "loop": "", "source": "it is a directory"}
    for name, message in names.items():
        with pytest.raises(OutputError, match=f"cannot write .*{name}.*{message}"):
            pack(source, source.ref("fake"), tmp_path / name)
    assert {path: path.lstat().st_mode for path in tmp_path.iterdir()} == before


def test_links_stay(source: Store, tmp_path: Path) -> None:
    """What they lead to is written, there or not."""
    for name in ("file.tar", "folder"):
        (tmp_path / f"to-{name}").symlink_to(name)
    pack(source, source.ref("fake"), tmp_path / "to-file.tar")
    pack(source, source.ref("fake"), tmp_path / "to-file.tar")
    unfold(source, source.ref("fake"), tmp_path / "to-folder")
    assert (tmp_path / "to-file.tar").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "file.tar")
    assert find(str(tmp_path / "folder")).manifest.name == "fake"


def test_a_place_that_cant_be_written_is_not_the_store(source: Store, tmp_path: Path) -> None:
    """The error names what the user named, and LTX_HOME is no way out."""
    (tmp_path / "file").touch()
    for write in (pack, unfold):
        with pytest.raises(LtxError, match=f"cannot write {tmp_path}/file/x: Not a directory") as caught:
            write(source, source.ref("fake"), tmp_path / "file" / "x")
        assert "store" not in str(caught.value)
        assert "LTX_HOME" not in str(caught.value)


def members(archive: Path) -> list[Member]:
    """Members of an archive in order."""
    with tarfile.open(archive) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def written(made: list[Member], form: int = tarfile.GNU_FORMAT) -> io.BytesIO:
    """An archive of members as they are told to be."""
    data = b"".join(
        info.tobuf(form) + content + bytes(-len(content) % tarfile.BLOCKSIZE) for info, content in made
    )
    return io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE))


def changed(info: tarfile.TarInfo, **changes: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(info.name)
    made.size = info.size
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def forged(made: list[Member], data: bytes) -> list[Member]:
    """The archive with another manifest, and a digest that fits."""
    line = digest_line(data)
    texts = [(changed(made[0][0], size=len(line)), line), (changed(made[1][0], size=len(data)), data)]
    return [*texts, *made[2:]]


def edited(made: list[Member], **changes: object) -> list[Member]:
    """The archive with fields of the manifest replaced."""
    fields: dict[str, Any] = msgspec.json.decode(made[1][1])
    return forged(made, msgspec.json.encode({**fields, **changes}))


def extra(made: list[Member], name: str, **changes: Any) -> list[Member]:
    """The archive with a member more."""
    info = changed(tarfile.TarInfo(name), **{"size": 4, **changes})
    return [*made, (info, b"evil" if info.size else b"")]


def blob(made: list[Member], name: str, **changes: Any) -> list[Member]:
    """The archive with its first blob under another name, or of another type."""
    return [*made[:2], (changed(made[2][0], name=name, **changes), made[2][1]), *made[3:]]


def content(made: list[Member], data: bytes) -> list[Member]:
    """The archive with other bytes in its first blob."""
    return [*made[:2], (changed(made[2][0], size=len(data)), data), *made[3:]]


OTHER = "f" * 64
DEEP = b"[" * 100_000 + b"]" * 100_000
HUGE = {"sha256": OTHER, "size": 1 << 60}
EVIL: dict[str, tuple[Callable[[list[Member]], list[Member]], type[LtxError], str]] = {
    "absolute path": (lambda m: extra(m, "/etc/evil"), ArchiveInvalid, "/etc/evil"),
    "parent folder": (lambda m: extra(m, "../evil"), ArchiveInvalid, r"\.\./evil"),
    "parent folder in the middle": (lambda m: extra(m, "blobs/../../evil"), ArchiveInvalid, "evil"),
    "blob by an absolute path": (lambda m: blob(m, f"/{m[2][0].name}"), ArchiveInvalid, "doesn't name"),
    "blob below a folder more": (lambda m: blob(m, f"blobs/{m[2][0].name}"), ArchiveInvalid, "doesn't name"),
    "symbolic link": (
        lambda m: extra(m, f"blobs/{OTHER}", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        ArchiveInvalid, "a symbolic link",
    ),
    "hard link": (
        lambda m: extra(m, f"blobs/{OTHER}", type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0),
        ArchiveInvalid, "a hard link",
    ),
    "manifest as a link": (
        lambda m: [(changed(m[0][0], type=tarfile.SYMTYPE, linkname="x"), m[0][1]), *m[1:]],
        ArchiveInvalid, "a symbolic link",
    ),
    "device": (lambda m: extra(m, "blobs/x", type=tarfile.CHRTYPE, size=0), ArchiveInvalid, "a device"),
    "pipe": (lambda m: extra(m, "blobs/x", type=tarfile.FIFOTYPE, size=0), ArchiveInvalid, "a pipe"),
    "folder": (lambda m: extra(m, "blobs", type=tarfile.DIRTYPE, size=0), ArchiveInvalid, "a directory"),
    "long name": (lambda m: extra(m, "x" * 300), ArchiveInvalid, "only files"),
    "sparse file": (
        lambda m: extra(m, "blobs/x", type=tarfile.GNUTYPE_SPARSE), ArchiveInvalid, "only files",
    ),
    "blob nobody names": (lambda m: extra(m, f"blobs/{OTHER}"), ArchiveInvalid, "doesn't name"),
    "blob twice": (lambda m: [*m, m[2]], ArchiveInvalid, "twice"),
    "blob missing": (lambda m: m[:-1], ArchiveInvalid, "lacks blobs"),
    "digest that lies": (lambda m: content(m, bytes(len(m[2][1]))), WrongBytes, "expected the bytes of"),
    "size that lies": (lambda m: content(m, m[2][1] + b"x"), ArchiveInvalid, "according to the manifest"),
    "giant blob": (lambda m: edited(m, tokenizer=HUGE), StorageFull, "are free"),
    "giant manifest": (
        lambda m: [m[0], (changed(m[1][0], size=1 << 40), m[1][1]), *m[2:]], ArchiveInvalid, "more than",
    ),
    "negative size": (
        lambda m: [*m[:2], (changed(m[2][0], size=-1), m[2][1])], ArchiveInvalid, "negative",
    ),
    "negative size in the manifest": (
        lambda m: edited(m, tokenizer={"sha256": OTHER, "size": -1}), BadName, "negative",
    ),
    "digest that is a path": (
        lambda m: edited(m, tokenizer={"sha256": "../../etc/passwd", "size": 4}), BadName, "valid sha256",
    ),
    "name that is a path": (lambda m: edited(m, name="../../evil"), BadName, "not a valid bundle name"),
    "unknown schema": (lambda m: edited(m, schema=2), BundleInvalid, "schema"),
    "unknown field": (lambda m: edited(m, run="rm -rf"), BundleInvalid, "unknown field"),
    "deep JSON": (lambda m: edited(m, recipe=msgspec.Raw(b'{"a":' + DEEP + b"}")), BundleInvalid, "read"),
    "manifest that is no JSON": (lambda m: forged(m, b"\x80\x04."), BundleInvalid, "can't be read"),
    "manifest with another digest": (
        lambda m: [m[0], (m[1][0], m[1][1].replace(b"fake", b"fals")), *m[2:]], ArchiveInvalid, "damaged",
    ),
    "no manifest": (lambda m: m[2:], ArchiveInvalid, "expected bundle.json.sha256"),
    "manifest last": (lambda m: [*m[2:], *m[:2]], ArchiveInvalid, "expected bundle.json.sha256"),
    "nothing": (lambda m: [], ArchiveInvalid, "found nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_a_forged_archive_is_refused(name: str, archive: Path, store: Store, tmp_path: Path) -> None:
    """Nothing is named, and nothing is written outside the store."""
    forge, kind, message = EVIL[name]
    before = {path for path in tmp_path.rglob("*") if store.root not in path.parents}
    with pytest.raises(kind, match=message):
        unpack(written(forge(members(archive))), store)
    assert store.refs() == []
    after = {path for path in tmp_path.rglob("*") if store.root not in path.parents}
    assert after - before <= {store.root}


def test_extended_headers_are_refused(archive: Path, store: Store) -> None:
    """A header of another standard could change the next file's name and size."""
    made = members(archive)
    info = changed(made[2][0], pax_headers={"path": "../evil"})
    with pytest.raises(ArchiveInvalid, match="only files"):
        unpack(written([*made[:2], (info, made[2][1])], tarfile.PAX_FORMAT), store)


def test_an_archive_that_ends_early_is_refused(archive: Path, store: Store) -> None:
    """Cut anywhere before its end mark, it is no bundle."""
    data = archive.read_bytes()
    for cut in range(0, len(data) - 2 * tarfile.BLOCKSIZE + 1, 300):
        with pytest.raises(ArchiveInvalid):
            unpack(io.BytesIO(data[:cut]), store)
    assert store.refs() == []


def test_flipped_bits_are_found(archive: Path, store: Store) -> None:
    """A bit anywhere in what counts is found; one in padding or in unused header fields changes nothing."""
    data = archive.read_bytes()
    sound = members(archive)
    for position in range(0, len(data) - 1024, 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            _, manifest = unpack(io.BytesIO(flipped), store)
        except LtxError:
            continue
        assert store.open(manifest, paranoid=True).read_bytes() == sound[1][1], position


def test_sizes_beyond_eight_gigabytes_have_a_header(archive: Path, store: Store) -> None:
    """A large file needs no extended header, and is told by its size."""
    made = members(archive)
    big = {"sha256": OTHER, "size": 9 << 30}
    limit = pytest.MonkeyPatch()
    limit.setattr(unarchive, "check_room", lambda *_: None)
    evil = edited(made, tokenizer=big)
    info = changed(tarfile.TarInfo(f"blobs/{OTHER}"), size=9 << 30)
    with pytest.raises(ArchiveInvalid, match=f"ends {(9 << 30) - 512 * 3} bytes before"):
        unpack(io.BytesIO(written([*evil[:2], (info, bytes(512))]).getvalue()), store)
    limit.undo()


def test_the_commands(
    source: Store, store: Store, ltxbuild: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one cache through a file to another, and to a directory."""
    monkeypatch.setenv("LTX_HOME", str(source.root))
    assert ltxbuild("bundle", "fake", str(tmp_path / "x.tar")).code == 0
    assert ltxbuild("bundle", "fake", f"{tmp_path}/x/").code == 0
    assert find(str(tmp_path / "x")).manifest.name == "fake"
    assert ltxbuild("bundle", "fake", f"{tmp_path}/x/").code == 2
    monkeypatch.setenv("LTX_HOME", str(store.root))
    assert ltxbuild("unbundle", str(tmp_path / "x.tar"), "--as", "renamed").code == 0
    assert [ref.name for ref in store.refs()] == ["renamed"]
    assert ltxbuild("verify").code == 0
    done = ltxbuild("unbundle", str(tmp_path / "nothing.tar"))
    assert (done.code, "nothing.tar" in done.err) == (1, True)


def test_the_forger_changes_what_it_is_told_to(archive: Path) -> None:
    """The forger of this file makes archives that are sound if nothing is changed."""
    made = members(archive)
    manifest = msgspec.json.decode(made[1][1], type=Bundle)
    assert encode(manifest) == made[1][1]
    assert written(made).getvalue() == archive.read_bytes()
