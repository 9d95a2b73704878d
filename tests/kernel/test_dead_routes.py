"""Routes that were announced as dead, before their interface had a carrier, are announced alive the moment it has one."""

from __future__ import annotations

import contextlib
import socket
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import AddVeth, DeleteLink, SetLink, execute_all
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import parse_address

pytestmark = pytest.mark.kernel

NETS = [parse_address(f"10.65.0.{last}") for last in (1, 2, 3)]
ROUNDS = 10
"""A worker of the kernel puts right by itself what this is about, so that nothing is seen in some of them."""
RTMGRP_IPV4_ROUTE, RTM_NEWROUTE, RTNH_F_DEAD = 0x40, 24, 1


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"tbt-{uuid.uuid4().hex[:8]}"
    netns.create(name)
    try:
        for where in ("all", "default"):
            path = Path(f"/proc/sys/net/ipv4/conf/{where}/ignore_routes_with_linkdown")
            netns.run_in(name, lambda path=path: path.write_text("1"))
        yield name
    finally:
        netns.delete(name)


def announced(news: socket.socket) -> list[bool]:
    """Of the routes that were made since, in order, whether they are dead."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while data := news.recv(65536):
            kind = struct.unpack_from("=H", data, 4)[0]
            if kind == RTM_NEWROUTE:
                found.append(bool(struct.unpack_from("=I", data, 16 + 8)[0] & RTNH_F_DEAD))
    return found


def test_all_routes_over_an_interface_come_alive_with_its_carrier(namespace: str) -> None:
    def listen() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        made.bind((0, RTMGRP_IPV4_ROUTE))
        return made

    with contextlib.closing(netns.run_in(namespace, open_rtnetlink)) as rtnetlink, netns.run_in(namespace, listen) as news:
        driver = RouteDriver(rtnetlink)
        for _ in range(ROUNDS):
            execute_all(rtnetlink, [AddVeth("tap", "guest")])
            indices = {link.name: link.index for link in rtnetlink.links()}
            execute_all(rtnetlink, [SetLink(indices["tap"], up=True)])
            for net in NETS:
                driver.want(net, indices["tap"])
            driver.apply()
            assert announced(news) == [True] * len(NETS)
            execute_all(rtnetlink, [SetLink(indices["guest"], up=True)])
            driver.on_carrier(indices["tap"])
            driver.apply()
            assert announced(news) == [False] * len(NETS)
            execute_all(rtnetlink, [DeleteLink("tap")])
            driver.on_interface_lost(indices["tap"])
