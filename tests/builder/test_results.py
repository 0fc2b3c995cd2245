"""Records read from the store."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, threading
from msgspec import Struct, defstruct
from ltxbuild.plan.results import as_form
sys.setswitchinterval(1e-6)
for number in range(60):
    inner = defstruct("Inner", [(f"field{n}", "int | tuple[str, ...] | None", None) for n in range(30)])
    form = defstruct("Form", [(f"inner{n}", tuple[inner, ...], ()) for n in range(5)])
    value = {"inner0": [{"field1": number}]}
    start = threading.Barrier(8)
    def read():
        start.wait()
        assert as_form(value, form).inner0[0].field1 == number
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_threads_may_read_records_of_a_new_form_at_once() -> None:
    """In a process of its own: without the lock it ends with a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
