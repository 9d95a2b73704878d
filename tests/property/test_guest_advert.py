"""Router advertisements: read back, and any bytes."""

from hypothesis import given
from hypothesis import strategies as st

from tabinet.errors import PacketError
from tabinet.guest.advert import Advert, AdvertPrefix, parse_advert, render_advert
from tabinet.lib.ip import IPV6, Prefix

numbers = st.integers(0, 2**32 - 1)
hosts = st.integers(0, 2**128 - 1).map(lambda value: Prefix(IPV6, value, 128))
nets = st.builds(
    lambda value, length: Prefix(IPV6, value >> (128 - length) << (128 - length), length), st.integers(0, 2**128 - 1), st.integers(0, 128)
)
prefixes = st.builds(AdvertPrefix, nets, st.booleans(), numbers, numbers, st.booleans())
adverts = st.builds(
    lambda dns, dns_lifetime_s, **fields: Advert(dns=dns, dns_lifetime_s=dns_lifetime_s if dns else 0, **fields),
    lifetime_s=st.integers(0, 65535),
    managed=st.booleans(),
    other=st.booleans(),
    mtu=numbers,
    prefixes=st.lists(prefixes, max_size=3).map(tuple),
    dns=st.lists(hosts, max_size=3).map(tuple),
    dns_lifetime_s=numbers,
)


@given(adverts)
def test_read_back(advert: Advert):
    data = render_advert(advert)
    assert parse_advert(data) == advert and len(data) % 8 == 0


@given(st.binary(max_size=120) | st.builds(lambda advert, tail: render_advert(advert) + tail, adverts, st.binary(max_size=60)))
def test_any_bytes(data: bytes):
    try:
        advert = parse_advert(data)
    except PacketError:
        return
    assert parse_advert(render_advert(advert)) == advert
