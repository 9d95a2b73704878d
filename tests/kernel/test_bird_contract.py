"""One contract for the real BIRD and the fake one: what the control socket and the driver do with either."""

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from tabinet.bgp import fake
from tabinet.bgp.control import BirdAway, BirdControl, Configured
from tabinet.bgp.driver import ApplyResult, BgpDriver, Check, check_with
from tabinet.bgp.fake import FakeBird, FakeSession
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress, LinkPeer, SessionState
from tabinet.bgp.render import render_config
from tabinet.bgp.restart import bird_command, planned_restart
from tabinet.bgp.routes import RouteStatus
from tabinet.bgp.surroundings import NoSurroundings
from tabinet.bgp.tcpcounters import Drop
from tabinet.calc.intents import BgpIntent, Drain, PeerIntent, PoolIntent, SecretRef
from tabinet.errors import BirdError
from tabinet.kernel.netns import run_in
from tabinet.lib.ip import parse_address, parse_prefix

NUMBERS = itertools.count()


class Daemon(Protocol):
    """A BIRD, real or fake, that the test starts when it likes."""

    config: Path
    control: BirdControl
    check: Check

    def start(self, recover: bool = False) -> None: ...

    def stop(self) -> None: ...


class RealDaemon:
    def __init__(self, directory: Path) -> None:
        self.namespace = f"tbbird{os.getpid()}-{next(NUMBERS)}"
        self.directory = directory
        self.config = directory / "bird.conf"
        self.control = BirdControl(directory / "bird.ctl")
        self.check = check_with()
        self.processes: list[subprocess.Popen[bytes]] = []
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)

    def start(self, recover: bool = False) -> None:
        argv = bird_command("/usr/sbin/bird", self.config, self.control.path, self.directory / "bird.pid", recover=recover)
        self.processes.append(subprocess.Popen(["ip", "netns", "exec", self.namespace, *argv], stderr=subprocess.DEVNULL))
        wait_for(self.control.is_running)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)


class FakeDaemon:
    def __init__(self, directory: Path) -> None:
        self.config = directory / "bird.conf"
        self.control = BirdControl(directory / "bird.ctl")
        self.check = fake.check
        self.bird = FakeBird(self.config, self.control.path)

    def start(self, recover: bool = False) -> None:
        self.bird.start()

    def stop(self) -> None:
        self.bird.stop()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(params=[pytest.param(RealDaemon, marks=pytest.mark.kernel), FakeDaemon], ids=["real", "fake"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    made: Daemon = request.param(tmp_path)
    yield made
    made.stop()


def peer(name: str, address: str, as_number: int = 64512, port: int = 179) -> PeerIntent:
    return PeerIntent(name, parse_address(address), port, as_number, True, False, True, 0, 0)


def intent(*peers: PeerIntent) -> BgpIntent:
    own = parse_address("10.7.0.1")
    pools = (PoolIntent("v4", parse_prefix("10.65.0.0/16"), False, False),)
    return BgpIntent("h1", 64512, "10.7.0.1", own, None, 179, "Info", peers, (parse_prefix("10.65.0.0/26"),), pools, ())


FACTS = HostFacts((InterfaceAddress("eth0", parse_address("10.7.0.1"), 24),))
OPTIONS = BgpOptions()


def driver_of(daemon: Daemon) -> BgpDriver:
    return BgpDriver(daemon.config, daemon.control, OPTIONS, daemon.check)


def test_status_and_sessions_are_those_of_the_file(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(intent(peer("h2", "10.7.0.2"), peer("a/b", "10.7.0.3", 65001)), FACTS, OPTIONS))
    daemon.start()
    status = daemon.control.status()
    assert (status.version, status.router_id, status.message) == ("2.0.12", "10.7.0.1", "Daemon is up and running")
    assert status.last_reconfiguration_s is not None
    assert abs(status.last_reconfiguration_s - time.time()) < 60
    sessions = {session.peer: session for session in daemon.control.sessions()}
    assert {name: (s.address, s.peer_as) for name, s in sessions.items()} == {"h2": ("10.7.0.2", 64512), "a/b": ("10.7.0.3", 65001)}
    for session in sessions.values():
        assert session.state is not SessionState.ESTABLISHED
        assert session.reason
    assert "master4" in {count.table for count in daemon.control.route_count()}
    (block,) = daemon.control.routes(10)
    assert block == RouteStatus(destination=parse_prefix("10.65.0.0/26"), protocol="tb_blocks4", best=True, kind="blackhole")
    assert status.started
    assert status.configured


def test_refused_commands_and_files_are_errors(daemon: Daemon, tmp_path: Path) -> None:
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    with pytest.raises(BirdError, match="syntax error"):
        daemon.control.ask("juggle")
    bad = tmp_path / "bad.conf"
    bad.write_text("}\n")
    with pytest.raises(BirdError, match=r"bad\.conf:1:1 syntax error"):
        daemon.control.check(bad)
    assert "bad.conf:1:1 syntax error" in daemon.check(bad)
    daemon.control.check(daemon.config)
    assert daemon.check(daemon.config) == ""
    assert daemon.control.configure() is Configured.DONE
    assert daemon.control.configure(soft=True) is Configured.DONE


def test_nobody_answers_before_the_start_and_after_the_end(daemon: Daemon) -> None:
    with pytest.raises(BirdAway):
        daemon.control.status()
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    daemon.control.down()
    wait_for(lambda: not daemon.control.is_running())


def test_a_planned_restart_ends_with_a_running_bird(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(intent(peer("h2", "10.7.0.2")), FACTS, OPTIONS))
    daemon.start()
    before = daemon.control.status().last_reconfiguration_s
    planned_restart(daemon.control, lambda: daemon.start(recover=True))
    after = daemon.control.status().last_reconfiguration_s
    assert before is not None
    assert after is not None
    assert after >= before
    assert [session.peer for session in daemon.control.sessions()] == ["h2"]


def test_the_driver_configures_once(daemon: Daemon) -> None:
    driver = driver_of(daemon)
    missing = driver.apply(intent(peer("h2", "10.7.0.2")), FACTS)
    assert not missing.changed
    assert "does not answer" in missing.error
    daemon.start()
    assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS).error == ""
    read = daemon.control.status().last_reconfiguration_s
    assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS) == ApplyResult(changed=False)
    assert daemon.control.status().last_reconfiguration_s == read
    assert driver.apply(intent(peer("h3", "10.7.0.3")), FACTS).changed
    assert [session.peer for session in driver.sessions()] == ["h3"]


