"""Disks that are full, read-only or closed to us: real ones, in a mount namespace of our own.

Where the system grants none (some containers), these tests are skipped: tests/cache/test_store_failures.py
has the same failures as errors of single system calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import standin

from ltxbuild.synthetic.checkpoint import write_checkpoint

OWN_MOUNTS = ("unshare", "--map-root-user", "--mount", "sh", "-c")
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root without the right to ignore permissions; anybody else has no such right."""
BUILDER = f'{sys.executable} -c "from ltxbuild.cli.main import main; main()"'
COMPILE = f"{sys.executable} {standin.__file__} $CHECKPOINT >/dev/null"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return folder


def granted(*command: str) -> bool:
    """Whether the system lets us do this."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def said(script: str, home: Path, checkpoint: Path, *, mounting: bool = True) -> list[str]:
    """What a script prints, standard error included."""
    if mounting and not granted(*OWN_MOUNTS, f"mount -t tmpfs none {home.parent}"):
        pytest.skip("no mount namespace for us")
    env = {**os.environ, "LTX_HOME": str(home), "CHECKPOINT": str(checkpoint)}
    shell = OWN_MOUNTS if mounting else ("sh", "-c")
    done = subprocess.run([*shell, script], env=env, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return [*done.stdout.split("\n"), *done.stderr.split("\n")]


def test_a_full_disk(tmp_path: Path, checkpoint: Path) -> None:
    """The compile says so and what to do; nothing is damaged, and with more room it goes on."""
    lines = said(
        f"""
        mkdir $LTX_HOME && mount -t tmpfs -o size=6m none $LTX_HOME
        {COMPILE}; echo compile $?
        {BUILDER} verify; echo verify $?
        ls $LTX_HOME/tmp | wc -l
        mount -o remount,size=100m $LTX_HOME
        {COMPILE}; echo again $?
        {BUILDER} verify; echo verify $?
        """,
        tmp_path / "home",
        checkpoint,
    )
    assert lines[:5] == ["compile 1", "verify 0", "0", "again 0", "verify 0"]
    text = "\n".join(lines)
    assert "No space left on device" in text
    assert "free some space there, or set LTX_HOME" in text


def test_a_read_only_disk(tmp_path: Path, checkpoint: Path) -> None:
    """What only reads works; a compile that has something to write says why it can't."""
    lines = said(
        f"""
        {COMPILE}; echo compile $?
        mount --bind $LTX_HOME $LTX_HOME && mount -o remount,bind,ro $LTX_HOME
        {BUILDER} list --json >/dev/null; echo list $?
        {BUILDER} plan {standin.RECIPE} --programs-only --json >/dev/null; echo plan $?
        {BUILDER} verify; echo verify $?
        {BUILDER} rm cpu-tiny; echo rm $?
        {COMPILE}; echo compile $?
        """,
        tmp_path / "home",
        checkpoint,
    )
    assert lines[:6] == ["compile 0", "list 0", "plan 0", "verify 0", "rm 1", "compile 1"]
    text = "\n".join(lines)
    assert "Read-only file system" in text
    assert "set LTX_HOME to a folder on another disk" in text


def test_a_folder_of_somebody_else(tmp_path: Path, checkpoint: Path) -> None:
    """A cache that we may not write is named, with the reason and the way out."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    rights = NO_RIGHTS if os.geteuid() == 0 else ()
    if rights and not granted(*rights, "true"):
        pytest.skip("root can't give up its rights here")
    lines = said(f"{' '.join(rights)} {COMPILE}; echo compile $?", home, checkpoint, mounting=False)
    assert lines[0] == "compile 1"
    assert any(str(home) in line and "Permission denied" in line for line in lines)
    assert any("make it writable for this user" in line for line in lines)
    assert list(home.iterdir()) == []
