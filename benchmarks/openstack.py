"""Neutron's driver: filling an empty etcd, finding nothing to do, what it adds to an API call, and how soon hosts have what was changed.
Needs ``make setup-openstack``.

A Neutron with ``--ports`` ports in ``--groups`` groups, in a process of its own, with a real etcd; its database is sqlite, or the one
that ``--database`` names, which has to be empty. Then a lab of two hosts (``benchmarks.openstack_hosts``). The baselines are in the same
run: the same change of a port without the driver's share, and the call that makes or deletes a rule.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks import openstack_hosts
from benchmarks.etcd import own_etcd

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-openstack" / "bin" / "python"
WITHIN_S = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ports", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--calls", type=int, default=100, help="changes of a port over Neutron's plugin")
    parser.add_argument("--database", default="", help="SQLAlchemy URL of an empty database")
    parser.add_argument("--placed", type=int, default=20, help="ports made on the hosts of a lab; 0: no lab")
    parser.add_argument("--rules", type=int, default=10, help="rules made and deleted there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, own_etcd() as endpoint:
        arguments = [directory, endpoint, *map(str, (options.ports, options.groups, options.calls)), options.database]
        command = [str(PYTHON), "-W", "ignore", "-m", "benchmarks.openstack_neutron", *arguments]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=WITHIN_S)
    figures = json.loads(done.stdout.splitlines()[-1])
    if options.placed:
        figures |= openstack_hosts.measure(options.placed, options.rules)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value}")


if __name__ == "__main__":
    main()
