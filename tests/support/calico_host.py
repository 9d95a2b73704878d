"""A host as Calico leaves it, made by hand in network namespaces: workloads, routes, Felix's rules and sets, and etcd as Calico fills it.

::

    w1, w2 - (cali*) host (eth0) ---- (eth0) peer

There is no Felix here and no BIRD. What they would have made is made once, in their form; what runs as Felix has only its name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etcd_process import EtcdProcess

from tabinet.kernel import netns
from tabinet.kernel.ipset import create_set
from tabinet.store.api import PutOp
from tabinet.store.open import open_store

DEADLINE_S = 60.0
WORKLOADS = {"w1": ("10.65.0.1", "fd00:65::1"), "w2": ("10.65.0.2", "fd00:65::2")}
PEER, OUTSIDE = ("10.1.0.2", "fd01::2"), ("10.1.0.1", "fd01::1")
GATEWAY = "169.254.1.1"
MAC = "ee:ee:ee:ee:ee:ee"
"""Of every interface that Calico's plugin makes."""
LINK_LOCAL = "fe80::ecee:eeff:feee:eeee"
SETS = ("cali40s:clients", "cali60s:clients", "cali40masq-ipam-pools", "cali40all-ipam-pools")
RESOURCES = "/calico/resources/v3/projectcalico.org"
IPAM = "/calico/ipam/v2"


def _document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    head = {"name": name, "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "creationTimestamp": "2025-03-01T10:00:00Z"}
    return {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": head | metadata, "spec": spec}


def _endpoint(name: str) -> dict[str, Any]:
    spec = {
        "orchestrator": "k8s",
        "node": "h1",
        "containerID": f"c0ffee{name}",
        "pod": name,
        "endpoint": "eth0",
        "ipNetworks": [f"{WORKLOADS[name][0]}/32", f"{WORKLOADS[name][1]}/128"],
        "profiles": ["kns.default"],
        "interfaceName": f"cali{name}",
    }
    labels = {"app": "web", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}
    return _document("WorkloadEndpoint", f"h1-k8s-{name}-eth0", spec, namespace="default", labels=labels)


def _block(cidr: str, bits: int, used: dict[int, int], attributes: list[dict[str, Any]]) -> dict[str, Any]:
    size = 1 << bits
    return {
        "cidr": cidr,
        "affinity": "host:h1",
        "allocations": [used.get(ordinal) for ordinal in range(size)],
        "unallocated": [ordinal for ordinal in range(size) if ordinal not in used],
        "attributes": attributes,
        "sequenceNumber": 1,
        "sequenceNumberForAllocation": {str(ordinal): 1 for ordinal in used},
        "deleted": False,
    }


def calico_values() -> dict[str, Any]:
    """What is in etcd, by key: two endpoints, their addresses, and one address (``10.65.0.7``) whose workload is gone."""
    owners = {name: f"k8s-pod-network.c0ffee{name}" for name in (*WORKLOADS, "w7")}
    attributes = [
        {"handle_id": owner, "secondary": {"namespace": "default", "node": "h1", "pod": name, "timestamp": "2025-03-01 10:00:00 +0000 UTC"}}
        for name, owner in owners.items()
    ]
    four, six = "10.65.0.0/26", "fd00:65::/122"
    rules = [
        {"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.1.0.0/24", "fd01::/64"]}, "destination": {"ports": [80]}},
        {"action": "Allow", "protocol": "ICMP"},
        {"action": "Allow", "protocol": "ICMPv6"},
    ]
    policy = {"order": 100, "selector": "app == 'web'", "types": ["Ingress", "Egress"], "ingress": rules, "egress": [{"action": "Allow"}]}
    values = {
        f"{RESOURCES}/clusterinformations/default": _document(
            "ClusterInformation", "default", {"datastoreReady": True, "calicoVersion": "v3.30.0"}
        ),
        f"{RESOURCES}/nodes/h1": _document("Node", "h1", {"bgp": {"ipv4Address": f"{OUTSIDE[0]}/24"}}),
        f"{RESOURCES}/ippools/four": _document(
            "IPPool", "four", {"cidr": "10.65.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never"}
        ),
        f"{RESOURCES}/ippools/six": _document(
            "IPPool", "six", {"cidr": "fd00:65::/64", "blockSize": 122, "ipipMode": "Never", "vxlanMode": "Never"}
        ),
        f"{RESOURCES}/globalnetworkpolicies/web": _document("GlobalNetworkPolicy", "web", policy),
        f"{IPAM}/assignment/ipv4/block/10.65.0.0-26": _block(four, 6, {1: 0, 2: 1, 7: 2}, attributes),
        f"{IPAM}/assignment/ipv6/block/fd00:65::-122": _block(six, 6, {1: 0, 2: 1}, attributes[:2]),
    }
    for family, block in (("ipv4", "10.65.0.0-26"), ("ipv6", "fd00:65::-122")):
        values[f"{IPAM}/host/h1/{family}/block/{block}"] = {"state": "confirmed", "deleted": False}
    for name, owner in owners.items():
        values[f"{IPAM}/handle/{owner}"] = {"block": {four: 1} if name == "w7" else {four: 1, six: 1}, "deleted": False}
    for name in WORKLOADS:
        values[f"{RESOURCES}/workloadendpoints/default/h1-k8s-{name}-eth0"] = _endpoint(name)
    return values


