"""Names of a program's tensors in its NEFF: by position, as builders write and loaders bind them.

Compilers and loaders of all SDKs have these names as their default, so that a NEFF has them even where the
names in the graph were not taken over. Tensor names of the plan or of weights never reach the device.

Example:
    >>> input_name(3), output_name(0)
    ('input3', 'output0')
"""

from __future__ import annotations


def input_name(index: int) -> str:
    """Name of parameter number `index`, weights and tensors counted together."""
    return f"input{index}"


def output_name(index: int) -> str:
    """Name of result number `index`."""
    return f"output{index}"
