"""RouteDriver against the fake kernel."""

from __future__ import annotations

import errno

import pytest

from tabinet.dataplane.routes.driver import FELIX_PROTOCOLS, METRICS, RouteDriver, local_route
from tabinet.errors import KernelError
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddRoute,
    AddVeth,
    DeleteRoute,
    ReplaceRoute,
    SetLink,
    blackhole_route,
    device_route,
    execute_all,
)
from tabinet.lib.ip import Prefix, parse_prefix


def p(text: str) -> Prefix:
    return parse_prefix(text)


@pytest.fixture
def kernel() -> FakeRtnetlink:
    fake = FakeRtnetlink()
    execute_all(fake, [AddVeth("a", "pa"), AddVeth("b", "pb")])
    for name in ("a", "b"):
        execute_all(fake, [SetLink(fake.index_of(name), up=True)])
    fake.executed.clear()
    return fake


def test_adds_replaces_and_deletes(kernel: FakeRtnetlink) -> None:
    a, b = kernel.index_of("a"), kernel.index_of("b")
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    driver.want(p("fd00::1"), a)
    assert not driver.holds(p("10.0.0.1"))
    driver.apply()
    assert set(kernel.routes()) == {local_route(p("10.0.0.1"), a), local_route(p("fd00::1"), a)}
    assert driver.holds(p("10.0.0.1"))
    driver.want(p("10.0.0.1"), b)
    driver.unwant(p("fd00::1"))
    result = driver.apply()
    assert result.operations == (
        DeleteRoute(local_route(p("fd00::1"), a)),
        ReplaceRoute(local_route(p("10.0.0.1"), b)),
    )
    assert kernel.routes() == [local_route(p("10.0.0.1"), b)]


def test_unchanged_apply_asks_the_kernel_nothing(kernel: FakeRtnetlink) -> None:
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), kernel.index_of("a"))
    driver.apply()
    kernel.executed.clear()
    assert driver.in_sync
    assert driver.apply().operations == ()
    assert kernel.executed == []


def test_a_new_driver_adopts_what_is_there_and_sweeps_the_rest(kernel: FakeRtnetlink) -> None:
    a = kernel.index_of("a")
    wanted, leftover = local_route(p("10.0.0.1"), a), local_route(p("10.0.0.2"), a)
    odd = device_route(p("fd00::9"), a, metric=77)
    foreign = [device_route(p("10.0.0.3"), a, protocol=12), blackhole_route(p("10.0.0.0/24"), protocol=12)]
    kernel.stranger(*[AddRoute(route) for route in (wanted, leftover, odd, *foreign)])
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    assert set(driver.apply().operations) == {DeleteRoute(leftover), DeleteRoute(odd)}
    assert kernel.routes() == [wanted, *foreign]


def test_another_protocols_route_is_reported_not_overwritten(kernel: FakeRtnetlink) -> None:
    a, b = kernel.index_of("a"), kernel.index_of("b")
    foreign = device_route(p("10.0.0.1"), b, metric=METRICS[4], protocol=12)
    kernel.stranger(AddRoute(foreign))
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    driver.want(p("10.0.0.2"), a)
    result = driver.apply()
    assert {net: error.errno for net, error in result.errors.items()} == {p("10.0.0.1"): errno.EEXIST}
    assert not driver.holds(p("10.0.0.1"))
    assert driver.holds(p("10.0.0.2"))
    assert foreign in kernel.routes()
    kernel.stranger(DeleteRoute(foreign))
    assert driver.apply().errors == {}
    assert driver.holds(p("10.0.0.1"))


@pytest.mark.parametrize("protocol", FELIX_PROTOCOLS)
def test_a_route_of_felix_to_the_same_becomes_ours(kernel: FakeRtnetlink, protocol: int) -> None:
    a = kernel.index_of("a")
    old = device_route(p("10.0.0.1"), a, metric=METRICS[4], protocol=protocol)
    kernel.stranger(AddRoute(old))
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    result = driver.apply()
    assert ReplaceRoute(local_route(p("10.0.0.1"), a)) in result.operations
    assert not any(isinstance(operation, DeleteRoute) for operation in result.operations), "there was always a route"
    assert result.errors == {}
    assert kernel.routes() == [local_route(p("10.0.0.1"), a)]


