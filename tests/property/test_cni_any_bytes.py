"""Whatever a runtime says, the answer is a result or an error of the specification."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.attach.cni.config import _KNOWN, ANNOTATIONS
from tabinet.attach.cni.protocol import COMMANDS, Request, parse_request, request_length
from tabinet.attach.cni.service import CniService
from tabinet.attach.cni.shim import VERSIONS, render_request
from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.errors import CniError
from tabinet.ipam.client import IpamClient
from tabinet.store.memory import MemoryStore

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["", "c1", "eth0", "true", "10.65.0.1", "10.65.0.0/16", "fd00::1", "1M", '["10.65.0.1"]', "ee:00:00:00:00:01", "a=b"]
)
NOTES = ["ipAddrs", "ipAddrsNoIpam", "floatingIPs", "ipv4pools", "ipv6pools", "hwAddr"]
KEYS = st.sampled_from([*(f"cni.projectcalico.org/{name}" for name in NOTES), "qos.projectcalico.org/ingressBandwidth"])
RUNTIME = st.dictionaries(st.sampled_from(["ips", "mac", "bandwidth"]), JSON) | st.builds(
    lambda notes: {ANNOTATIONS: notes}, st.dictionaries(KEYS, WORDS | st.text(max_size=10))
)
CONFIG = st.builds(
    lambda base, more, runtime: base | more | runtime,
    st.builds(lambda version: {"cniVersion": version, "name": "net1", "type": "tabinet-cni"}, st.sampled_from(VERSIONS)),
    st.dictionaries(st.sampled_from(sorted(_KNOWN)) | st.text(max_size=5), JSON, max_size=3),
    st.one_of(st.just({}), st.builds(lambda runtime: {"runtimeConfig": runtime}, RUNTIME)),
)
INPUT = st.binary(max_size=80) | st.builds(lambda value: json.dumps(value).encode(), JSON | CONFIG)
ENVIRON = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from(COMMANDS) | st.text(max_size=5)},
    optional={
        "CNI_CONTAINERID": WORDS | st.text(max_size=20),
        "CNI_IFNAME": st.just("eth0") | st.text(max_size=17),
        "CNI_NETNS": WORDS,
        "CNI_ARGS": st.text(max_size=20) | st.builds(lambda key, value: f"{key}={value}", st.sampled_from(["IP", "MAC", "LABELS"]), WORDS),
        "CNI_PATH": WORDS,
    },
)


@given(plugin=st.sampled_from(["tabinet-cni", "tabinet-ipam"]), environ=ENVIRON, stdin=INPUT, namespace=st.booleans())
@settings(max_examples=300)
def test_any_call_has_an_answer_that_the_specification_knows(plugin: str, environ: dict[str, str], stdin: bytes, namespace: bool) -> None:
    async def answer() -> tuple[int, bytes]:
        store, network = MemoryStore(), FakeNetwork()
        network.create("ns")
        service = CniService(host="h1", store=store, network=network, ipam=IpamClient(store), wait_s=0.001)
        return await service.answer(Request(plugin, environ, stdin), "ns" if namespace else "")

    code, output = asyncio.run(answer())
    told: dict[str, Any] = json.loads(output) if output else {}
    if code:
        assert isinstance(told["code"], int)
        assert told["code"] > 0
        assert told["msg"]
        assert told["cniVersion"] in VERSIONS
    else:
        assert not output or "cniVersion" in told


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    try:
        length = request_length(data)
        if length is not None and length <= len(data):
            parse_request(data)
    except CniError:
        pass


@given(
    st.dictionaries(
        st.text("ABC_", min_size=1, max_size=8).map(lambda name: f"CNI_{name}"),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    ),
    st.binary(),
)
def test_what_is_rendered_is_read_back(environ: dict[str, str], stdin: bytes) -> None:
    data = render_request("tabinet-cni", {name.encode(): value.encode() for name, value in environ.items()}, stdin)
    assert request_length(data) == len(data)
    assert parse_request(data) == Request("tabinet-cni", environ, stdin)
