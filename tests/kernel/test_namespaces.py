"""Named namespaces, what ip-netns(8) makes of them, the probe, and events of the real kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tabinet.errors import KernelError, SetupError
from tabinet.kernel import netns
from tabinet.kernel.netlink import NETLINK_ROUTE, open_netlink
from tabinet.kernel.probe import Feature, lacks_privilege, probe, require
from tabinet.kernel.rtnetlink import (
    AddRoute,
    LinkEvent,
    Overrun,
    RouteEvent,
    SetLink,
    Watch,
    blackhole_route,
    execute_all,
)
from tabinet.kernel.rtsocket import RtEventSocket, open_events, open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lib.ip import Prefix, parse_prefix

pytestmark = pytest.mark.kernel


@pytest.fixture
def name() -> Iterator[str]:
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    yield name
    with contextlib.suppress(KernelError):
        netns.delete(name)


def listed() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_ip_netns_sees_what_we_make_and_we_what_it_makes(name: str) -> None:
    netns.create(name)
    assert name in listed()
    assert name in netns.names()
    subprocess.run(["ip", "netns", "delete", name], check=True)
    assert not netns.exists(name)
    subprocess.run(["ip", "netns", "add", name], check=True)
    assert netns.exists(name)
    netns.delete(name)
    assert name not in listed()


def test_refusals(name: str) -> None:
    netns.create(name)
    with pytest.raises(KernelError) as caught:
        netns.create(name)
    assert caught.value.errno == errno.EEXIST
    netns.delete(name)
    for attempt in (netns.delete, netns.open_namespace, netns.pids, lambda n: netns.run_in(n, list)):
        with pytest.raises(KernelError) as caught:
            attempt(name)
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="not a name"):
        netns.create("../x")


def test_work_runs_inside_and_nobody_else_moves(name: str) -> None:
    netns.create(name)
    here = netns.identity()
    there = netns.run_in(name, netns.identity)
    assert there != here
    assert netns.identity(str(netns.path_of(name))) == there
    with netns.entered(name):
        assert netns.identity() == there
    assert netns.identity() == here
    with pytest.raises(ZeroDivisionError):
        netns.run_in(name, lambda: 1 // 0)


def test_a_process_inside_is_found(name: str) -> None:
    netns.create(name)
    assert netns.pids(name) == []
    with subprocess.Popen(["ip", "netns", "exec", name, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        assert netns.pids(name) == [process.pid]
        process.stdin.close()


def test_an_interrupted_creation_can_be_removed(name: str) -> None:
    netns.path_of(name).touch()
    netns.delete(name)
    assert not netns.exists(name)


def test_sysctls_of_a_namespace_are_its_own(name: str) -> None:
    netns.create(name)
    before = ProcSysctl().read("net/ipv4/ip_forward")
    other = "1" if before == "0" else "0"
    netns.run_in(name, lambda: ProcSysctl().write("net/ipv4/ip_forward", other))
    assert ProcSysctl().read("net/ipv4/ip_forward") == before
    assert netns.run_in(name, lambda: ProcSysctl().read("net/ipv4/ip_forward")) == other


def test_this_kernel_has_what_is_needed() -> None:
    features = probe()
    assert [feature.name for feature in features if not feature.present and not feature.optional] == []
    assert len({feature.name for feature in features}) == len(features) >= 8
    require(features)


def test_without_privilege_one_line_says_so() -> None:
    """A child that gave up its rights: probing needs them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(65534)
        features = probe()
        try:
            require(features)
        except SetupError as error:
            os.write(writer, f"{lacks_privilege(features)} {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        words = pipe.read()
    os.waitpid(child, 0)
    assert words.startswith("True this kernel does not let us use network namespaces (")
    assert "run as root" in words
    assert "\n" not in words


def test_missing_features_are_named_in_one_line() -> None:
    features = [Feature("a", True, "", ""), Feature("b", False, "", "load b", "no b"), Feature("c", False, "", "load c", "no c")]
    with pytest.raises(SetupError, match=r"^this kernel does not let us use b \(no b\): load b; also missing: c$"):
        require(features)


def test_foreign_routes_are_dropped_by_the_kernel(name: str) -> None:
    netns.create(name)
    rt = netns.run_in(name, open_rtnetlink)
    events = netns.run_in(name, lambda: open_events(Watch.ROUTES | Watch.LINKS, route_protocols=(84,)))
    foreign = [AddRoute(blackhole_route(Prefix(4, i << 8, 24), protocol=12)) for i in range(1, 100)]
    ours = blackhole_route(parse_prefix("10.0.0.0/24"))
    execute_all(rt, [*foreign, AddRoute(ours), SetLink(1, up=True)])
    heard = events.read()
    assert [event.route for event in heard if isinstance(event, RouteEvent)] == [ours]
    assert [event.link.name for event in heard if isinstance(event, LinkEvent)] == ["lo"]
    rt.close()
    events.close()


def test_lost_events_are_told(name: str) -> None:
    netns.create(name)
    rt = netns.run_in(name, open_rtnetlink)
    small = netns.run_in(name, lambda: open_netlink(NETLINK_ROUTE, groups=[7]))
    with socket.socket(fileno=os.dup(small.fileno())) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    events = RtEventSocket(small)
    execute_all(rt, [AddRoute(blackhole_route(Prefix(4, i << 8, 24))) for i in range(1, 400)])
    heard = events.read()
    assert Overrun() in heard
    assert len([event for event in heard if isinstance(event, RouteEvent)]) < 399
    assert events.read() == []
    rt.close()
    events.close()
