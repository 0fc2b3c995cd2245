"""The video decoder with a tile on each device."""

import json
import subprocess
import sys
from pathlib import Path


def test_devices_decode_tiles_of_their_own() -> None:
    """The frames are those of one tile after another, and nothing but frames is exchanged."""
    script = Path(__file__).with_name("split_decoder.py")
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["range"] > 1
    assert found["apart"] <= 1e-6 * found["range"]
    assert found["exchanges"] == [["all-gather", 1]]
