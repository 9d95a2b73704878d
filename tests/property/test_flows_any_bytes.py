"""Flows that another host hands over: whatever the bytes are, they are flows or our own error, and what they become can be sent."""

from __future__ import annotations

import contextlib
import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import DataError
from tabinet.kernel.flowcodec import Flow, parse_part, render_parts, renderable

FLOWS = st.lists(
    st.builds(
        Flow, st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 9), st.integers(0, 9), st.just(0), st.binary(max_size=20)
    )
)


@given(st.binary() | st.binary().map(zlib.compress) | st.lists(st.binary()).map(msgspec.msgpack.encode).map(zlib.compress))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(DataError):
        list(renderable(parse_part(data)))


@given(FLOWS, st.sampled_from((40, 200, 1 << 20)))
def test_what_is_handed_over_arrives(flows: list[Flow], chunk_bytes: int) -> None:
    assert [flow for part in render_parts(flows, chunk_bytes) for flow in parse_part(part)] == flows
    list(renderable(flows))
