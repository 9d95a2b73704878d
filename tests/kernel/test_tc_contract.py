"""What ``TrafficControl`` promises, of the kernel and of the fake."""

from __future__ import annotations

import errno
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tabinet.kernel import netns
from tabinet.kernel.tc import (
    AddDevice,
    DeleteBucket,
    DeleteDevice,
    DeleteRedirect,
    SetBucket,
    SetRedirect,
    TcOp,
    TokenBucket,
    TrafficControl,
    is_made_of,
)
from tabinet.kernel.tcfake import FakeTrafficControl
from tabinet.kernel.tcsocket import open_traffic_control

SLOW = TokenBucket(rate=125_000, burst=536_870_912, limit=65536)
FAST = TokenBucket(rate=10_000_000_000, burst=1_000_000, limit=1_000_000, peak_rate=20_000_000_000, peak_burst=70_000)


class Place:
    """A namespace, or the fake, with the interfaces one and two."""

    def __init__(self, real: bool) -> None:
        self.name = f"tbt-{uuid.uuid4().hex[:8]}" if real else ""
        self.fake = FakeTrafficControl()
        self.tc: TrafficControl = self.fake
        if real:
            netns.create(self.name)
            self.run("ip link add one type veth peer name two")
            self.tc = netns.run_in(self.name, open_traffic_control)
        else:
            self.fake.add_interface("one")
            self.fake.add_interface("two")

    def run(self, command: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, *command.split()], check=True, capture_output=True)

    def take_root(self, interface: str) -> None:
        if self.name:
            self.run(f"tc qdisc add dev {interface} root handle 7: pfifo limit 10")
        else:
            self.fake.take_root(interface)

    def close(self) -> None:
        self.tc.close()
        if self.name:
            netns.delete(self.name)

    def codes(self, *operations: TcOp) -> list[int]:
        return [0 if outcome is None else outcome.errno for outcome in self.tc.execute(operations)]


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.kernel)], ids=["fake", "kernel"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.close()


def test_nothing_is_nothing(place: Place):
    state = place.tc.read()
    assert (state.buckets, state.redirects, state.devices) == ({}, {}, frozenset())


@pytest.mark.parametrize("bucket", [SLOW, FAST])
def test_a_bucket_comes_changes_and_goes(place: Place, bucket: TokenBucket):
    other = FAST if bucket is SLOW else SLOW
    assert place.codes(SetBucket("one", bucket)) == [0]
    (state,) = place.tc.read().buckets.values()
    assert is_made_of(state, bucket) and not is_made_of(state, other)
    assert place.codes(SetBucket("one", other), SetBucket("one", other)) == [0, 0]
    assert is_made_of(place.tc.read().buckets["one"], other)
    assert place.codes(DeleteBucket("one"), DeleteBucket("one")) == [0, errno.ENOENT]
    assert place.tc.read().buckets == {}


def test_a_strangers_root_is_left_alone(place: Place):
    place.take_root("one")
    assert place.codes(SetBucket("one", SLOW)) == [errno.EEXIST]
    assert place.tc.read().buckets == {}


def test_what_makes_no_sense_is_refused(place: Place):
    slower_peak = TokenBucket(1000, 1000, 1000, peak_rate=1000, peak_burst=2000)
    assert place.codes(SetBucket("one", slower_peak)) == [errno.EINVAL]
    assert place.codes(SetBucket("nine", SLOW), SetRedirect("nine", "one"), DeleteRedirect("nine")) == [errno.ENODEV] * 3


def test_incoming_packets_go_through_a_device(place: Place):
    assert place.codes(AddDevice("tbw1"), AddDevice("tbw1"), SetBucket("tbw1", SLOW)) == [0, errno.EEXIST, 0]
    assert place.codes(SetRedirect("one", "tbw1"), SetRedirect("one", "tbw1")) == [0, 0]
    state = place.tc.read()
    assert state.redirects == {"one": "tbw1"} and state.devices == {"tbw1"} and state.buckets.keys() == {"tbw1"}
    assert place.codes(AddDevice("tbw2"), SetRedirect("one", "tbw2")) == [0, 0]
    assert place.tc.read().redirects == {"one": "tbw2"}
    assert place.codes(DeleteRedirect("one"), DeleteRedirect("one")) == [0, errno.ENOENT]
    assert place.codes(DeleteDevice("tbw1"), DeleteDevice("tbw1"), DeleteDevice("tbw2")) == [0, errno.ENODEV, 0]
    state = place.tc.read()
    assert (state.buckets, state.redirects, state.devices) == ({}, {}, frozenset())


def test_a_device_that_went_leaves_a_redirect_to_nowhere(place: Place):
    assert place.codes(AddDevice("tbw1"), SetRedirect("one", "tbw1"), DeleteDevice("tbw1")) == [0, 0, 0]
    assert place.tc.read().redirects.get("one", "") == ""
