"""The process that has XLA partition a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltxbuild.neuron.partition import PartitionFailed, partitioned

SPLIT = b"""
module @split attributes {mhlo.num_partitions = 2 : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["tp"=2]>
  func.func public @main(%x: tensor<4xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"tp"}]>}) -> tensor<4xf32> {
    %0 = stablehlo.add %x, %x : tensor<4xf32>
    return %0 : tensor<4xf32>
  }
}
"""


def test_code_of_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that happens to have a library's name is no part of the build."""
    (tmp_path / "numpy.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    assert b"add" in partitioned(SPLIT, 2)


def test_a_refused_program_is_told() -> None:
    """With XLA's words."""
    with pytest.raises(PartitionFailed, match="no partitioned program"):
        partitioned(b"nonsense", 2)
