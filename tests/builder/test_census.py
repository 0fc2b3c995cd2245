"""The census of compiled programs: counts and bytes worked out by hand for small HLO texts."""

from __future__ import annotations

import pytest

from ltx_run.bundle import Collective
from ltxbuild.compiler.census import census

LOOPS = """\
HloModule jit_flat, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %big = bf16[64,8]{1,0:T(8,128)(2,1)} broadcast(%x), dimensions={}, metadata={op_name="while/body/mul"}
  %near = f32[512,512]{1,0:T(8,128)S(1)} broadcast(%x), dimensions={}
  %one = f32[4,8]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %two = (f32[4,8]{1,0}, f32[2]{0}) all-reduce(%x, %y), channel_id=2, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %r = (s32[], f32[4,8]{1,0}) tuple(%i, %one)
}

%inner_cond (p: (s32[], f32[4,8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(48)
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%outer_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %w = (s32[], f32[4,8]{1,0}) while(%p), condition=%inner_cond, body=%inner_body
  %fused = f32[4,8]{1,0} fusion(%w), kind=kOutput, calls=%with_collective
  ROOT %r = (s32[], f32[4,8]{1,0}) tuple(%i, %fused)
}

%with_collective (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %g = bf16[16,8]{1,0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %s = f32[4,8]{1,0} slice(%g), slice={[0:4], [0:8]}
}

%outer_cond (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %start = (bf16[2,8]{1,0}, bf16[4,8]{1,0}) all-gather-start(%x), replica_groups=mesh['a'=2,'b'=4] {'a':(1)2}
  %done = bf16[4,8]{1,0} all-gather-done(%start)
  %rs = f32[1,8]{1,0} reduce-scatter(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %cp = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  %t = (s32[], f32[4,8]{1,0}) tuple(%i, %x)
  %w = (s32[], f32[4,8]{1,0}) while(%t), condition=%outer_cond, body=%outer_body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%w), index=1
}
"""


def found(kind: str) -> list[Collective]:
    """Collectives of a kind in the text above."""
    return [each for each in census(LOOPS).collectives if each.kind == kind]


def test_loops_are_told_apart() -> None:
    """Two sums in a block of 48 within 3 steps; the second one adds up two arrays at once."""
    (inner,) = found("all-reduce")
    assert inner == Collective(kind="all-reduce", group=2, loops=(3, 48), count=2, bytes=2 * 128 + 8)


def test_collectives_inside_fusions_and_started_ones_count_once() -> None:
    """A gather that was fused belongs to its loop; a start is counted with what it gathers, a done isn't."""
    fused, started = found("all-gather")
    assert fused == Collective(kind="all-gather", group=4, loops=(3,), count=1, bytes=16 * 8 * 2)
    assert started == Collective(kind="all-gather", group=2, loops=(), count=1, bytes=4 * 8 * 2)


@pytest.mark.parametrize(
    ("kind", "group", "size"), [("reduce-scatter", 4, 128), ("collective-permute", 8, 128)]
)
def test_bytes_are_those_of_the_whole_array(kind: str, group: int, size: int) -> None:
    """A scatter leaves a part of what it sums up; a permute's tuple holds its array twice."""
    (only,) = found(kind)
    assert (only.group, only.bytes) == (group, size)


def test_temporaries_are_what_a_run_allocates() -> None:
    """The largest first; nothing of parameters, of tuples, or of memory inside a core."""
    first, *rest = census(LOOPS).temporaries
    assert (first.bytes, first.shape, first.origin) == (64 * 8 * 2, "bf16[64,8]", "body/mul")
    assert all(each.bytes <= 264 for each in rest)
    assert not {"parameter", "tuple", "get-tuple-element"} & {each.opcode for each in rest}


def test_a_collective_in_pieces_counts_once() -> None:
    """A gather beside arithmetic is begun, carried on and ended in fusions that libtpu links by a chain."""
    piece = (
        "  %g.{n} = bf16[16,8]{{1,0}} all-gather(%x), channel_id=2, replica_groups=[2,4]<=[8], "
        'frontend_attributes={{chain_id="{chain}"}}\n'
    )
    body = "".join(piece.format(n=n, chain=chain) for n, chain in enumerate((1, 1, 1, 4)))
    (found,) = census(f"ENTRY %main (x: f32[2]) -> f32[2] {{\n{body}}}\n").collectives
    assert found.count == 2


def test_a_text_without_loops_or_devices() -> None:
    """A program of one device exchanges nothing."""
    assert census("ENTRY %main (x: f32[2]) -> f32[2] {\n  %x = f32[2]{0} parameter(0)\n}\n").collectives == ()


def test_a_collective_in_a_call_beside_others_counts() -> None:
    """TPU v7 hands gathers to another core: the collective is in what the call applies, not in its end."""
    text = """\\
%called (x: bf16[2,8]) -> bf16[16,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  ROOT %g = bf16[16,8]{1,0} all-gather(%x), channel_id=1, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}, execution_thread="sparsecore"

ENTRY %main (x: bf16[2,8]) -> bf16[16,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  %s = ((bf16[2,8]{1,0}), bf16[16,8]{1,0}) call-start(%x), async_execution_thread="sc", to_apply=%called
  ROOT %d = bf16[16,8]{1,0} call-done(%s)
}
"""
    (found,) = census(text).collectives
    assert found == Collective(kind="all-gather", group=8, loops=(), count=1, bytes=256)
