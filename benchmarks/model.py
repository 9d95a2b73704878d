"""Reading, validating and selecting: how many resources a second, on one core; and whole commands.

- ``decode``: the typed view of 20,000 workload endpoints as OpenStack has them, without and with the checks that readers make;
- ``validate``: everything that ``tabinet apply`` checks;
- ``selector``: one evaluation of a selector with four terms;
- ``get``, ``apply``: whole processes against an etcd of the benchmark's own (``apply`` of 5,000 policies).

The baseline in the same run is ``json.loads`` of the same endpoints, and the start of a Python that does nothing. Needs etcd.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tabinet.model.codec import decode_stored
from tabinet.model.documents import Document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import WorkloadEndpoint
from tabinet.model.validate import validate
from tabinet.selector import parse

SELECTOR = "has(app) && app in {'web', 'api'} && tier != 'db' && !has(old)"
LABELS = {"app": "web", "tier": "front", "version": "v3", "projectcalico.org/namespace": "openstack"}


def endpoint(number: int) -> dict[str, object]:
    """An endpoint as Neutron's driver writes it: security groups as labels, an address translation, limits."""
    labels = {f"sg.projectcalico.org/openstack-group-{number % 800 + each}": f"group-{each}" for each in range(3)}
    labels |= {"projectcalico.org/namespace": "openstack", "projectcalico.org/orchestrator": "openstack", "app": f"app-{number % 40}"}
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {"name": f"host-openstack-vm{number}-port{number}", "namespace": "openstack", "labels": labels},
        "spec": {
            "node": "host",
            "orchestrator": "openstack",
            "workload": f"vm{number}",
            "endpoint": f"port{number}",
            "ipNetworks": [f"{address}/32", f"fd00::{number:x}/128"],
            "ipNATs": [{"internalIP": address, "externalIP": f"172.16.{number >> 8 & 255}.{number & 255}"}],
            "ipv4Gateway": "10.0.0.1",
            "mac": f"fa:16:3e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            "interfaceName": f"tap{number:x}",
            "qosControls": {"ingressBandwidth": 1_000_000, "egressBandwidth": 1_000_000},
        },
    }


def policy(number: int) -> dict[str, object]:
    rule = {
        "action": "Allow",
        "protocol": "TCP",
        "source": {"selector": f"app == 'a{number}'"},
        "destination": {"ports": [80, "8000:8010"]},
    }
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"p{number}", "namespace": "bench"},
        "spec": {"order": 10, "selector": f"app == 'b{number}'", "types": ["Ingress"], "ingress": [rule]},
    }


def per_s(count: int, work: Callable[[], object]) -> int:
    """``count`` things done by ``work``: how many a second of processor time; the best of three."""
    best = 0.0
    for _ in range(3):
        begin = time.process_time()
        work()
        best = max(best, count / max(1e-9, time.process_time() - begin))
    return int(best)


def measure_model(count: int) -> dict[str, float]:
    """Figures of the model alone."""
    documents = [endpoint(number) for number in range(count)]
    names = [str(msgspec.to_builtins(document["metadata"])["name"]) for document in documents]
    paths = [path_of(ResourceKey("WorkloadEndpoint", name, "openstack")) for name in names]
    values = [msgspec.json.encode(document) for document in documents]
    decoder = msgspec.json.Decoder(WorkloadEndpoint)
    wrapped = [Document(data=document, source="bench", index=1, line=1) for document in documents]
    if any(validate(document) for document in wrapped[:100]):
        raise AssertionError("the endpoints of the benchmark are not valid")
    selector = parse(SELECTOR)
    repeat = 200_000

    def evaluate() -> None:
        for _ in range(repeat):
            selector.evaluate(LABELS)

    pairs = list(zip(paths, values, strict=True))
    return {
        "baseline: json.loads per s": per_s(count, lambda: [json.loads(value) for value in values]),
        "decode per s": per_s(count, lambda: [decoder.decode(value) for value in values]),
        "decode with readers' checks per s": per_s(count, lambda: [decode_stored(*pair) for pair in pairs]),
        "validate per s": per_s(count, lambda: [validate(document) for document in wrapped]),
        "selector of 4 terms, us": round(1e6 / per_s(repeat, evaluate), 3),
    }


def measure_commands(runs: int) -> dict[str, float]:
    """Figures of whole processes, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        argv = ["etcd", "--data-dir", "data", "--listen-client-urls", "unix://etcd.sock:0", "--advertise-client-urls", "unix://etcd.sock:0"]
        argv += ["--listen-peer-urls", "unix://peer.sock:0", "--logger", "zap", "--log-outputs", "/dev/null"]
        etcd = subprocess.Popen(argv, cwd=directory, stderr=subprocess.DEVNULL)
        try:
            while not (directory / "etcd.sock:0").exists():
                time.sleep(0.02)
            environment = os.environ | {"TABINET_STORE_ENDPOINTS": f"unix://{directory}/etcd.sock:0"}

            def run(*words: str) -> float:
                begin = time.perf_counter()
                subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)
                return time.perf_counter() - begin

            file = directory / "policies.json"
            file.write_bytes(msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": [policy(number) for number in range(5000)]}))
            command = ("-m", "tabinet.cli.main")
            created = run(*command, "apply", "-f", str(file))
            return {
                "baseline: python -c pass, s": round(statistics.median(run("-c", "pass") for _ in range(runs)), 3),
                "apply 5,000 policies, s": round(created, 2),
                "apply them again, s": round(run(*command, "apply", "-f", str(file)), 2),
                "get one, s": round(statistics.median(run(*command, "get", "np", "p7", "-n", "bench") for _ in range(runs)), 3),
                "--help, s": round(statistics.median(run(*command, "--help") for _ in range(runs)), 3),
            }
        finally:
            etcd.kill()
            etcd.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="endpoints (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=10, help="of each command (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = measure_model(arguments.count) | measure_commands(arguments.runs)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, value in results.items():
        print(f"{what:36} {value}")


if __name__ == "__main__":
    main()
