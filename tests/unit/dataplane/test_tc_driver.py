"""The bandwidth driver against the fake kernel."""

from __future__ import annotations

import errno

import pytest

from tabinet.calc.messages import Limits, Qos
from tabinet.dataplane.tc.driver import (
    DEFAULT_BURST_BYTES,
    SMALLEST_BURST_BYTES,
    SMALLEST_QUEUE_BYTES,
    BandwidthDriver,
    device_name,
    token_bucket,
)
from tabinet.kernel.rtnetlink import Link, LinkEvent, Overrun
from tabinet.kernel.tc import AddDevice, DeleteDevice, SetBucket, SetRedirect, TokenBucket, is_made_of, ticks
from tabinet.kernel.tcfake import FakeTrafficControl

MBIT = 1_000_000
BOTH = Qos(Limits(bandwidth_bit_s=8 * MBIT), Limits(bandwidth_bit_s=16 * MBIT, burst_bits=8 * MBIT))
DEVICE = device_name("calia")


def started() -> tuple[FakeTrafficControl, BandwidthDriver]:
    fake = FakeTrafficControl()
    fake.add_interface("calia")
    driver = BandwidthDriver(fake)
    driver.want("calia", BOTH)
    assert driver.apply().errors == {}
    return fake, driver


def again(fake: FakeTrafficControl, qos: Qos = BOTH) -> BandwidthDriver:
    driver = BandwidthDriver(fake)
    driver.want("calia", qos)
    return driver


@pytest.mark.parametrize(
    ("limits", "bucket"),
    [
        (Limits(), None),
        (Limits(burst_bits=80), None),
        (Limits(bandwidth_bit_s=8 * MBIT), TokenBucket(MBIT, DEFAULT_BURST_BYTES, SMALLEST_QUEUE_BYTES)),
        (Limits(bandwidth_bit_s=80 * MBIT, burst_bits=8), TokenBucket(10 * MBIT, SMALLEST_BURST_BYTES, 500_000)),
        (
            Limits(bandwidth_bit_s=8 * MBIT, burst_bits=1 << 60, peak_bit_s=16 * MBIT, peak_burst_bytes=99_999),
            TokenBucket(MBIT, (1 << 32) - 1, SMALLEST_QUEUE_BYTES, 2 * MBIT, 99_999),
        ),
        (Limits(bandwidth_bit_s=8 * MBIT, peak_bit_s=8 * MBIT), TokenBucket(MBIT, DEFAULT_BURST_BYTES, SMALLEST_QUEUE_BYTES)),
    ],
)
def test_what_a_limit_becomes(limits: Limits, bucket: TokenBucket | None):
    assert token_bucket(limits) == bucket


def test_names_of_devices_fit_and_tell_interfaces_apart():
    names = {device_name(f"cali{number}") for number in range(1000)}
    assert len(names) == 1000 and max(map(len, names)) <= 15


def test_both_directions_come_and_go():
    fake, driver = started()
    state = fake.read()
    assert state.redirects == {"calia": DEVICE} and state.devices == {DEVICE}
    assert is_made_of(state.buckets["calia"], token_bucket(BOTH.ingress)) and is_made_of(state.buckets[DEVICE], token_bucket(BOTH.egress))
    assert driver.in_sync and driver.apply().operations == ()
    driver.unwant("calia")
    driver.apply()
    state = fake.read()
    assert (state.buckets, state.redirects, state.devices) == ({}, {}, frozenset())


def test_a_restart_adopts_what_is_right_and_repairs_the_rest():
    fake, _ = started()
    assert again(fake).apply().operations == ()
    other = Qos(BOTH.ingress, Limits(bandwidth_bit_s=32 * MBIT))
    assert again(fake, other).apply().operations == (SetBucket(DEVICE, token_bucket(other.egress)),)
    assert again(fake, Qos(BOTH.ingress)).apply().errors == {}
    assert fake.read().devices == frozenset() and fake.read().buckets.keys() == {"calia"}
    BandwidthDriver(fake).apply()
    assert fake.read().buckets == {}


def test_an_interface_that_is_not_there_is_limited_once_it_comes():
    fake = FakeTrafficControl()
    driver = again(fake)
    assert driver.apply().errors == {}
    assert driver.in_sync and driver.apply().operations == ()
    fake.add_interface("calia")
    driver.on_event(LinkEvent(Link(5, "calia"), gone=False))
    assert not driver.in_sync
    driver.apply()
    assert fake.read().redirects == {"calia": DEVICE} and "calia" in fake.read().buckets


def test_an_interface_that_goes_and_comes_back_is_limited_anew():
    fake, driver = started()
    fake.remove_interface("calia")
    driver.on_event(LinkEvent(Link(5, "calia"), gone=True))
    driver.apply()
    fake.add_interface("calia")
    driver.on_event(LinkEvent(Link(6, "calia"), gone=False))
    assert set(map(type, driver.apply().operations)) == {SetBucket, SetRedirect}
    assert fake.read().redirects == {"calia": DEVICE} and "calia" in fake.read().buckets


def test_others_shaping_is_left_alone_and_told():
    fake = FakeTrafficControl()
    fake.add_interface("calia")
    fake.take_root("calia")
    driver = again(fake)
    assert driver.apply().errors["calia"].errno == errno.EEXIST
    assert fake.read().redirects == {"calia": DEVICE}, "the other direction is none of their business"
    assert not driver.in_sync


def test_a_device_in_the_way_is_looked_at():
    fake, _ = started()
    driver = again(fake)
    driver.apply()
    driver.on_event(LinkEvent(Link(9, DEVICE), gone=True))  # which is not so: it is still there
    assert driver.apply().errors == {}
    assert any(isinstance(operation, AddDevice) for operation in fake.executed)
    assert again(fake).apply().operations == ()


def test_refusals_are_told_by_interface_and_tried_again():
    fake = FakeTrafficControl()
    fake.add_interface("calia")
    fake.refuse(AddDevice, errno.EOPNOTSUPP)
    driver = again(fake)
    assert driver.apply().errors["calia"].errno == errno.EOPNOTSUPP
    fake.refuse(AddDevice, 0)
    driver.on_event(LinkEvent(Link(7, DEVICE), gone=False))
    driver.on_event(Overrun())
    assert driver.apply().errors == {} and driver.errors == {}
    driver.unwant("calia")
    fake.refuse(DeleteDevice, errno.EBUSY)
    driver.apply()
    assert not driver.in_sync


def test_times_of_large_bursts_wrap_as_the_kernels_do():
    bucket = TokenBucket(rate=1000, burst=DEFAULT_BURST_BYTES, limit=SMALLEST_QUEUE_BYTES)
    assert ticks(bucket.rate, bucket.burst) < 1 << 32 < bucket.burst * 1_000_000_000 // bucket.rate >> 6