class Port:
    """Somebody else listens on BGP's port, until ``leave``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        if isinstance(daemon, RealDaemon):
            commands = "link add eth0 type veth peer name eth1\naddr add 10.7.0.1/24 dev eth0\nlink set dev eth0 up\nlink set dev eth1 up\n"
            subprocess.run(["ip", "-n", daemon.namespace, "-batch", "-"], input=commands, text=True, check=True)
            self._socket = run_in(daemon.namespace, lambda: socket.create_server(("10.7.0.1", 179)))

    def leave(self) -> None:
        if isinstance(self._daemon, RealDaemon):
            self._socket.close()

    def missed(self, name: str) -> None:
        """What the fake says of it; the real BIRD finds out by itself."""
        if isinstance(self._daemon, FakeDaemon):
            self._daemon.bird.sessions[name] = FakeSession(state="Down", last_error="No listening socket")


def test_sessions_that_could_not_listen_are_begun_again(daemon: Daemon) -> None:
    port, driver = Port(daemon), driver_of(daemon)
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    assert driver.revive(driver.sessions()) == ()
    assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS).changed
    (name,) = [session.name for session in driver.sessions()]
    port.missed(name)
    wait_for(lambda: "No listening socket" in driver.sessions()[0].reason)
    port.leave()
    assert driver.revive(driver.sessions()) == (name,)
    wait_for(lambda: driver.sessions()[0].state is not SessionState.DOWN)
    assert driver.revive(driver.sessions()) == ()


def test_a_restarted_driver_leaves_a_configured_bird_alone(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    # A file from before BIRD's last reading, so that the two times differ whatever the resolution of the clock.
    assert driver_of(daemon).apply(intent(peer("h2", "10.7.0.2")), FACTS).changed
    os.utime(daemon.config, (1, 1))
    assert driver_of(daemon).apply(intent(peer("h2", "10.7.0.2")), FACTS) == ApplyResult(changed=False)
    # Written, and never read: the driver before was killed in between.
    os.utime(daemon.config, (time.time() + 3600, time.time() + 3600))
    assert driver_of(daemon).apply(intent(peer("h2", "10.7.0.2")), FACTS).changed


def test_drain_announces_graceful_shutdown_and_undrain_takes_it_back(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    driver = driver_of(daemon)
    carries = intent(peer("h2", "10.7.0.2"))
    drained = msgspec.structs.replace(carries, drain=Drain.GRACEFUL)
    assert driver.apply(carries, FACTS).changed
    assert driver.apply(drained, FACTS).changed
    assert "bgp_community.add((65535, 0))" in daemon.config.read_text()
    assert not driver.apply(drained, FACTS).changed
    assert driver.apply(carries, FACTS).changed
    assert "bgp_community.add" not in daemon.config.read_text()


@pytest.mark.kernel
def test_a_peer_that_bird_refuses_is_left_out_with_the_line_and_the_others_stay(tmp_path: Path) -> None:
    daemon = RealDaemon(tmp_path)
    try:
        daemon.config.write_text(render_config(None, FACTS, OPTIONS))
        daemon.start()
        driver = driver_of(daemon)
        assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS).changed
        before = daemon.config.read_text()
        wrong = msgspec.structs.replace(peer("rack/4", "10.7.0.3", 65001, port=70000), resource="BGPPeer/rack/4")
        for _ in range(2):
            assert driver.apply(intent(peer("h2", "10.7.0.2"), wrong), FACTS) == ApplyResult(changed=False)
            good, bad = driver.sessions()
            assert good.peer == "h2"
            assert bad.peer == "rack/4"
            assert "peer rack/4: line " in bad.reason
            assert "Invalid port number" in bad.reason
            assert bad.resource == "BGPPeer/rack/4"
        assert daemon.config.read_text() == before
        assert [path.name for path in tmp_path.glob("bird.conf*")] == ["bird.conf"]
        assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS).error == ""
        assert [session.peer for session in driver.sessions()] == ["h2"]
    finally:
        daemon.stop()


@pytest.mark.kernel
def test_what_bird_refuses_as_a_whole_changes_nothing(tmp_path: Path) -> None:
    daemon = RealDaemon(tmp_path)
    try:
        daemon.config.write_text(render_config(None, FACTS, OPTIONS))
        daemon.start()
        driver = driver_of(daemon)
        assert driver.apply(intent(peer("h2", "10.7.0.2")), FACTS).changed
        before = daemon.config.read_text()
        wrong = msgspec.structs.replace(intent(peer("h3", "10.7.0.3")), listen_port=70000)
        for _ in range(2):
            refused = driver.apply(wrong, FACTS)
            assert refused.changed is False
            assert "Invalid port number" in refused.error
        assert daemon.config.read_text() == before
        assert next(session.peer for session in driver.sessions()) == "h2"
    finally:
        daemon.stop()


def test_a_session_without_its_password_is_not_run_until_it_is_there(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    around = NoSurroundings(dropped={Drop.WRONG_PASSWORD: 7})
    driver = BgpDriver(daemon.config, daemon.control, OPTIONS, daemon.check, around)
    secret = msgspec.structs.replace(peer("h3", "10.7.0.3"), password=SecretRef("bgp", "h3"))
    assert driver.apply(intent(peer("h2", "10.7.0.2"), secret), FACTS).changed
    assert "10.7.0.3" not in daemon.config.read_text()
    left_out = driver.sessions()[1]
    assert (left_out.peer, left_out.address, left_out.state) == ("h3", "10.7.0.3", SessionState.DOWN)
    assert "bgp/h3 in the directory of secrets, cannot be read: no such file" in left_out.reason
    assert driver.refresh() is None
    around.kept["bgp", "h3"] = 'with "quotes"'
    assert driver.refresh() == ApplyResult(changed=False)
    assert "without quotation marks" in driver.sessions()[1].reason
    around.kept["bgp", "h3"] = "s3cret"
    assert driver.refresh() == ApplyResult(changed=True)
    assert 'password "s3cret";' in daemon.config.read_text()
    assert daemon.config.stat().st_mode & 0o777 == 0o640
    assert driver.sessions()[1].reason != left_out.reason
    around.dropped[Drop.WRONG_PASSWORD] = 8
    assert driver.sessions()[1].reason.startswith("the peer has another password than is configured here (TCPMD5Failure rises)")
    assert "password" not in driver.sessions()[0].reason.partition("if it stays so")[0]


def test_an_unnumbered_peer_is_run_when_it_is_heard(daemon: Daemon) -> None:
    daemon.config.write_text(render_config(None, FACTS, OPTIONS))
    daemon.start()
    around = NoSurroundings()
    driver = BgpDriver(daemon.config, daemon.control, OPTIONS, daemon.check, around)
    uplink = msgspec.structs.replace(peer("up", "fe80::", 0), interface="up0")
    assert driver.apply(intent(uplink), FACTS).changed
    assert driver.sessions()[0].reason == "interface up0 is not there, is down, or has no IPv6 link-local address"
    facts = HostFacts((*FACTS.addresses, InterfaceAddress("up0", parse_address("fe80::7"), 64)))
    assert driver.apply(intent(uplink), facts).changed
    assert "protocol radv" in daemon.config.read_text()
    assert driver.sessions()[0].reason == "no router was heard on up0 yet"
    around.heard["up0"] = LinkPeer("up0", parse_address("fe80::99"))
    assert driver.refresh() == ApplyResult(changed=True)
    (session,) = driver.sessions()
    assert (session.peer, session.address) == ("up", "fe80::99")
