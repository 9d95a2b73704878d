"""CHECK: what was attached is still as it was told. Nothing is changed.

In: a call with the result of its ADD. Out: nothing, or the first thing that is not so (code 101).
"""

from __future__ import annotations

from typing import Any

from tabinet.attach.cni.protocol import Call, Code, parse_result
from tabinet.attach.cni.values import parse_addresses
from tabinet.attach.names import Workload
from tabinet.attach.network import Network
from tabinet.attach.ready import LocalAgent, judge_status
from tabinet.attach.steps import in_thread
from tabinet.errors import CniError
from tabinet.ipam.client import IpamClient
from tabinet.lib.ip import Prefix
from tabinet.model.codec import decode_document
from tabinet.model.keys import path_of
from tabinet.model.status import status_path_of
from tabinet.store.api import Datastore, GetOp


async def check_attached(
    call: Call, workload: Workload, store: Datastore, network: Network, netns: str, agent: LocalAgent | None = None
) -> None:
    """Endpoint, policy, interface and addresses are as the previous result says.

    Raises:
        CniError: they are not.
    """
    expected = _expected(call)
    found = await store.txn([], [GetOp(path_of(workload.key)), GetOp(status_path_of(workload.status_key))])
    stored, status = found.values
    if stored is None:
        raise CniError(Code.CHECK, f"{workload.key} does not exist")
    spec: dict[str, Any] = decode_document(stored.value, stored.key).get("spec") or {}
    if spec.get("containerID") != call.container:
        raise CniError(Code.CHECK, f"{workload.key}: containerID is {spec.get('containerID')!r}, not {call.container!r}")
    known = set(parse_addresses(str(workload.key), spec.get("ipNetworks") or ()))
    if missing := [address.address for address in expected if address not in known]:
        raise CniError(Code.CHECK, f"{workload.key} has not {', '.join(missing)}")
    # What the store says of it comes a moment after an ADD has returned.
    reason = judge_status(status, stored.revision) if agent is None else agent.missing(workload.key, stored.revision)
    if reason:
        raise CniError(Code.CHECK, f"{workload.key} is not in the kernel: {reason}")
    if not netns:
        raise CniError(Code.CONTAINER, f"CNI_NETNS: got {call.netns!r}; there is no network namespace")
    inside = await in_thread(lambda: _addresses_inside(network, netns, call.interface))
    if inside is None:
        raise CniError(Code.CHECK, f"there is no interface {call.interface} in the container")
    if missing := [address.address for address in expected if address not in inside]:
        raise CniError(Code.CHECK, f"interface {call.interface} has not {', '.join(missing)}")


async def check_assigned(call: Call, ipam: IpamClient, handle: str) -> None:
    """The addresses of the previous result are the call's.

    Raises:
        CniError: they are not.
    """
    owned = await ipam.owned(handle)
    if missing := [address.address for address in _expected(call) if address not in owned]:
        raise CniError(Code.CHECK, f"not assigned to {handle}: {', '.join(missing)}")


def _expected(call: Call) -> tuple[Prefix, ...]:
    """What the previous result says of this interface; of results without interfaces, everything."""
    before = call.config.get("prevResult")
    if before is None:
        raise CniError(Code.CONFIG, "prevResult: missing, and CHECK needs it")
    result = parse_result(before)
    mine = [index for index, found in enumerate(result.interfaces) if found.name == call.interface and found.sandbox]
    told = [entry.address for entry in result.ips if entry.interface is None or not mine or entry.interface in mine]
    return parse_addresses("prevResult.ips", told)


def _addresses_inside(network: Network, netns: str, interface: str) -> set[Prefix] | None:
    """The addresses of an interface in a namespace; None: there is no such interface."""

    def work(rtnetlink: Any, _: object) -> set[Prefix] | None:
        link = rtnetlink.link(interface)
        return None if link is None else {each.address for each in rtnetlink.addresses() if each.index == link.index}

    return network.inside(netns, work)
