"""Endpoint classes, tiers and policies as chains, shared by whoever has the same.

A *stage* is an endpoint's ordered policy in one role: its tiers, then its profiles. Endpoints with equal stages share the stage's chain. It
jumps to one chain for each tier, shared by all stages with that tier; that jumps to one chain for each policy, shared by all tiers, or
finds by protocol and port those that a packet can concern (``rules.dispatch``).
Chains exist exactly as long as an interface needs them.

Deny leaves by Goto and never comes back, and so does Allow where nothing else has to be asked (``Form.allow``); elsewhere it comes back as
decided through all levels. Pass comes back from the tier's chain into the stage's, to the next tier; nftables returns only one
level, so that the rules of a policy with Pass stand in the tier's chain itself. In this way the nesting of chains does not grow with the
number of tiers: the kernel allows 15, and counts Goto as it counts Jump (net/netfilter/nf_tables_api.c, nft_chain_validate).

``acquire``, ``release``, ``put_policy`` and ``settle`` cost what they change. What a policy's change can revoke is in ``revokes``.
A policy that is not known denies; a profile that is not known says nothing, so that the next profile is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import Action, Policy, Rule, TierPolicies
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir, names
from tabinet.rules.chainstore import ChainStore
from tabinet.rules.dispatch import EVERYTHING, Asked, Reach, reach_of
from tabinet.rules.edit import TableEdit
from tabinet.rules.options import TableOptions
from tabinet.rules.policy import Program, SetShape, Targets, compile_policy, has_pass, missing_rule, rules_of, shortened
from tabinet.rules.revocation import Polarity, only_adds, polarities
from tabinet.rules.roles import Form, Role
from tabinet.rules.tiers import asked_in_turn, tier_program

PROFILE = "Profile"


class Stage(msgspec.Struct, frozen=True, gc=False):
    """An endpoint's policy in one role."""

    role: Role
    tiers: tuple[TierPolicies, ...]
    profiles: tuple[str, ...]

    @property
    def chain(self) -> str:
        """The name of the stage's chain."""
        return names.stage_chain(self, self.role.value)

    @property
    def tier_refs(self) -> list[TierRef]:
        """Its tiers, in order."""
        return [TierRef(self.role.form, tier) for tier in self.tiers]

    @property
    def profile_refs(self) -> list[Ref]:
        """The profiles that it asks, in order."""
        return [Ref(self.role.form, ResourceKey(PROFILE, name)) for name in self.profiles] if self.role.asks_profiles else []


