"""From a domain's XML to what is attached for it, and what is said of XML that makes no sense. And the hook without an agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tabinet.attach.libvirt import hook
from tabinet.attach.libvirt.domain import handle_of, parse_domain, request_of
from tabinet.attach.libvirt.install import install_hook, render_hook
from tabinet.attach.libvirt.protocol import HookCall, parse_request, request_length
from tabinet.attach.libvirt.virsh import Lifecycle, parse_event
from tabinet.errors import InputError, SetupError
from tabinet.lib.ip import parse_address, parse_prefix

UUID = "6c1a1a0e-7a52-4c0e-8d34-1d1e6b1f0001"
PREFIXES = ("cali", "tap")
POOLS = {"four": parse_prefix("10.66.0.0/16"), "six": parse_prefix("fd00:66::/64")}


def interface(device: str = "tapweb", more: str = "", managed: str = "no") -> str:
    target = f"<target dev='{device}' managed='{managed}'/>"
    return f"<interface type='ethernet'><mac address='52:54:00:AA:00:01'/>{target}{more}</interface>"


def domain(inside: str, attributes: str = "", devices: str = "") -> bytes:
    ours = f"<t:workload xmlns:t='{hook.XML_NAMESPACE}' {attributes}>{inside}</t:workload>"
    devices = devices or interface()
    return f"<domain><name>web</name><uuid>{UUID}</uuid><metadata>{ours}</metadata><devices>{devices}</devices></domain>".encode()


def test_everything_that_can_be_said() -> None:
    xml = domain(
        "<t:label name='app' value='web'/><t:profile>guests</t:profile><t:pool>four</t:pool>"
        "<t:limit name='egressBandwidth' value='10M'/>"
        "<t:hostname>www</t:hostname><t:ssh-key>ssh-ed25519 A</t:ssh-key><t:ssh-key>ssh-ed25519 B</t:ssh-key>"
        "<t:user-data>#x\n</t:user-data>"
        "<t:interface dev='tapb' ipv6='yes'><t:label name='side' value='back'/><t:address>10.66.0.9</t:address>"
        "<t:floating>192.0.2.1</t:floating><t:limit name='dscp' value='AF11'/></t:interface>",
        "namespace='shop'",
        interface("tapa", "<mtu size='1400'/><driver queues='4'/>")
        + interface("tapb")
        + interface("vnet0")
        + interface("tapc", managed="yes"),
    )
    found = parse_domain(xml, PREFIXES)
    assert found is not None
    assert (found.name, found.uuid, found.namespace) == ("web", UUID, "shop")
    first, second = found.interfaces
    assert (first.device, first.mac, first.queues, first.mtu) == ("tapa", "52:54:00:aa:00:01", 4, 1400)
    front, back = (request_of("h", found, each, POOLS, "cali") for each in found.interfaces)
    assert front.workload.key.name == f"h-libvirt-{UUID.replace('-', '--')}-tapa"
    assert (front.tap, front.handle, front.count4, front.count6) == ("tapa", handle_of(UUID, "tapa"), 1, 0)
    assert (front.labels, front.profiles, front.pools4) == ({"app": "web"}, ("guests",), (POOLS["four"],))
    assert front.annotations == {
        "tabinet.io/domain": "web",
        "tabinet.io/hostname": "www",
        "tabinet.io/instance-id": UUID,
        "tabinet.io/ssh-keys": "ssh-ed25519 A\nssh-ed25519 B",
        "tabinet.io/user-data": "#x\n",
    }
    assert back.labels == {"app": "web", "side": "back"}
    assert (back.addresses, back.floating, back.count6) == ((parse_address("10.66.0.9"),), (parse_address("192.0.2.1"),), 1)
    assert back.qos is not None
    assert (back.qos.egress_bandwidth, second.wanted.limits) == (10_000_000, ("egressBandwidth=10M", "dscp=AF11"))


def test_a_domain_without_our_element_is_none_of_ours() -> None:
    assert parse_domain(b"<domain><name>x</name><metadata/></domain>", PREFIXES) is None


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (b"<domain", "domain: got"),
        (domain("<t:lable name='a' value='b'/>"), "workload/lable: got <lable>; one of label, limit"),
        (domain("<t:label name='a'/>"), "workload/label: got no value; <label name='...' value='...'/>"),
        (domain("<t:label name='a b' value='c'/>"), "workload/label a b: got 'a b'"),
        (domain("<t:label name='a' value='b' colour='c'/>"), "workload/label colour: got 'c'; one of name, value"),
        (domain("<t:limit name='speed' value='1'/>"), "workload/limit: got 'speed=1'; FIELD=VALUE, the field one of"),
        (domain("<t:limit name='egressBandwidth' value='fast'/>"), "workload/limit egressBandwidth: got 'fast'; a number"),
        (domain("", "ipv6='maybe'"), "workload ipv6: got 'maybe'; yes or no"),
        (domain("", "name='x'"), "workload name: got 'x'; one of namespace"),
        (domain("<t:interface dev='tapx'/>"), "workload/interface dev: got 'tapx'; the name of an <interface type='ethernet'> with"),
        (domain("", devices=interface("eth0")), "got no interface of type 'ethernet' that is ours; <target dev='NAME' managed='no'/>"),
        (domain("", devices=interface(more="<mtu size='9'/>")), "interface tapweb: mtu size: got 9; 68 to 65535 bytes"),
        (domain("<t:address>10.66.0.9</t:address>", devices=interface() + interface("tapb")), "workload/address: got 10.66.0.9; below"),
    ],
)
def test_what_makes_no_sense_is_named(xml: bytes, said: str) -> None:
    with pytest.raises(InputError, match="got") as caught:
        parse_domain(xml, PREFIXES)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("<t:address>10.66.0.300</t:address>", "interface tapweb: address: got '10.66.0.300'; an IPv4 or IPv6 address"),
        ("<t:pool>none</t:pool>", "interface tapweb: pool: got 'none'; a pool by name or CIDR (there are: four, six)"),
    ],
)
def test_addresses_and_pools_that_are_none(inside: str, said: str) -> None:
    found = parse_domain(domain(inside), PREFIXES)
    assert found is not None
    with pytest.raises(InputError) as caught:
        request_of("h", found, found.interfaces[0], POOLS, "cali")
    assert str(caught.value) == said


def test_a_call_over_the_socket_reads_back() -> None:
    data = hook.render_request([b"web", b"prepare", b"begin", b"-"], b"<domain/>")
    assert parse_request(data) == HookCall("web", "prepare", "begin", "-", b"<domain/>")
    assert request_length(data[:3]) is None
    assert request_length(data[:20]) == len(data)


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"1 2 3\n", b"1 99999999\n", b"1 0\nx", b"5 0\nweb\0x"])
def test_what_is_no_call_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_request(data)


def test_events_of_virsh() -> None:
    assert parse_event("event 'lifecycle' for domain 'web': Suspended Migrated\n") == Lifecycle("web", "Suspended", "Migrated")
    assert parse_event("event 'lifecycle' for domain it's mine: Resumed Unpaused") == Lifecycle("it's mine", "Resumed", "Unpaused")
    assert parse_event("events received: 1") is None
    assert [Lifecycle("", "Suspended", why).has_stopped_to_move for why in ("Migrated", "Post-copy", "Paused")] == [True, True, False]
    assert Lifecycle("", "Resumed", "Migrated").runs


@pytest.mark.parametrize(
    ("operation", "xml", "code"),
    [
        ("prepare", domain(""), 1),
        ("migrate", domain(""), 1),
        ("release", domain(""), 0),
        ("prepare", b"<domain/>", 0),
        ("start", domain(""), 0),
    ],
)
def test_without_an_agent_only_what_would_be_unguarded_fails(tmp_path: Path, operation: str, xml: bytes, code: int) -> None:
    path = tmp_path / "hooks" / "qemu"
    assert install_hook(path)
    assert not install_hook(path), "it was there"
    path.write_text(path.read_text().replace("tabinet-libvirt", "tabinet-nobody").replace("AGENT_WITHIN_S = 10.0", "AGENT_WITHIN_S = 0.0"))
    done = subprocess.run([str(path), "web", operation, "begin", "-"], input=xml, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, b"")
    assert (b"the tabinet agent of this host does not answer" in done.stderr) == (
        hook.XML_NAMESPACE.encode() in xml and operation != "start"
    )


def test_a_hook_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(SetupError, match="somebody else's hook: add --path"):
        install_hook(path)
    assert path.read_text() == "#!/bin/sh\n"
    path.write_text(render_hook("/an/older/python"))
    assert install_hook(path)
    assert f"exec {Path(sys.executable).resolve()} -IS" in path.read_text()
