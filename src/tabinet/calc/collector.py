"""Python's cyclic garbage collector around a snapshot: advice as a context, for the process that owns a ``Graph``.

The calculation makes millions of objects while it loads, and keeps nearly all of them. The collector would walk all of them again and again
and find nothing: measured 40 % of the time of a load, and pauses of more than 100 ms at any time afterwards. The graph leaves no cycles
behind when resources change or go, so it needs no collector at all.

Changes state of the whole process, so only the outermost layer should use it. Everything else in this package is pure.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, the collector does not run; afterwards it runs as before, and never again looks at what exists at that time.

    Meant for the time from the first input to the first whole flush. What it leaves alone is still freed when its last reference goes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Garbage that there is would be kept for ever.
        gc.collect()
        gc.freeze()
        if was_enabled:
            gc.enable()