def test_a_route_of_felix_to_elsewhere_is_not_taken_over(kernel: FakeRtnetlink) -> None:
    a, b = kernel.index_of("a"), kernel.index_of("b")
    elsewhere = device_route(p("10.0.0.1"), b, metric=METRICS[4], protocol=80)
    beside = device_route(p("10.0.0.9"), a, metric=METRICS[4], protocol=80)
    kernel.stranger(AddRoute(elsewhere), AddRoute(beside))
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    assert set(driver.apply().errors) == {p("10.0.0.1")}
    assert kernel.routes() == [elsewhere, beside]


def test_what_failed_is_tried_again(kernel: FakeRtnetlink) -> None:
    a = kernel.index_of("a")
    execute_all(kernel, [SetLink(a, up=False)])
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    assert driver.apply().errors[p("10.0.0.1")].errno == errno.ENETDOWN
    assert not driver.in_sync
    execute_all(kernel, [SetLink(a, up=True)])
    assert driver.apply().errors == {}
    assert driver.holds(p("10.0.0.1"))


def test_a_strangers_deletion_is_heard_and_repaired(kernel: FakeRtnetlink) -> None:
    events = kernel.events()
    route = local_route(p("10.0.0.1"), kernel.index_of("a"))
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), kernel.index_of("a"))
    driver.apply()
    kernel.stranger(DeleteRoute(route))
    for event in events.read():
        driver.on_event(event)
    assert not driver.holds(p("10.0.0.1"))
    assert driver.apply().operations == (AddRoute(route),)
    events.close()


def test_late_news_of_our_own_deeds_changes_nothing(kernel: FakeRtnetlink) -> None:
    events = kernel.events()
    a, b = kernel.index_of("a"), kernel.index_of("b")
    driver = RouteDriver(kernel)
    for index in (a, b, a):
        driver.want(p("10.0.0.1"), index)
        driver.apply()
    for event in events.read():
        driver.on_event(event)
    assert driver.in_sync
    events.close()


def test_routes_of_a_lost_interface_are_made_again(kernel: FakeRtnetlink) -> None:
    a = kernel.index_of("a")
    driver = RouteDriver(kernel)
    for text in ("10.0.0.1", "fd00::1"):
        driver.want(p(text), a)
    driver.want(p("10.0.0.2"), kernel.index_of("b"))
    driver.apply()
    execute_all(kernel, [SetLink(a, up=False), SetLink(a, up=True)])
    driver.on_interface_lost(a)
    assert len(driver.apply().operations) == 2
    assert len(kernel.routes()) == 3


def test_wrong_belief_is_corrected_in_the_same_apply(kernel: FakeRtnetlink) -> None:
    """The interface was reported lost, but its routes had been made again already."""
    a = kernel.index_of("a")
    driver = RouteDriver(kernel)
    driver.want(p("10.0.0.1"), a)
    driver.apply()
    driver.on_interface_lost(a)
    assert driver.apply().errors == {}
    assert driver.in_sync
    kernel.stranger(DeleteRoute(local_route(p("10.0.0.1"), a)))
    driver.unwant(p("10.0.0.1"))
    assert driver.apply().errors == {}
    assert driver.in_sync


def test_a_kernel_that_does_not_answer_makes_the_next_apply_read_again(kernel: FakeRtnetlink) -> None:
    class Silent(FakeRtnetlink):
        silent = False

        def execute(self, operations):  # type: ignore[no-untyped-def]
            if self.silent:
                raise KernelError(errno.ETIMEDOUT, "execute")
            return super().execute(operations)

    silent = Silent()
    execute_all(silent, [AddVeth("a", "pa"), SetLink(3, up=True)])
    driver = RouteDriver(silent)
    driver.want(p("10.0.0.1"), 3)
    silent.silent = True
    with pytest.raises(KernelError):
        driver.apply()
    silent.silent = False
    assert not driver.in_sync
    assert driver.apply().errors == {}
    assert driver.holds(p("10.0.0.1"))