class TierRef(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """A tier in one form."""

    form: Form
    tier: TierPolicies

    @property
    def chain(self) -> str:
        """The name of the tier's chain."""
        return names.stage_chain(self, f"t{names.direction_letter(self.form.ingress)}")

    @property
    def policy_refs(self) -> list[Ref]:
        """What it asks, in order."""
        return [Ref(self.form, key) for key in self.tier.policies]


class Ref(msgspec.Struct, frozen=True, gc=False):
    """A policy or profile in one form."""

    form: Form
    key: ResourceKey

    @property
    def chain(self) -> str:
        """The name of its chain, if it has one."""
        return names.policy_chain(self.key, self.form.ingress, self.form.suffix)


@dataclass(slots=True)
class _LiveStage:
    chain: str
    users: int = 0
    """How many interfaces."""
    present: bool = False
    """Its chains are in the table."""


@dataclass(slots=True)
class _LivePolicy:
    """A policy that a tier or stage asks."""

    users: int = 0
    tiers: set[TierRef] = field(default_factory=set)
    passes: bool = False
    program: Program = field(default_factory=Program)
    """With ``passes``: what its tiers have to hold."""
    reach: Reach = EVERYTHING
    """What its rules can match."""
    settled: bool = False
    """It was in the table at the last flush; then ``rules`` and ``denies`` say what it was."""
    rules: tuple[Rule, ...] = ()
    denies: bool = False
    uses: dict[str, Polarity] = field(default_factory=dict)


@dataclass(slots=True)
class _Uses:
    """How the rules in the table use one set."""

    refs: set[Ref] = field(default_factory=set)
    growing_revokes: int = 0
    shrinking_revokes: int = 0


@dataclass(slots=True)
class Classes:
    """All stages, tiers, policies and constant sets in use."""

    options: TableOptions
    shape_of: Callable[[str], SetShape | None]
    policies: dict[ResourceKey, Policy] = field(default_factory=dict)
    """Every announced policy and profile, used or not."""
    revokes: bool = False
    """A change since the last ``settle`` began may have taken a permission away."""
    _stages: dict[Stage, _LiveStage] = field(default_factory=dict)
    _tiers: dict[TierRef, int] = field(default_factory=dict)
    """How many stages use each."""
    _live: dict[Ref, _LivePolicy] = field(default_factory=dict)
    _forms: dict[ResourceKey, set[Ref]] = field(default_factory=dict)
    """The live ones of each policy."""
    _uses: dict[str, _Uses] = field(default_factory=dict)
    _chains: ChainStore = field(default_factory=ChainStore)
    _dirty_stages: dict[Stage, None] = field(default_factory=dict)
    _dirty_tiers: dict[TierRef, None] = field(default_factory=dict)
    _dirty_policies: dict[Ref, None] = field(default_factory=dict)

    # --- what changes ---

    def put_policy(self, key: ResourceKey, policy: Policy | None) -> None:
        """The policy is announced with this content; None: it is not announced any more."""
        if self.policies.get(key) == policy:
            return
        if policy is None:
            del self.policies[key]
        else:
            self.policies[key] = policy
        self._mark_policies(self._forms.get(key, ()))

    def set_moved(self, set_id: str, *, grew: bool, shrank: bool, reshaped: bool) -> None:
        """A set changed. Called before policies change in the same flush."""
        uses = self._uses.get(set_id)
        if uses is None:
            return
        if (grew and uses.growing_revokes) or (shrank and uses.shrinking_revokes):
            self.revokes = True
        if reshaped:
            self._mark_policies(uses.refs)

    def acquire(self, stage: Stage) -> str:
        """One more user of the stage; gives its chain. The chain is in the table after the next ``settle``."""
        live = self._stages.get(stage)
        if live is None:
            live = self._stages[stage] = _LiveStage(stage.chain)
            self._dirty_stages[stage] = None
        live.users += 1
        return live.chain

    def release(self, stage: Stage) -> None:
        """One user less."""
        live = self._stages[stage]
        live.users -= 1
        if not live.users:
            self._dirty_stages[stage] = None

    # --- one flush ---

    def settle(self, edit: TableEdit) -> None:
        """The table holds exactly the chains that are in use, as the announced policies and sets want them."""
        dirty, self._dirty_stages = self._dirty_stages, {}
        for stage in dirty:  # what comes before what goes: they may share tiers
            live = self._stages[stage]
            if live.users and not live.present:
                live.present = True
                self._come(stage, live.chain, edit)
        for stage in dirty:
            live = self._stages[stage]
            if not live.users:
                del self._stages[stage]
                if live.present:
                    self._go(stage, live.chain, edit)
        for ref in self._dirty_policies:
            if ref in self._live:
                self._write_policy(ref, edit)
        self._dirty_policies.clear()
        for tier in self._dirty_tiers:
            if tier in self._tiers:
                self._write_tier(tier, edit)
        self._dirty_tiers.clear()

    def widens(self, old: Stage, new: Stage) -> bool:
        """True when ``new`` certainly allows all that ``old`` allowed at the last flush. Called before ``settle``."""
        if old == new:
            return True
        if len(old.tiers) != len(new.tiers) or not old.tiers or old.profiles != new.profiles:
            return False
        for before, after in zip(old.tier_refs, new.tier_refs, strict=True):
            if before.tier.default_action is not after.tier.default_action:
                return False
            was = self._settled_rules(before.policy_refs)
            now = self._announced_rules(after.form.ingress, after.tier.policies)
            if was is None or now is None or not only_adds(was, now):
                return False
        return True

    # --- stages and tiers ---

    def _come(self, stage: Stage, chain: str, edit: TableEdit) -> None:
        for tier in stage.tier_refs:
            if tier not in self._tiers:
                self._dirty_tiers[tier] = None
                for ref in tier.policy_refs:
                    self._hold_policy(ref).tiers.add(tier)
            self._tiers[tier] = self._tiers.get(tier, 0) + 1
        for ref in stage.profile_refs:
            self._hold_policy(ref)
        self._chains.put(edit, chain, Program(_stage_rules(stage)), stage.role.form.basis)

    def _go(self, stage: Stage, chain: str, edit: TableEdit) -> None:
        self._chains.drop(edit, chain)
        for ref in stage.profile_refs:
            self._let_go_of_policy(ref, edit)
        for tier in stage.tier_refs:
            self._tiers[tier] -= 1
            if self._tiers[tier]:
                continue
            del self._tiers[tier]
            self._chains.drop(edit, tier.chain)
            for ref in tier.policy_refs:
                self._live[ref].tiers.discard(tier)
                self._let_go_of_policy(ref, edit)

    def _write_tier(self, ref: TierRef, edit: TableEdit) -> None:
        asked = [(policy.chain, self._live[policy]) for policy in ref.policy_refs]
        reaches = [Asked(chain, EVERYTHING if self._asks_all(ref.form, live) else live.reach) for chain, live in asked]
        inlined = {chain: live.program for chain, live in asked if live.passes}
        program = tier_program(ref.chain, ref.form, reaches, inlined, self.options.dispatch_from)
        if ref.form.decides and ref.tier.default_action is not Action.PASS:
            comment = shortened(f"end of tier {ref.tier.tier}", "")
            program.rules.append(ir.Rule(ir.Goto(ref.form.deny), counter=True, comment=comment))
        self._chains.put(edit, ref.chain, program, ref.form.basis)

    def _asks_all(self, form: Form, live: _LivePolicy) -> bool:
        """True when the policy has to be asked of every packet. Of a packet that is a fragment nobody knows the port before tracking."""
        return live.passes or form.basis is ir.Basis.HEADER

    # --- policies ---

    def _mark_policies(self, refs: Iterable[Ref]) -> None:
        self._dirty_policies.update(dict.fromkeys(sorted(refs, key=_ref_order)))

    def _hold_policy(self, ref: Ref) -> _LivePolicy:
        live = self._live.get(ref)
        if live is None:
            live = self._live[ref] = _LivePolicy()
            self._forms.setdefault(ref.key, set()).add(ref)
            self._dirty_policies[ref] = None
        live.users += 1
        return live

    def _let_go_of_policy(self, ref: Ref, edit: TableEdit) -> None:
        live = self._live[ref]
        live.users -= 1
        if live.users:
            return
        self._chains.drop(edit, ref.chain)
        self._index_uses(ref, live, {})
        del self._live[ref]
        self._forms[ref.key].discard(ref)
        if not self._forms[ref.key]:
            del self._forms[ref.key]

    def _write_policy(self, ref: Ref, edit: TableEdit) -> None:
        live, form = self._live[ref], ref.form
        policy = self.policies.get(ref.key)
        rules = () if policy is None else rules_of(policy, form.ingress)
        is_profile = ref.key.kind == PROFILE
        passes, denies = not is_profile and has_pass(rules), False
        targets = Targets(allow=form.allow, passing=ir.Return() if passes else ir.Goto(form.deny), deny=form.deny)
        program: Program | None = Program()
        if policy is not None:
            program = compile_policy(ref.key, form.ingress, rules, self.shape_of, targets, self.options)
        if program is None or (policy is None and not is_profile):
            program, denies = Program([missing_rule(ref.key, form.ingress, form.deny)]), True
        reach = reach_of(program.rules, {name: constant.elements for name, constant in program.constants.items()})
        if passes or live.passes or reach != live.reach:
            self._dirty_tiers.update(dict.fromkeys(live.tiers))
        live.passes, live.program, live.reach = passes, program if passes else Program(), reach
        if passes:
            self._chains.drop(edit, ref.chain)
        else:
            self._chains.put(edit, ref.chain, program, form.basis)
        if live.settled and not live.denies and (denies or not only_adds(live.rules, rules)):
            self.revokes = True
        live.settled, live.rules, live.denies = True, rules, denies
        self._index_uses(ref, live, polarities(rules))

    def _settled_rules(self, refs: Iterable[Ref]) -> list[Rule] | None:
        found: list[Rule] = []
        for ref in refs:
            live = self._live.get(ref)
            if live is None or not live.settled or live.denies:
                return None
            found += live.rules
        return found

    def _announced_rules(self, ingress: bool, keys: Iterable[ResourceKey]) -> list[Rule] | None:
        found: list[Rule] = []
        for key in keys:
            policy = self.policies.get(key)
            if policy is None or any(self.shape_of(set_id) is None for set_id in polarities(rules_of(policy, ingress))):
                return None
            found += rules_of(policy, ingress)
        return found

    def _index_uses(self, ref: Ref, live: _LivePolicy, uses: dict[str, Polarity]) -> None:
        if uses == live.uses:
            return
        for set_id, polarity in live.uses.items():
            index = self._uses[set_id]
            index.refs.discard(ref)
            index.growing_revokes -= polarity.growing_revokes
            index.shrinking_revokes -= polarity.shrinking_revokes
            if not index.refs:
                del self._uses[set_id]
        for set_id, polarity in uses.items():
            index = self._uses.setdefault(set_id, _Uses())
            index.refs.add(ref)
            index.growing_revokes += polarity.growing_revokes
            index.shrinking_revokes += polarity.shrinking_revokes
        live.uses = uses


def _stage_rules(stage: Stage) -> list[ir.Rule]:
    role = stage.role
    rules = [ir.Rule(ir.Jump(role.failsafe))] if role.failsafe else []
    rules += asked_in_turn([*(tier.chain for tier in stage.tier_refs), *(ref.chain for ref in stage.profile_refs)], role.form)
    if role.asks_profiles:
        rules.append(ir.Rule(ir.Goto(role.form.deny), counter=True, comment="no profile allows it"))
    elif role.form.decides:
        rules.append(ir.Rule(role.form.allow))
    return rules


def _ref_order(ref: Ref) -> tuple[bool, str, ResourceKey]:
    return ref.form.ingress, ref.form.suffix, ref.key