def felix_rules(family: int) -> str:
    """What Felix would have in the four tables, in short: it accepts what the policy accepts. Beside it rules of a stranger's."""
    version = "46"[family == 6]
    icmp = "icmp" if family == 4 else "ipv6-icmp"
    net = "10.1.0.0/24" if family == 4 else "fd01::/64"
    lines = ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":cali-PREROUTING - [0:0]", ":cali-from-host-endpoint - [0:0]"]
    lines += ['-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING']
    lines += [
        "-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000",
        "-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000",
        "COMMIT",
    ]
    lines += ["*mangle", ":PREROUTING ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]", ":cali-PREROUTING - [0:0]", ":cali-POSTROUTING - [0:0]"]
    lines += ['-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING']
    lines += ['-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING']
    lines += ["-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "COMMIT"]
    lines += [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":POSTROUTING ACCEPT [0:0]",
        ":stranger - [0:0]",
        ":cali-POSTROUTING - [0:0]",
        ":cali-nat-outgoing - [0:0]",
    ]
    lines += ['-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING', "-A POSTROUTING -j stranger"]
    lines += ["-A cali-POSTROUTING -j cali-nat-outgoing"]
    if family == 4:
        lines += [
            "-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE"
        ]
    lines += ["COMMIT", "*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":stranger - [0:0]"]
    chains = (
        "FORWARD",
        "from-wl-dispatch",
        "to-wl-dispatch",
        "pi-_web",
        *(f"{way}-cali{name}" for name in WORKLOADS for way in ("tw", "fw")),
    )
    lines += [f":cali-{chain} - [0:0]" for chain in chains]
    lines += [
        '-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD',
        "-A FORWARD -s 192.0.2.0/24 -j stranger" * (family == 4),
    ]
    accepted = "-m mark --mark 0x10000/0x10000 -j ACCEPT"
    lines += [
        f'-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." {accepted}'
    ]
    lines += ["-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000"]
    lines += ["-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch", "-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch"]
    for name in WORKLOADS:
        lines += [
            f"-A cali-from-wl-dispatch -i cali{name} -g cali-fw-cali{name}",
            f"-A cali-to-wl-dispatch -o cali{name} -g cali-tw-cali{name}",
        ]
        lines += [f"-A cali-fw-cali{name} -j MARK --set-xmark 0x10000/0x10000"]
        lines += [
            f"-A cali-tw-cali{name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A cali-tw-cali{name} -j MARK --set-xmark 0x0/0x10000",
        ]
        lines += [
            f"-A cali-tw-cali{name} -j cali-pi-_web",
            f"-A cali-tw-cali{name} -m mark --mark 0x10000/0x10000 -j RETURN",
            f"-A cali-tw-cali{name} -j DROP",
        ]
    lines += ["-A cali-from-wl-dispatch -j DROP", "-A cali-to-wl-dispatch -j DROP"]
    mark = "-j MARK --set-xmark 0x10000/0x10000"
    lines += [f"-A cali-pi-_web -s {net} -p tcp -m multiport --dports 80 {mark}", f"-A cali-pi-_web -p {icmp} {mark}"]
    lines += [f"-A cali-pi-_web -m set --match-set cali{version}0s:clients src {mark}", "COMMIT", ""]
    return "".join(f"{line}\n" for line in lines if line)


@dataclass(slots=True)
class CalicoHost:
    """``open`` makes everything, ``close`` removes it."""

    directory: Path
    bird: str = "enabled = false"
    """``[bird]`` of our agent's configuration."""
    backend: str = "nft"
    """Which iptables Felix has used: ``nft`` or ``legacy``."""
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    etcd: EtcdProcess | None = None
    felix: subprocess.Popen[bytes] | None = None
    agent: subprocess.Popen[bytes] | None = None

    def namespace(self, place: str = "host") -> str:
        return f"tbk-{self.tag}-{place}"

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace()}", *argv]

    def run(self, *argv: str, text: str = "") -> str:
        """The output of a program in the host's network namespace."""
        done = subprocess.run(self.inside(*argv), input=text, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def ip(self, place: str, *commands: str) -> None:
        text = "\n".join(commands) + "\n"
        done = subprocess.run(["ip", "-n", self.namespace(place), "-batch", "-"], input=text, text=True, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr

    # --- made

    def open_network(self) -> None:
        """Namespaces, interfaces, addresses, routes, settings, rules and sets."""
        for place in ("host", "peer", *WORKLOADS):
            netns.create(self.namespace(place))
            self._write(place, "net/ipv6/conf/default/accept_dad", "0")
            self.ip(place, "link set dev lo up")
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/proxy_ndp"):
            self._write("host", key, "1")
        self.ip("host", f"link add eth0 type veth peer name eth0 netns {self.namespace('peer')}", "link set dev eth0 up")
        self.ip("peer", "link set dev eth0 up")
        for place, (v4, v6) in (("host", OUTSIDE), ("peer", PEER)):
            self.ip(place, f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad")
        self.ip("peer", f"route add 10.65.0.0/26 via {OUTSIDE[0]}", f"route add fd00:65::/122 via {OUTSIDE[1]}")
        # Proxy ARP answers for the workloads' gateway because there is a default route; the agent makes it an address.
        self.ip("host", f"route add default via {PEER[0]}", "route add blackhole 10.65.0.0/26 proto bird")
        for name in WORKLOADS:
            self.plug(name)
        self.route_as_felix()
        netns.run_in(self.namespace(), lambda: [create_set(name, family=10 if name.startswith("cali6") else 2) for name in SETS])
        self.install_rules()

    def plug(self, name: str) -> None:
        """A workload, as Calico's CNI plugin makes it."""
        outer, (v4, v6) = f"cali{name}", WORKLOADS[name]
        self.ip("host", f"link add {outer} address {MAC} type veth peer name eth0 netns {self.namespace(name)}", f"link set dev {outer} up")
        for key in ("ipv4/conf/{}/proxy_arp", "ipv4/conf/{}/forwarding", "ipv6/conf/{}/proxy_ndp", "ipv6/conf/{}/forwarding"):
            self._write("host", "net/" + key.format(outer), "1")
        self._write("host", f"net/ipv4/neigh/{outer}/proxy_delay", "0")
        self.ip(name, f"addr add {v4}/32 dev eth0", f"addr add {v6}/128 dev eth0 nodad", "link set dev eth0 up")
        self.ip(name, f"route add {GATEWAY} dev eth0 scope link", f"route add default via {GATEWAY} dev eth0")
        self.ip(name, f"route add default via {LINK_LOCAL} dev eth0")

    def route_as_felix(self) -> None:
        """The routes to the workloads are Felix's."""
        for name, (v4, v6) in WORKLOADS.items():
            self.ip("host", f"route replace {v4} dev cali{name} scope link proto 80", f"route replace {v6} dev cali{name} proto 80")

    def install_rules(self) -> None:
        """Felix's rules are in the kernel, and nothing else in these tables but what ``felix_rules`` has of a stranger's."""
        for program, family in (("iptables", 4), ("ip6tables", 6)):
            self.run(f"{program}-{self.backend}-restore", text=felix_rules(family))

    def open_store(self) -> None:
        """etcd runs and holds what Calico wrote."""
        self.etcd = EtcdProcess(self.directory / "etcd")
        self.etcd.start()
        self.config.write_text(
            f'[agent]\nhost = "h1"\nrun_dir = "{self.directory}/run"\nhttp_address = "127.0.0.1:9091"\n'
            f'[store]\nkind = "etcd"\nendpoints = ["{self.etcd.endpoint}"]\n[bird]\n{self.bird}\n[cni]\nenabled = false\n'
        )

    async def fill_store(self) -> None:
        await self.put(calico_values())

    async def put(self, values: dict[str, Any]) -> None:
        """The values are in etcd, as JSON."""
        assert self.etcd is not None
        store = await open_store(self.etcd.endpoint)
        try:
            for key, value in values.items():
                await store.txn((), [PutOp(key, json.dumps(value).encode())])
        finally:
            await store.close()

    def start_felix(self) -> None:
        """Something runs that calls itself Felix."""
        self.felix = subprocess.Popen(self.inside("bash", "-c", "exec -a calico-felix sleep 600"))

    def stop_felix(self) -> None:
        if self.felix is not None:
            self.felix.kill()
            self.felix.wait()
            self.felix = None

    # --- ours

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    def start_agent(self) -> None:
        (self.directory / "run").mkdir(exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            argv = self.inside(sys.executable, "-m", "tabinet.cli.main", "agent", "--config", str(self.config))
            self.agent = subprocess.Popen(argv, stdout=log, stderr=log)

    def stop_agent(self) -> None:
        if self.agent is not None:
            self.agent.send_signal(signal.SIGTERM)
            self.agent.wait(DEADLINE_S)
            self.agent = None

    def tabinet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = self.inside(sys.executable, "-m", "tabinet.cli.main", *arguments)
        environment = os.environ | {"TABINET_CONFIG": str(self.config)}
        return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=False)

    def survey(self) -> dict[str, Any]:
        """What ``tabinet import`` says."""
        done = self.tabinet("import", "--json")
        assert done.returncode in (0, 1) and done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["well"] is (done.returncode == 0)
        return found

    def until(self, step: str) -> dict[str, Any]:
        """``tabinet import``, once this is the next step."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal found
            assert self.agent is None or self.agent.poll() is None, (self.directory / "log").read_text()
            found = self.survey()
            return bool(found["next"]["step"] == step)

        assert eventually(reached), (found, (self.directory / "log").read_text())
        return found

    def close(self) -> None:
        self.stop_felix()
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
        if self.etcd is not None:
            self.etcd.kill()
        for place in ("host", "peer", *WORKLOADS):
            if netns.exists(self.namespace(place)):
                netns.delete(self.namespace(place))

    def _write(self, place: str, path: str, value: str) -> None:
        netns.run_in(self.namespace(place), lambda: Path("/proc/sys", path).write_text(value))


def eventually(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.1)
    return False


# --- BGP ------------------------------------------------------------------------------------------------------------------

FAR = ("10.99.0.0/24", "10.99.0.1")
"""A prefix that the peer announces, and its address there."""


def bird_config(router: str, neighbour: str, prefix: str, metric: int) -> str:
    """A BIRD as Calico configures it: it keeps routes when it ends, and asks its peers to keep theirs."""
    return f"""
router id {router};
protocol device {{ }}
protocol static {{ ipv4; route {prefix} blackhole; }}
protocol kernel {{ learn; persist; graceful restart; metric {metric}; ipv4 {{ import none; export where proto = "peer"; }}; }}
protocol bgp peer {{
  local {router} as 64512;
  neighbor {neighbour} as 64512;
  graceful restart;
  direct;
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
"""


@dataclass(slots=True)
class Birds:
    """Calico's BIRD on the host, later ours in its place, and the peer's."""

    host: CalicoHost
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ours(self) -> Path:
        """The configuration that our agent writes."""
        return self.host.directory / "tabinet.conf"

    def start(self, name: str, place: str, config: Path, *options: str) -> None:
        base = self.host.directory / name
        argv = ["bird", "-f", "-c", str(config), "-s", f"{base}.ctl", "-P", f"{base}.pid", *options]
        with open(f"{base}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.host.namespace(place)}", *argv], stdout=log, stderr=log
            )

    def open(self) -> None:
        """Both talk, and the kernel has what they learned."""
        self.host.ip("peer", "route del 10.65.0.0/26", f"addr add {FAR[1]}/32 dev lo")
        self.host.ip("host", "route del blackhole 10.65.0.0/26")
        texts = {
            "calico": ("host", bird_config(OUTSIDE[0], PEER[0], "10.65.0.0/26", 0)),
            "peer": ("peer", bird_config(PEER[0], OUTSIDE[0], FAR[0], 0)),
        }
        for name, (place, text) in texts.items():
            config = self.host.directory / f"{name}.conf"
            config.write_text(text)
            self.start(name, place, config)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        for name in list(self.running):
            self.kill(name)
