"""``python -m benchmarks NAME [options]``: runs one benchmark; ``all`` runs every one with its defaults."""

from __future__ import annotations

import importlib
import sys

NAMES = {
    "calc": "the calculation: snapshot and single changes of a large fabric",
    "datapath": "what policy costs a packet, against routing without policy, iptables chains, and a bridge with VXLAN (needs root and cc)",
    "program": "from a change of policy to the kernel, on top of a large table, against nft -f (needs root)",
    "footprint": "what an agent needs: memory, time to be ready, CPU, with 100,000 endpoints in etcd (needs root)",
    "analysis": "explain, plan and verify as whole processes on a large store, and by the number of classes (needs etcd)",
    "ipam": "addresses on a real etcd: one host, twenty at once, half of them killed",
    "attach": "CNI calls as whole processes with addresses from etcd, against bridge and host-local; docker, libvirt (needs root and etcd)",
    "docker": "what a network of ours adds to docker run, against a bridge of Docker's (needs root, scripts/setup-runtimes and etcd)",
    "libvirt": "what the hook adds to the start and the end of a domain (needs root, libvirt-packages.txt and etcd)",
    "guest": "DHCP of both versions with thousands of TAPs in one process, and under a flood (needs root)",
    "model": "decoding, validating, selecting, and whole commands (needs etcd)",
    "convergence": "what cut links, dying hosts and restarts cost in packets, under FRR and under BIRD top-of-rack routers (needs root)",
    "routes": "from an endpoint to the farthest kernel, 10,000 routes at once, 100 peerings changed at once (needs root)",
    "failures": "every failure and repair in every example topology, against the check of packets (needs root)",
    "openstack": "Neutron's driver: 10,000 ports into an empty etcd, and what hosts wait for (needs root, make setup-openstack)",
    "migration": "live migration of a virtual machine between two hosts of a lab: what is lost, and flows handed over (needs root, VMS=1)",
    "fabric": "a lab: attaching a workload, enforcing a policy, what failures cost (needs root)",
}


def main() -> int:
    """Exit code 2 when there is no such benchmark."""
    name, *options = sys.argv[1:] or ["help"]
    if name != "all" and name not in NAMES:
        width = max(map(len, NAMES))
        print("usage: python -m benchmarks NAME [--json] [options]\n\n  all" + " " * (width - 1) + "every one of them")
        for known, what in NAMES.items():
            print(f"  {known.ljust(width)}  {what}")
        return 2
    for each in NAMES if name == "all" else [name]:
        print(f"== {each}", file=sys.stderr)
        sys.argv = [f"benchmarks {each}", *options]
        importlib.import_module(f"benchmarks.{each}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
