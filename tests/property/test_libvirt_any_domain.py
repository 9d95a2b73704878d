"""Whatever comes as a domain's XML, or over the hook's socket, is an attachment, nothing of ours, or an error that says what is wrong."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from hypothesis import given
from hypothesis import strategies as st

from tabinet.attach.libvirt.domain import parse_domain, request_of
from tabinet.attach.libvirt.hook import XML_NAMESPACE, render_request
from tabinet.attach.libvirt.protocol import HookCall, parse_request
from tabinet.attach.netns import check_request
from tabinet.errors import InputError
from tabinet.lib.ip import parse_prefix

POOLS = {"four": parse_prefix("10.66.0.0/16"), "six": parse_prefix("fd00:66::/64")}
ENCODINGS = (
    "",
    "<?xml version='1.0' encoding='utf-8'?>",
    "<?xml version='1.0' encoding='latin-1'?>",
    "<?xml version='1.0' encoding='none'?>",
)
WORDS = st.one_of(
    st.sampled_from(
        ("app", "web", "10.66.0.9", "fd00:66::1", "four", "10.66.0.0/16", "egressBandwidth", "10M", "tapa", "yes", "no", "9" * 5000)
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
)
NAMES = st.sampled_from(
    (
        "label",
        "limit",
        "profile",
        "address",
        "pool",
        "floating",
        "hostname",
        "user-data",
        "ssh-key",
        "interface",
        "x",
        "t:label",
        "t:address",
        "t:interface",
    )
)
ATTRIBUTES = st.dictionaries(st.sampled_from(("name", "value", "dev", "ipv4", "ipv6", "namespace", "size", "queues")), WORDS, max_size=3)


def render(name: str, attributes: dict[str, str], inside: str) -> str:
    return f"<{name}{''.join(f' {key}={quoteattr(value)}' for key, value in attributes.items())}>{inside}</{name}>"


LEAVES = st.builds(render, NAMES, ATTRIBUTES, WORDS.map(escape))
ELEMENTS = st.one_of(LEAVES, st.builds(render, NAMES, ATTRIBUTES, st.lists(LEAVES, max_size=3).map("".join)))


@st.composite
def domains(draw: st.DrawFn) -> bytes:
    ours = render("t:workload", draw(ATTRIBUTES) | {"xmlns:t": XML_NAMESPACE}, "".join(draw(st.lists(ELEMENTS, max_size=4))))
    target = f"<target dev={quoteattr(draw(st.sampled_from(('tapa', 'cali1', 'eth0', 'tap' + 'x' * 20, 'tap a'))))} managed='no'/>"
    more = render("mtu", draw(ATTRIBUTES), "") + render("driver", draw(ATTRIBUTES), "")
    interfaces = f"<interface type='ethernet'>{target}{more}</interface>" * draw(st.integers(0, 2))
    names = render("name", {}, escape(draw(WORDS))) + render("uuid", {}, escape(draw(WORDS)))
    text = f"<domain>{names}<metadata>{ours}</metadata><devices>{interfaces}</devices></domain>"
    return (draw(st.sampled_from(ENCODINGS)) + text).encode("utf-8")


@given(st.one_of(domains(), st.binary(max_size=200)))
def test_any_domain(xml: bytes) -> None:
    try:
        domain = parse_domain(xml, ("cali", "tap"))
        for interface in domain.interfaces if domain is not None else ():
            check_request(request_of("h", domain, interface, POOLS, "cali"))  # type: ignore[arg-type]  # it is one
    except InputError as error:
        assert all(problem.allowed for problem in error.problems)


@given(st.binary(max_size=200))
def test_any_request(data: bytes) -> None:
    try:
        parse_request(data)
    except InputError as error:
        assert str(error)


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20), min_size=4, max_size=4),
    st.binary(),
)
def test_what_the_hook_sends_is_what_the_agent_reads(arguments: list[str], xml: bytes) -> None:
    assert parse_request(render_request([argument.encode() for argument in arguments], xml)) == HookCall(*arguments, xml)  # type: ignore[arg-type]  # four
