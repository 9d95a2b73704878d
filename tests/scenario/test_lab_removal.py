"""Whatever becomes of the command that makes a lab, and of what the lab remembers: ``lab down`` leaves nothing."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lab_world import EXAMPLES, TABINET, leftovers, unique_name

from tabinet.kernel import netns
from tabinet.lab.plan import namespace_of
from tabinet.lab.state import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def small_topology(directory: Path, name: str) -> Path:
    """Two hosts and a router of each kind."""
    path = directory / f"{name}.yaml"
    path.write_text(
        f"name: {name}\n"
        "defaults: {namespace: shop, profiles: [shop]}\n"
        "routers: {r1: {as: 65000, software: bird}, r2: {as: 65001, software: frr}}\n"
        "hosts: {h1: {as: 64601}, h2: {as: 64602}}\n"
        "links: [[r1, h1], [r1, h2], [r2, h1], [r2, h2]]\n"
        "workloads: {w1: {host: h1}, w2: {host: h2}}\n"
        f"resources: [{EXAMPLES}/policies/profiles.yaml]\n"
    )
    return path


def start_up(topology: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([TABINET, "lab", "up", str(topology)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def down(*arguments: str) -> str:
    done = subprocess.run([TABINET, "lab", "down", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_lab_whose_making_is_killed_at_any_moment_can_be_removed_and_made_again(tmp_path: Path) -> None:
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    chance = random.Random(seed)
    name = unique_name()
    topology = small_topology(tmp_path, name)
    try:
        for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            with start_up(topology) as making:
                time.sleep(0.3 + 3.0 * chance.random())
                making.send_signal(number)
                said, _ = making.communicate(timeout=60)
            print(f"{number.name} after: {said.splitlines()[-1:]}")
            if number == signal.SIGKILL:
                down(name)
            elif making.returncode == 0:
                down(name)  # it was ready before the signal came
            assert leftovers(name) == [], said
        with start_up(topology) as making:
            said, _ = making.communicate(timeout=120)
            assert making.returncode == 0, said
        check = subprocess.run([TABINET, "lab", "check", "--lab", name, "--json"], capture_output=True, text=True, timeout=60, check=False)
        assert check.returncode == 0, check.stderr
        assert json.loads(check.stdout)["mismatches"] == 0
        again = subprocess.run([TABINET, "lab", "up", str(topology)], capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 1
        assert "exists already" in again.stderr
        (ROOT / name / "state.json").unlink()
        down(name)
    finally:
        subprocess.run([TABINET, "lab", "down", name], capture_output=True, timeout=60, check=False)
    assert leftovers(name) == []


def test_what_is_left_of_a_lab_without_its_directory_is_removed(tmp_path: Path) -> None:
    name = unique_name()
    namespace = namespace_of(name, "h1")
    netns.create(namespace)
    stray = subprocess.Popen(["ip", "netns", "exec", namespace, "sleep", "600"])
    try:
        assert leftovers(name) != []
        down(name)
        assert stray.wait(5) == -signal.SIGKILL
    finally:
        stray.kill()
        stray.wait()
        if netns.exists(namespace):
            netns.delete(namespace)
    assert leftovers(name) == []


def test_removing_what_is_not_there_is_no_error() -> None:
    name = unique_name()
    down(name)
    assert leftovers(name) == []
