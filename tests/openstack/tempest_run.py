"""tempest against a whole cloud: the API tests of networks, its own and those of its plugin for Neutron.

Which tests are left out, and why, is in ``tempest-left-out.txt``.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystone_process import PASSWORD, REGION, VENV
from openstack_world import eventually
from whole_cloud import WholeCloud

LEFT_OUT = Path(__file__).with_name("tempest-left-out.txt")
HOST = "/calico/felix/v2/no-region/host/tempest"
WITHIN_S = 7200
AT_ONCE = 2
CONFIG = """\
[DEFAULT]
log_file = tempest.log
[auth]
admin_username = admin
admin_password = {password}
admin_project_name = admin
admin_domain_name = Default
create_isolated_networks = false
[identity]
uri_v3 = {keystone}
auth_version = v3
region = {region}
[network]
public_network_id = {outside}
project_network_cidr = 10.200.0.0/16
project_network_mask_bits = 28
[network-feature-enabled]
api_extensions = {extensions}
ipv6_subnet_attributes = true
[neutron_plugin_options]
available_type_drivers = local,flat
[service_available]
neutron = true
nova = false
glance = false
cinder = false
swift = false
horizon = false
[oslo_concurrency]
lock_path = {directory}/lock
"""


@dataclass(frozen=True)
class Result:
    """What a run came to: names of tests."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    output: str


def run_tempest(cloud: WholeCloud, directory: Path, pattern: str) -> Result:
    """The tests whose name the pattern matches have run, but for those that are left out."""
    assert cloud.keystone is not None
    directory.mkdir(parents=True)
    environment = {**os.environ, "HOME": str(directory), "PATH": f"{VENV}/bin:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(["tempest", "init", "cloud"], cwd=directory, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    directory /= "cloud"
    neutron = cloud.neutron
    fields = {"router:external": True, "provider:network_type": "flat", "provider:physical_network": "tempest"}
    outside: dict[str, Any] = neutron.create("network", name="public", **fields)
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="203.0.113.0/24", enable_dhcp=False)
    cloud.put(f"{HOST}/status", {"time": "2026-11-22T09:36:09Z", "uptime": 1.5, "first_update": True})  # tests want an agent to look at
    eventually(lambda: neutron.get("/agents")["agents"])
    values = {
        "password": PASSWORD,
        "keystone": cloud.keystone.url,
        "region": REGION,
        "outside": outside["id"],
        "extensions": ",".join(sorted(each["alias"] for each in neutron.get("/extensions")["extensions"])),
        "directory": directory,
    }
    (directory / "etc" / "tempest.conf").write_text(CONFIG.format(**values))
    command = ["tempest", "run", "--regex", pattern, "--exclude-list", LEFT_OUT, "--concurrency", str(AT_ONCE)]
    output = directory / "output"  # what has been run can be seen there meanwhile
    with output.open("wb") as file:
        subprocess.run(command, cwd=directory, env=environment, check=False, stdout=file, stderr=subprocess.STDOUT, timeout=WITHIN_S)
    told = output.read_text(errors="replace")
    by_result: dict[str, list[str]] = {"ok": [], "SKIPPED": [], "FAILED": []}
    for name, result in re.findall(r"^\{\d+\} (\S.*?) (?:\[[0-9.]+s\] )?\.\.\. (ok|SKIPPED|FAILED)", told, re.MULTILINE):
        by_result[result].append(name)
    return Result(*(tuple(sorted(by_result[result])) for result in ("ok", "SKIPPED", "FAILED")), told)
