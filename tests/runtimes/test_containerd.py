"""Real containerd: ``ctr run --cni``, and the calls that Kubernetes' kubelet makes. Skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cni_host import NOTHING, CniHost
from containerd_host import IMAGE, MISSING, NETWORK, ContainerdHost

from tabinet.attach.cni.install import network_list

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; scripts/setup-runtimes does that"),
]
POLICY = (
    "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: "
    "{selector: app == 'web', types: [Ingress], ingress: [{action: Allow, source: {selector: team == 'a'}}]}}"
)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerdHost]:
    directory = tmp_path_factory.mktemp("containerd")
    network = network_list(NETWORK, portmap=False)
    network["plugins"][0] |= {"label_annotations": ["team"]}
    network["plugins"][0]["capabilities"] |= {"io.kubernetes.cri.pod-annotations": True}
    made = ContainerdHost(CniHost(directory / "host"), directory / "containerd", network)
    try:
        made.open()
        yield made
    finally:
        made.close()


def test_pods_under_policy_with_labels_from_annotations(containerd: ContainerdHost) -> None:
    policy = containerd.directory / "policy.yaml"
    policy.write_text(POLICY)
    containerd.host.tabinet("apply", "-f", str(policy))
    cri = containerd.cri
    assert cri is not None
    web = cri.run_pod("web", annotations={"tabinet.io/labels": "app=web", "cni.projectcalico.org/ipAddrs": '["10.65.7.7"]'})
    client = cri.run_pod("client", annotations={"team": "a"})
    other = cri.run_pod("other", annotations={"team": "b"})
    assert web.address == "10.65.7.7"
    assert cri.reaches(client, web.address)
    assert not cri.reaches(other, web.address)
    found = {item["metadata"]["name"]: item["spec"] for item in containerd.host.endpoints()}
    assert found["h1-k8s-web-eth0"]["containerID"] == web.sandbox
    for pod in (web, client, other):
        cri.remove_pod(pod)
    assert containerd.host.leftovers() == NOTHING


def test_containers_of_ctr(containerd: ContainerdHost) -> None:
    for name in ("one", "two"):
        containerd.ctr("run", "-d", "--cni", "--snapshotter", "native", IMAGE, name, "/bin/sleep", "600")
    addresses = {item["spec"]["containerID"]: item["spec"]["ipNetworks"][0].partition("/")[0] for item in containerd.host.endpoints()}
    assert set(addresses) == {"default-one", "default-two"}
    pinged = containerd.ctr(
        "task", "exec", "--exec-id", "p", "one", "/bin/ping", "-c", "1", "-W", "1", addresses["default-two"], check=False
    )
    assert pinged.returncode == 0, pinged
    for name in ("one", "two"):
        containerd.ctr("task", "rm", "-f", name)
        containerd.ctr("container", "rm", name)
    # ctr itself calls no plugin when a container ends that was left to run alone, so its network is collected.
    gone = {"cniVersion": "1.1.0", "name": NETWORK, "type": "tabinet-cni", "cni.dev/valid-attachments": []}
    assert containerd.host.call("GC", gone).code == 0
    assert containerd.host.leftovers() == NOTHING
