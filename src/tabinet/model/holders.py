"""Which of several endpoints holds an address that all of them may have: ``/tabinet/v1/holders/<address>``.

Several ports may have the same allowed address pair (VRRP and the like), but one machine at a time has the address. The agent of its host
hears the machine announce it and writes this value; a later one takes its place, so the store's own order says who was last. It counts
as long as the endpoint that it names exists and has the address; without one that counts, all of them have it.
"""

from __future__ import annotations

import msgspec

HOLDERS = "/tabinet/v1/holders/"


class Holder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The value: a workload endpoint."""

    namespace: str
    name: str


def render_holder(holder: Holder) -> bytes:
    """The stored value."""
    return msgspec.json.encode(holder)
