"""Protocol buffers without a schema, and replica groups in every form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxbuild.neuron.groups import groups, legacy
from ltxbuild.neuron.hlo import Instruction, InstructionField
from ltxbuild.neuron.wire import encode, fields, numbers, packed, whole_field

FIELDS = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 2**64 - 1) | st.binary(max_size=300)))


@given(FIELDS)
def test_what_is_encoded_is_read_back(items: list[tuple[int, int | bytes]]) -> None:
    """Any fields, in their order."""
    assert list(fields(encode(items))) == items


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_lists_of_numbers_are_read_back(values: list[int]) -> None:
    """Packed."""
    assert numbers(packed(values)) == values


@given(st.binary(min_size=1, max_size=200))
def test_a_field_counts_when_all_of_it_is_there(value: bytes) -> None:
    """A file that is still being written is not taken for a whole one."""
    message = encode([(1, value)])
    assert whole_field(message, 1) == value
    assert whole_field(message, 2) is None
    assert all(whole_field(message[:end], 1) is None for end in range(len(message)))


def exchange(field: int, message: bytes) -> Instruction:
    """An all-reduce whose groups are said by one field."""
    return Instruction("all-reduce", b"", rest=[(field, message)])


def listed(found: list[list[int]]) -> bytes:
    """`CollectiveDeviceListProto` with groups one by one."""
    return encode([(1, encode([(1, packed(group))])) for group in found])


def axes(sizes: list[int], along: list[int]) -> bytes:
    """`MeshAxesReplicaGroupListProto`; a zero is not on the wire in protocol buffers of version 3."""
    mesh = encode([(1, encode([(1, b"axis"), (2, size)])) for size in sizes])
    return encode([(1, mesh), *((2, encode([(1, axis)] if axis else [])) for axis in along)])


def test_every_form_of_groups_says_the_same() -> None:
    """Listed in the old field and in the new one, as a range, and as an axis of a mesh."""
    expected = [[0, 1], [2, 3]]
    (_, first), (_, second) = legacy(expected)
    old = Instruction(
        "all-reduce", b"", rest=[(InstructionField.GROUPS, first), (InstructionField.GROUPS, second)]
    )
    iota = encode([(1, 2), (2, 2), (3, packed([4]))])
    for instruction in (
        old,
        exchange(InstructionField.DEVICE_LIST, listed(expected)),
        exchange(InstructionField.DEVICE_LIST, encode([(2, iota)])),
        exchange(InstructionField.IOTA_GROUPS, iota),
        exchange(InstructionField.MESH_GROUPS, axes([2, 2], [1])),
    ):
        assert groups(instruction) == expected


@pytest.mark.parametrize(
    ("sizes", "along"), [([1, 1, 4], [2]), ([2, 4], [0]), ([2, 3, 4], [0, 2]), ([4], [0])]
)
def test_axes_of_a_mesh_are_the_ranks_that_differ_along_them(sizes: list[int], along: list[int]) -> None:
    """As numpy numbers a mesh."""
    mesh = np.arange(np.prod(sizes)).reshape(sizes)
    rest = [axis for axis in range(len(sizes)) if axis not in along]
    expected = mesh.transpose(*rest, *along).reshape(-1, int(np.prod([sizes[axis] for axis in along])))
    assert groups(exchange(InstructionField.MESH_GROUPS, axes(sizes, along))) == expected.tolist()


def test_a_transposed_range_is_expanded() -> None:
    """`[4,2]<=[2,4]T(1,0)`."""
    message = encode([(1, 4), (2, 2), (3, packed([2, 4])), (4, packed([1, 0]))])
    expected = np.arange(8).reshape(2, 4).transpose(1, 0).reshape(4, 2)
    assert groups(exchange(InstructionField.IOTA_GROUPS, message)) == expected.tolist()


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction("all-reduce", b""),
        exchange(InstructionField.MESH_GROUPS, encode([(1, b""), (2, encode([(1, 0), (2, b"part")]))])),
        exchange(InstructionField.MESH_GROUPS, axes([4], [1])),
        exchange(InstructionField.DEVICE_LIST, encode([(9, b"")])),
    ],
)
def test_groups_of_an_unknown_form_are_refused(instruction: Instruction) -> None:
    """None at all would mean all ranks to older XLA; parts of axes and what is new are not guessed at."""
    with pytest.raises(ValueError, match="groups of ranks"):
        groups(instruction)
