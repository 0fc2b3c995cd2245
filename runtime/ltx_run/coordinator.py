"""The process through which several others compute together: jaxlib's service, outliving process 0 a little.

It is no part of process 0, because jaxlib ends every process at once, with a stack trace, when the service is
gone. As it is, the others have time to say what happened. It serves until its standard input ends.

Run as: python -m ltx_run.coordinator PORT PROCESSES
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what it would say, the processes say in order

PATIENCE = 24 * 60 * 60
"""Seconds until jaxlib itself takes a silent process for lost; `ltx_run.lifelines` notices at once."""
REGISTERING = 10 * 60
"""Seconds that processes may start apart."""
LINGERING = 10
"""Seconds that the others have, when process 0 ended without a word."""
READY, DONE = "ready", "done"


def main() -> None:
    """Serve until told `done`, or for some seconds after the other end of standard input is gone."""
    import jaxlib._jax as _jax

    port, processes = sys.argv[1:]
    service = _jax.get_distributed_runtime_service(
        f"[::]:{port}",
        int(processes),
        heartbeat_timeout=PATIENCE,
        cluster_register_timeout=REGISTERING,
        shutdown_timeout=LINGERING,
    )
    print(READY, flush=True)
    if sys.stdin.readline().strip() != DONE:
        time.sleep(LINGERING)
        os._exit(1)
    service.shutdown()


if __name__ == "__main__":
    main()
