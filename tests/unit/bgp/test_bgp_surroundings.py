"""What BGP looks at beside BIRD: passwords in files, neighbours on links, counters of dropped segments; and what these say of a session."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.bgp.control import BirdControl
from tabinet.bgp.discovery import Neighbourhood, parse_heard
from tabinet.bgp.driver import BgpDriver, write_private
from tabinet.bgp.fake import FakeBird, check
from tabinet.bgp.leftovers import BIRD_PROTOCOL, past_metrics, remove_routes
from tabinet.bgp.names import password_problem
from tabinet.bgp.reasons import reason_of, reason_with_drops
from tabinet.bgp.records import BgpOptions, HostFacts, SessionState, SessionStatus
from tabinet.bgp.refusals import read_refusal
from tabinet.bgp.render import render_config
from tabinet.bgp.secrets import read_secrets
from tabinet.bgp.surroundings import NoSurroundings
from tabinet.bgp.tcpcounters import WINDOW_S, Drop, Trend, parse_counters, read_counters
from tabinet.calc.intents import BgpIntent, PeerIntent, SecretRef
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddRoute, SetLink, blackhole_route, execute_all
from tabinet.lib.ip import parse_address, parse_prefix

PEER = PeerIntent("rack", parse_address("192.0.2.1"), 179, 65000, False, False, True, 0, 0)
A, B = parse_address("fe80::a"), parse_address("fe80::b")


# --- passwords -------------------------------------------------------------------------------------------------------


def test_secrets_are_files_by_name_and_key(tmp_path: Path) -> None:
    (tmp_path / "bgp").mkdir()
    (tmp_path / "bgp" / "rack").write_text("s3cret \n")
    (tmp_path / "bgp" / "raw").write_bytes(b"\xff\xfe")
    (tmp_path / "bgp" / "long").write_text("x" * 5000)
    (tmp_path / "outside").write_text("no")
    found = {
        secret.key: secret
        for secret in read_secrets(tmp_path, [SecretRef("bgp", key) for key in ("rack", "raw", "long", "gone", "../outside", ".")])
    }
    assert (found["rack"].value, found["rack"].found) == ("s3cret ", True)
    assert {key: secret.problem for key, secret in found.items() if not secret.found} == {
        "raw": "it is no text",
        "long": "it is longer than 4096 bytes",
        "gone": "no such file or directory",
        "../outside": "its name or key cannot be a file's",
        ".": "its name or key cannot be a file's",
    }
    (none,) = read_secrets(None, [SecretRef("bgp", "rack")])
    assert none.problem == "the agent has no secrets_dir"


@pytest.mark.parametrize("password", ["", "x" * 81, 'a"b', "a\nb", "pässwort"])
def test_passwords_that_bird_cannot_have(password: str) -> None:
    assert password_problem(password)


def test_a_configuration_with_passwords_is_private(tmp_path: Path) -> None:
    path = tmp_path / "bird.conf"
    path.write_text("before")
    path.chmod(0o644)
    write_private(path, "after")
    assert path.read_text() == "after"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_gid == tmp_path.stat().st_gid


def test_a_refusal_never_repeats_a_password() -> None:
    text = 'protocol bgp \'x\' {\n  description "rack";\n  password "s3cret" oops;\n}\n'
    refusal = read_refusal("/x:3:21 syntax error", text)
    assert refusal.words == 'peer rack: line 3: syntax error: password "..." oops;'
    intent = BgpIntent("h", 1, "192.0.2.9", None, None, 179, "Info", (PEER,), (), (), ())
    assert list(refusal.culprits(intent)) == ["rack"]


def test_a_refused_filter_is_the_fault_of_the_peers_that_name_it() -> None:
    refusal = read_refusal("/x:2:1 no", "function 'tb_ex4_f'(bool x) {\n  oops\n}\n")
    intent = BgpIntent(
        "h", 1, "192.0.2.9", None, None, 179, "Info", (PEER, msgspec.structs.replace(PEER, name="q", filters=("f",))), (), (), ()
    )
    assert list(refusal.culprits(intent)) == ["q"]


# --- counters --------------------------------------------------------------------------------------------------------

NETSTAT = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Failure TCPMinTTLDrop\nTcpExt: 1 2 3 4\nIpExt: InNoRoutes\nIpExt: 5\n"


def test_counters_are_read_by_name() -> None:
    assert parse_counters(NETSTAT) == {Drop.NO_PASSWORD: 2, Drop.WRONG_PASSWORD: 3, Drop.TOO_FAR: 4}
    assert set(read_counters()) == set(Drop)


@given(st.text(alphabet="TcpExt: 0123\nMD5", max_size=200))
def test_any_text_gives_counters(text: str) -> None:
    assert set(parse_counters(text)) <= set(Drop)


def test_a_counter_rises_for_a_while() -> None:
    trend = Trend()
    assert trend.observe(0.0, {Drop.TOO_FAR: 5}) == frozenset()
    assert trend.observe(1.0, {Drop.TOO_FAR: 6}) == {Drop.TOO_FAR}
    assert trend.observe(2.0, {Drop.TOO_FAR: 6}) == {Drop.TOO_FAR}
    assert trend.observe(2.0 + WINDOW_S, {Drop.TOO_FAR: 6}) == frozenset()


@pytest.mark.parametrize(
    ("password", "hops", "drops", "words"),
    [
        (True, 0, {Drop.WRONG_PASSWORD}, "another password"),
        (True, 0, {Drop.NO_PASSWORD}, "uses no password"),
        (False, 0, {Drop.UNEXPECTED_PASSWORD}, "here none is configured"),
        (False, 1, {Drop.TOO_FAR}, "more than 1 hops away"),
        (False, 0, {Drop.WRONG_PASSWORD, Drop.NO_PASSWORD, Drop.TOO_FAR}, "connecting"),
        (True, 1, {Drop.UNEXPECTED_PASSWORD}, "connecting"),
    ],
)
def test_what_the_kernel_drops_says_why_a_session_is_down(password: bool, hops: int, drops: set[Drop], words: str) -> None:
    peer = msgspec.structs.replace(PEER, password=SecretRef("a", "b") if password else None, ttl_hops=hops)
    session = SessionStatus(name="x", peer="rack", state=SessionState.ACTIVE)
    session = msgspec.structs.replace(session, reason=reason_of(session))
    assert words in reason_with_drops(session, peer, drops)
    up = SessionStatus(name="x", peer="rack", state=SessionState.ESTABLISHED)
    assert reason_with_drops(up, peer, drops) == ""


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "source", "hops", "expected"),
    [
        (b"\x86", "fe80::a%eth0", 255, (A, True)),
        (b"\x86", "fe80::a", 64, None),
        (b"\x81", "fe80::a", 64, (A, False)),
        (b"\x87", "fe80::a", 255, (A, False)),
        (b"\x80", "fe80::a", 255, None),
        (b"\x81", "fd00::a", 255, None),
        (b"", "fe80::a", 255, None),
    ],
)
def test_who_was_heard(data: bytes, source: str, hops: int, expected: object) -> None:
    assert parse_heard(data, source, hops) == expected


def test_one_neighbour_is_the_peer_and_a_router_before_others() -> None:
    known = Neighbourhood()
    assert known.peer("up").problem == "no router was heard on up yet"
    known.on_heard("up", A, router=False, now_s=1.0)
    assert known.peer("up").address == A
    known.on_heard("up", B, router=True, now_s=2.0)
    assert known.peer("up").address == B
    known.on_heard("up", B, router=False, now_s=3.0)
    assert known.peer("up").address == B
    assert known.peer("other").address is None


def test_of_several_routers_none_is_the_peer_until_only_one_is_heard() -> None:
    known = Neighbourhood()
    known.on_heard("up", A, router=True, now_s=1.0)
    known.on_heard("up", B, router=True, now_s=2.0)
    assert known.peer("up").problem == "several routers are on up (fe80::a, fe80::b): an unnumbered link has one"
    known.on_heard("up", B, router=True, now_s=9.0)
    assert known.peer("up").address == B
    known.forget("up")
    assert known.peer("up").address is None


# --- left over routes ------------------------------------------------------------------------------------------------


def test_the_metric_before_is_told_from_the_texts() -> None:
    intent = BgpIntent("h", 1, "192.0.2.9", None, None, 179, "Info", (), (), (), ())
    before = render_config(intent, HostFacts(), BgpOptions())
    after = render_config(msgspec.structs.replace(intent, metrics=(900, 0)), HostFacts(), BgpOptions())
    assert past_metrics(before, after) == {(4, 32)}
    assert past_metrics(before, before) == past_metrics("", after) == past_metrics(after, "anything") == frozenset()


def test_only_routes_of_bird_with_a_metric_of_the_past_are_removed() -> None:
    kernel = FakeRtnetlink()
    execute_all(kernel, [SetLink(1, up=True)])
    routes = [
        blackhole_route(parse_prefix(net), metric=metric, protocol=protocol)
        for net, metric, protocol in (
            ("10.0.0.0/26", 32, BIRD_PROTOCOL),
            ("10.0.0.0/26", 900, BIRD_PROTOCOL),
            ("10.0.1.0/26", 32, 84),
            ("fd00::/64", 32, BIRD_PROTOCOL),
        )
    ]
    execute_all(kernel, [AddRoute(route) for route in routes])
    assert remove_routes(kernel, {(4, 32)}) == 1
    assert sorted((str(route.destination), route.metric, route.protocol) for route in kernel.routes()) == [
        ("10.0.0.0/26", 900, BIRD_PROTOCOL),
        ("10.0.1.0/26", 32, 84),
        ("fd00::/64", 32, BIRD_PROTOCOL),
    ]


def test_the_driver_removes_them_once_the_new_ones_are_there(tmp_path: Path) -> None:
    bird = FakeBird(tmp_path / "bird.conf", tmp_path / "bird.ctl")
    around, now = NoSurroundings(), [0.0]
    driver = BgpDriver(bird.config, BirdControl(bird.path), BgpOptions(), check, around, lambda: now[0])
    intent = BgpIntent("h", 1, "192.0.2.9", None, None, 179, "Info", (), (), (), ())
    driver.apply(intent, HostFacts())
    bird.start()
    try:
        assert driver.apply(intent, HostFacts()).error == ""
        assert driver.apply(msgspec.structs.replace(intent, metrics=(900, 900)), HostFacts()).changed
        assert driver.apply(msgspec.structs.replace(intent, metrics=(900, 0)), HostFacts()).changed
        driver.refresh()
        assert around.removed == []
        now[0] = 11.0
        driver.refresh()
        driver.refresh()
        assert around.removed == [{(4, 32), (6, 900)}]
    finally:
        bird.stop()
