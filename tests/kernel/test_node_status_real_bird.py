"""``tabinet node status`` on a host whose agent is away: BIRD itself, in a namespace, says which session is down and why."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabinet.bgp.control import BirdControl
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.render import render_config
from tabinet.bgp.restart import bird_command
from tabinet.calc.intents import BgpIntent, PeerIntent
from tabinet.cli.main import run
from tabinet.lib.ip import parse_address

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

LINK = ("10.7.0.1", "10.7.0.2")
AS = (65001, 65002)


def run_ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[BirdControl]]:
    """Two hosts on a cable; the second takes the first for another AS. A third neighbour of the first does not exist."""
    names = [f"tbns{os.getpid()}{side}" for side in "ab"]
    controls, processes = [], []
    try:
        for name in names:
            run_ip("netns", "add", name)
            run_ip("-n", name, "link", "set", "lo", "up")
        ends = ["peer", "name", "e1", "index", "31", "netns", names[1]]
        run_ip("link", "add", "e0", "index", "30", "netns", names[0], "type", "veth", *ends)
        for side, name in enumerate(names):
            run_ip("-n", name, "addr", "add", f"{LINK[side]}/24", "dev", f"e{side}")
            run_ip("-n", name, "link", "set", f"e{side}", "up")
            home = tmp_path / name
            home.mkdir()
            own, other = parse_address(LINK[side]), LINK[1 - side]
            wrong = 65999 if side else AS[1]
            peers = [PeerIntent("neighbour", parse_address(other), 179, wrong, False, False, False, 120, 1)]
            if side == 0:
                peers.append(PeerIntent("nobody", parse_address("10.7.0.9"), 179, 65009, False, False, False, 120, 1))
            intent = BgpIntent(name, AS[side], own.address, own, None, 179, "Info", tuple(peers), (), (), ())
            (home / "bird.conf").write_text(render_config(intent, HostFacts((InterfaceAddress(f"e{side}", own, 24),)), BgpOptions()))
            argv = bird_command("/usr/sbin/bird", home / "bird.conf", home / "bird.ctl", home / "bird.pid", recover=False)
            processes.append(subprocess.Popen(["ip", "netns", "exec", name, *argv], stderr=subprocess.DEVNULL))
            controls.append(BirdControl(home / "bird.ctl"))
        until(lambda: all(control.is_running() for control in controls))
        yield controls
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_why_a_session_is_down(
    pair: list[BirdControl], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tabinet.toml"
    config.write_text(f'[agent]\nhost = "a"\nhttp_address = "unix:{tmp_path}/none"\n[bird]\nsocket = "{pair[0].path}"\n')
    monkeypatch.setenv("TABINET_CONFIG", str(config))

    def said(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(["node", "status", *words])
        return code, capsys.readouterr().out

    until(lambda: "the peer has another AS number than it is configured with here" in said()[1])
    code, text = said("-o", "json")
    (node,) = json.loads(text)["nodes"]
    assert (code, node["name"], node["source"], node["healthy"]) == (1, "a", "bird", False)
    sessions = {session["peer"]: session for session in node["report"]["sessions"]}
    assert set(sessions) == {"neighbour", "nobody"}
    assert sessions["neighbour"]["last_error"].endswith("Bad peer AS")
    assert sessions["nobody"]["reason"]
    assert all(session["since"] for session in sessions.values())
