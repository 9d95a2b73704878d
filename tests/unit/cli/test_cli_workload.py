"""What the options of ``tabinet workload add`` mean."""

from __future__ import annotations

from typing import Any

import click
import pytest

from tabinet.attach.netns import AttachRequest, check_request
from tabinet.cli.workload import request_of
from tabinet.errors import InputError
from tabinet.lib.ip import parse_address, parse_prefix

POOLS = {"four": parse_prefix("10.65.0.0/16"), "six": parse_prefix("fd00:65::/64")}
NOTHING: dict[str, Any] = {
    "tap": None,
    "netns": "/run/netns/vm1",
    "name": None,
    "labels": (),
    "addresses": (),
    "pools": (),
    "ipv4": None,
    "ipv6": None,
    "profiles": (),
    "hostname": "",
    "ssh_keys": "",
    "user_data": "",
    "floating": (),
    "limits": (),
    "mac": "",
    "mtu": 0,
    "interface": "eth0",
    "namespace": "default",
}


def requested(**options: Any) -> AttachRequest:
    request = request_of("h1", NOTHING | options, POOLS, "cali")
    check_request(request)
    return request


def test_the_name_is_that_of_the_namespace_or_tap_unless_it_is_given() -> None:
    assert str(requested().workload.key) == "WorkloadEndpoint/default/h1-tabinet-vm1-eth0"
    assert requested(tap="tap7", netns=None).workload.workload == "tap7"
    assert requested(name="db").workload.workload == "db"


def test_what_the_guest_is_told_of_itself() -> None:
    assert requested().annotations == {}
    assert requested(hostname="web1", user_data="#!/bin/sh").annotations == {
        "tabinet.io/hostname": "web1",
        "tabinet.io/user-data": "#!/bin/sh",
    }


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, (1, 0)),
        ({"ipv6": True}, (1, 1)),
        ({"ipv6": True, "ipv4": False}, (0, 1)),
        ({"pools": ("six",)}, (0, 1)),
        ({"pools": ("four", "fd00:65::/64")}, (1, 1)),
        ({"addresses": ("fd00:65::9",)}, (0, 1)),
        ({"addresses": ("10.65.0.8", "10.65.0.9")}, (2, 0)),
        ({"addresses": ("10.65.0.8",), "ipv6": True}, (1, 1)),
    ],
)
def test_how_many_addresses(options: dict[str, Any], counts: tuple[int, int]) -> None:
    request = requested(**options)
    assert (request.count4, request.count6) == counts


def test_the_rest() -> None:
    request = requested(labels=("app=web", "tier="), pools=("six",), addresses=("10.65.0.9",), mac="02:00:00:00:00:AB", profiles=("p",))
    assert request.labels == {"app": "web", "tier": ""}
    assert request.pools6 == (POOLS["six"],)
    assert request.addresses == (parse_address("10.65.0.9"),)
    assert (request.mac, request.profiles) == ("02:00:00:00:00:ab", ("p",))


@pytest.mark.parametrize(
    "options",
    [
        {"addresses": ("10.65.0.300",)},
        {"pools": ("bronze",)},
        {"pools": ("10.65.0.1/16",)},
        {"name": "-x"},
        {"labels": ("a b=c",)},
        {"mac": "nonsense"},
        {"ipv4": False},
        {"interface": "x" * 16},
    ],
)
def test_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises((InputError, click.UsageError)):
        requested(**options)


def test_limits_and_floating_addresses() -> None:
    request = requested(floating=("192.0.2.9",), limits=("egressBandwidth=10M", "ingressMaxConnections=7", "dscp=EF"))
    assert request.floating == (parse_address("192.0.2.9"),)
    assert request.qos is not None
    assert (request.qos.egress_bandwidth, request.qos.ingress_max_connections, str(request.qos.dscp)) == (10_000_000, 7, "EF")
    assert requested().qos is None
    with pytest.raises(InputError, match="egressBandwidth") as caught:
        requested(limits=("bandwidth=1", "egressBandwidth=much"))
    assert len(caught.value.problems) == 2
