"""The eleven ways in which policy is asked, and what is different between them.

A *role* is what a list of tiers is for: a workload's ingress, a host endpoint's preDNAT policy, and so on. A *form* is how a policy is
compiled for it; roles that want the same share a policy's chains.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.rules.ir import Basis, Decide, Goto

ACCEPTED = "accepted"
DENY = "deny"
DENY_RAW = "deny_raw"
"""As DENY, for raw chains, where nothing is rejected."""
DROPPED = "dropped"
"""Where packets end that no policy was asked about: spoofed, invalid, or too many. They are never rejected."""
DENIALS = (DENY, DENY_RAW, DROPPED)
"""Chains that nothing comes back from. What goes there is counted by reason where it comes from, and by endpoint in them."""
AFTER_PRE_DNAT = "after_pre_dnat"
UNTRACKED = "untracked"
FAILSAFE_IN = "failsafe_in"
FAILSAFE_OUT = "failsafe_out"


class Form(msgspec.Struct, frozen=True, gc=False):
    """How a policy is compiled."""

    ingress: bool
    """Its ingress rules, else its egress rules."""
    allow: Goto | Decide
    """What Allow means. Decide where more has to be asked afterwards: policies return then, so that each way through the chains ends
    at one chain that asks on. If every Allow led there by itself, the kernel, which looks at every way whenever rules are added, would
    look at all that comes after once for each of them."""
    deny: str = DENY
    basis: Basis = Basis.FLOW
    decides: bool = True
    """A tier that decides nothing has its default action; otherwise it is as if it were not there, and a stage may decide nothing."""
    suffix: str = ""
    """Tells the chains of one policy apart."""


_INGRESS = Form(True, Goto(ACCEPTED))
_EGRESS = Form(False, Decide())
_FROM_HOST = Form(False, Goto(ACCEPTED), suffix="out")


class Role(enum.Enum):
    """What a list of tiers is for; the value is the prefix of its chains' names."""

    TO_WORKLOAD = "ci"
    FROM_WORKLOAD = "ce"
    TO_HOST = "hi"
    FROM_HOST = "he"
    FORWARD_IN = "fi"
    """Came in through a host endpoint and goes on to elsewhere."""
    FORWARD_OUT = "fe"
    PRE_DNAT = "hd"
    UNTRACKED_IN = "ri"
    UNTRACKED_OUT = "re"
    PACKET_TO_WORKLOAD = "pi"
    """As TO_WORKLOAD, for each packet by itself."""
    PACKET_FROM_WORKLOAD = "pe"

    @property
    def form(self) -> Form:
        """How the policies of this role are compiled."""
        return _FORMS[self]

    @property
    def ingress(self) -> bool:
        return _FORMS[self].ingress

    @property
    def asks_profiles(self) -> bool:
        """Without tiers, or when all passed, the profiles decide; otherwise it is allowed, or, if the form does not decide, goes on."""
        return self in _WITH_PROFILES

    @property
    def failsafe(self) -> str:
        """The chain that comes before all policy; empty when there is none."""
        return {Role.TO_HOST: FAILSAFE_IN, Role.FROM_HOST: FAILSAFE_OUT}.get(self, "")


_WITH_PROFILES = frozenset(
    (Role.TO_WORKLOAD, Role.FROM_WORKLOAD, Role.TO_HOST, Role.FROM_HOST, Role.PACKET_TO_WORKLOAD, Role.PACKET_FROM_WORKLOAD)
)
_FORMS = {
    Role.TO_WORKLOAD: _INGRESS,
    Role.FROM_WORKLOAD: _EGRESS,
    Role.TO_HOST: _INGRESS,
    Role.FROM_HOST: _FROM_HOST,
    Role.FORWARD_IN: Form(True, Decide(), suffix="fwd"),
    Role.FORWARD_OUT: _FROM_HOST,
    Role.PRE_DNAT: Form(True, Decide(), basis=Basis.ORIGINAL, decides=False, suffix="pre"),
    Role.UNTRACKED_IN: Form(True, Goto(UNTRACKED), DENY_RAW, Basis.HEADER, False, "raw"),
    Role.UNTRACKED_OUT: Form(False, Goto(UNTRACKED), DENY_RAW, Basis.HEADER, False, "raw"),
    Role.PACKET_TO_WORKLOAD: Form(True, Decide(), basis=Basis.PACKET, suffix="pkt"),
    Role.PACKET_FROM_WORKLOAD: Form(False, Decide(), basis=Basis.PACKET, suffix="pkt"),
}

HOST_MAPS = {
    Role.TO_HOST: "host_in",
    Role.FROM_HOST: "host_out",
    Role.FORWARD_IN: "host_forward_in",
    Role.FORWARD_OUT: "host_forward_out",
    Role.PRE_DNAT: "host_pre_dnat",
    Role.UNTRACKED_IN: "host_raw_in",
    Role.UNTRACKED_OUT: "host_raw_out",
}
"""Maps from a host endpoint's interface to the first chain of each role."""
