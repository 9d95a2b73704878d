"""What this kernel can do of what Tabinet needs, found by trying it.

``probe`` makes a network namespace without a name, tries there the very operations that the dataplane will ask for, and lets it go: the
machine's own namespaces see nothing of it, and modules that the kernel loads on demand are loaded. ``require`` turns what is missing into
one line that says what to do. Cost: some tens of milliseconds, once.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import msgspec

from tabinet.errors import KernelError, SetupError
from tabinet.kernel import netns, nftexpr
from tabinet.kernel.nftables import AddChain, AddElements, AddRule, AddSet, AddTable, Element, Hook, NftOp
from tabinet.kernel.nftexpr import Ct, CtDirection, Datatype, Verdict, reg, set_spec
from tabinet.kernel.nftsocket import NftSocket, open_nftables
from tabinet.kernel.rtnetlink import AddAddress, AddVeth, AddVlan, InterfaceAddress, SetLink, execute_all
from tabinet.kernel.rtsocket import RtSocket, open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl, ensure
from tabinet.lib.ip import parse_address


class Feature(msgspec.Struct, frozen=True):
    """Something that the kernel must let us do."""

    name: str
    present: bool
    why_needed: str
    what_to_do: str
    """For whoever runs the machine, when it is not present."""
    error: str = ""
    """What the kernel said; empty when it is present."""
    optional: bool = False
    """Without it a host can do all but what ``why_needed`` says."""


class _Trial(msgspec.Struct, frozen=True):
    name: str
    why_needed: str
    what_to_do: str
    attempt: Callable[[], object]
    optional: bool = False


def probe() -> list[Feature]:
    """Every feature, in the order of the trials. Without the right to make a namespace only that is listed: nothing else can be tried."""
    namespace = _Trial(
        "network namespaces",
        "policy and routes are tried out in one, and workloads and labs live in them",
        "run as root (CAP_NET_ADMIN and CAP_SYS_ADMIN); the kernel needs CONFIG_NET_NS",
        lambda: None,
    )
    try:
        tried = netns.run_in_new(_try_all)
    except KernelError as error:
        return [_judge(namespace, error)]
    return [_judge(namespace, None), *tried]


def require(features: list[Feature]) -> None:
    """All features that no host can do without are present.

    Raises:
        SetupError: one line that names what is missing and says what to do about the first of it.
    """
    missing = [feature for feature in features if not feature.present and not feature.optional]
    if missing:
        first = missing[0]
        others = f"; also missing: {', '.join(feature.name for feature in missing[1:])}" if len(missing) > 1 else ""
        raise SetupError(f"this kernel does not let us use {first.name} ({first.error}): {first.what_to_do}{others}")


def _judge(trial: _Trial, error: KernelError | None) -> Feature:
    return Feature(trial.name, error is None, trial.why_needed, trial.what_to_do, str(error) if error else "", trial.optional)


def _try_all() -> list[Feature]:
    """Runs in the new namespace."""
    features: list[Feature] = []
    rtnetlink = open_rtnetlink()
    nftables: NftSocket | None = None
    try:
        trials = _link_trials(rtnetlink)
        try:
            nftables = open_nftables("tabinet-probe")
            trials += _nftables_trials(nftables)
        except KernelError as error:
            features.append(_judge(_nf_tables(lambda: None), error))
        for trial in trials:
            try:
                trial.attempt()
            except KernelError as error:
                features.append(_judge(trial, error))
            else:
                features.append(_judge(trial, None))
    finally:
        rtnetlink.close()
        if nftables is not None:
            nftables.close()
    return features


def _link_trials(rtnetlink: RtSocket) -> list[_Trial]:
    def veth() -> None:
        execute_all(rtnetlink, [AddVeth("probe0", "probe1")])

    def ipv6() -> None:
        execute_all(rtnetlink, [SetLink(1, up=True), AddAddress(InterfaceAddress(1, parse_address("fd00::1"), 128))])

    def multipath() -> None:
        ensure(ProcSysctl(), "net/ipv4/fib_multipath_hash_policy", "1")

    def vlan() -> None:
        parent = next(link.index for link in rtnetlink.links() if link.name == "probe0")  # which the first trial made; lo takes none
        execute_all(rtnetlink, [AddVlan("probe2", parent, 7)])

    return [
        _Trial("veth interfaces", "a workload in a namespace is attached by one", "load the module veth (CONFIG_VETH)", veth),
        _Trial("IPv6", "workloads have addresses of both families", "do not boot with ipv6.disable=1; the kernel needs CONFIG_IPV6", ipv6),
        _Trial("multipath routing", "traffic uses all uplinks", "the kernel needs CONFIG_IP_ROUTE_MULTIPATH", multipath),
        _Trial("VLAN interfaces", "subports of trunks need them", "load the module 8021q (CONFIG_VLAN_8021Q)", vlan, optional=True),
    ]


def _nf_tables(attempt: Callable[[], object]) -> _Trial:
    return _Trial(
        "nf_tables", "policy is programmed as a table of it", "load the module nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)", attempt
    )


def _nftables_trials(nftables: NftSocket) -> list[_Trial]:
    def attempt(*operations: NftOp) -> Callable[[], None]:
        return lambda: nftables.commit([AddTable(), AddChain("probe"), *operations])

    address = bytes((10, 0, 0, 1))
    pair = set_spec(Datatype.IFNAME, Datatype.IPV4_ADDR, size=16)
    ranges = set_spec(Datatype.IPV4_ADDR, Datatype.INET_PROTO, Datatype.INET_SERVICE, interval=True)
    first = nftexpr.key(address, b"\6", nftexpr.port(80))
    by_name = Element(nftexpr.ifname("probe0"), verdict=Verdict.GOTO, chain="target")
    original = [nftexpr.ct(Ct.SRC_IP, reg(0), CtDirection.ORIGINAL), nftexpr.compare(reg(0), nftexpr.Compare.EQ, address)]
    mark = [
        nftexpr.ct(Ct.MARK, reg(0)),
        nftexpr.bitwise(reg(0), reg(0), nftexpr.host32(0xFF), nftexpr.host32(0)),
        nftexpr.ct_set(Ct.MARK, reg(0)),
    ]
    routed = [nftexpr.fib_source_interface(reg(0)), nftexpr.compare(reg(0), nftexpr.Compare.EQ, nftexpr.ifname_prefix("probe"))]
    learned = [nftexpr.meta(nftexpr.Meta.IIFNAME, reg(0)), nftexpr.limit_by_key("learned", reg(0), 1), nftexpr.remember("learned", reg(0))]
    logged = [nftexpr.counter(), nftexpr.nflog("probe", 1)]
    return [
        _nf_tables(attempt(AddChain("forward", Hook(hook=2, priority=0)))),
        _Trial(
            "nf_tables concatenated sets",
            "source addresses are checked by interface and address in one lookup",
            "use Linux 4.1 or later",
            attempt(AddSet("pair", pair), AddElements("pair", (Element(nftexpr.key(nftexpr.ifname("probe0"), address)),))),
        ),
        _Trial(
            "nf_tables concatenated ranges",
            "rules for ranges of addresses and ports share one lookup",
            "use Linux 5.6 or later",
            attempt(AddSet("ranges", ranges), AddElements("ranges", (Element(first, end=first),))),
        ),
        _Trial(
            "nf_tables verdict maps",
            "an interface leads to its policy in one lookup",
            "use Linux 3.13 or later",
            attempt(
                AddChain("target"), AddSet("map", set_spec(Datatype.IFNAME, size=16, verdict_map=True)), AddElements("map", (by_name,))
            ),
        ),
        _Trial(
            "nf_tables sets that count",
            "denied packets are counted by endpoint",
            "use Linux 5.7 or later",
            attempt(
                AddSet("counted", set_spec(Datatype.IFNAME, size=16, counted=True)),
                AddElements("counted", (Element(nftexpr.ifname("probe0")),)),
            ),
        ),
        _Trial(
            "nf_tables for ARP",
            "workloads claim no addresses but their own",
            "load the module nf_tables with CONFIG_NF_TABLES_ARP",
            attempt(AddChain("arp_probe", Hook(hook=0, priority=0))),
        ),
        _Trial(
            "nf_tables sets that packets fill",
            "no workload fills the host's tables of neighbours",
            "use Linux 4.18 or later",
            attempt(
                AddSet("learned", set_spec(Datatype.IFNAME, size=16, forget_s=60)),
                AddRule("probe", nftexpr.rule(*learned), sets=("learned",)),
            ),
        ),
        _Trial(
            "nf_tables connection tracking",
            "established flows pass, and policy judges by the tuple that a flow began with",
            "load the modules nft_ct and nf_conntrack (CONFIG_NFT_CT, CONFIG_NF_CONNTRACK, CONFIG_NF_CONNTRACK_MARK)",
            attempt(AddRule("probe", nftexpr.rule(*original)), AddRule("probe", nftexpr.rule(*mark))),
        ),
        _Trial(
            "nf_tables route lookup",
            "addresses of workloads are protected as long as they are routed to this host's interfaces",
            "load the module nft_fib_inet (CONFIG_NFT_FIB_INET)",
            attempt(AddRule("probe", nftexpr.rule(*routed))),
        ),
        _Trial(
            "nf_tables logging",
            "rules with the action Log log",
            "load the module nft_log (CONFIG_NFT_LOG)",
            attempt(AddRule("probe", nftexpr.rule(*logged))),
        ),
    ]


def lacks_privilege(features: list[Feature]) -> bool:
    """True when it is the process, not the kernel, that lacks something."""
    return len(features) == 1 and f"errno {errno.EPERM}" in features[0].error
