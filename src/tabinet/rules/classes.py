"""Endpoint classes and policies as chains, shared by whoever has the same.

A *stage* is what is left of an endpoint's ordered policy in one role: its tiers from one on, then its profiles. Endpoints with equal
stages share the chain, and classes with equal ends share the stages of the end. A policy has one chain for each form in which it is
asked (``rules.roles``); if it contains Pass, one for each stage that its Pass leads to. Chains exist exactly as long as an interface
needs them.

``acquire``, ``release``, ``put_policy`` and ``settle`` cost what they change. What a policy's change can revoke is in ``revokes``.
A policy that is not known denies; a profile that is not known says nothing, so that the next profile is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import Action, Policy, Rule, TierPolicies
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir, names
from tabinet.rules.edit import TableEdit
from tabinet.rules.options import TableOptions
from tabinet.rules.policy import Constant, Program, SetShape, Targets, compile_policy, has_pass, missing_rule, rules_of, shortened
from tabinet.rules.revocation import Polarity, only_adds, polarities
from tabinet.rules.roles import Form, Role

PROFILE = "Profile"


class Stage(msgspec.Struct, frozen=True, gc=False):
    """What is left of an endpoint's policy in one role."""

    role: Role
    tiers: tuple[TierPolicies, ...]
    profiles: tuple[str, ...]

    @property
    def chain(self) -> str:
        """The name of the stage's chain."""
        return names.stage_chain(self, self.role.value)

    @property
    def ingress(self) -> bool:
        return self.role.ingress

    @property
    def rest(self) -> Stage:
        """The stage after the first tier."""
        return Stage(self.role, self.tiers[1:], self.profiles)

    @property
    def policies(self) -> tuple[ResourceKey, ...]:
        """What this stage asks, in order."""
        if self.tiers:
            return self.tiers[0].policies
        return tuple(ResourceKey(PROFILE, name) for name in self.profiles) if self.role.asks_profiles else ()

    def ref(self, key: ResourceKey) -> Ref:
        """The policy as this stage asks it."""
        return Ref(self.role.form, key)


class Ref(msgspec.Struct, frozen=True, gc=False):
    """A policy or profile in one form."""

    form: Form
    key: ResourceKey

    @property
    def ingress(self) -> bool:
        return self.form.ingress


@dataclass(slots=True)
class _LiveStage:
    chain: str
    users: int = 0
    holds_rest: bool = False


@dataclass(slots=True)
class _LivePolicy:
    """A policy that a stage asks."""

    stages: set[Stage] = field(default_factory=set)
    chains: set[str] = field(default_factory=set)
    passes: bool = False
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
    """All stages, policies and constant sets in use."""

    options: TableOptions
    shape_of: Callable[[str], SetShape | None]
    policies: dict[ResourceKey, Policy] = field(default_factory=dict)
    """Every announced policy and profile, used or not."""
    revokes: bool = False
    """A change since the last ``settle`` began may have taken a permission away."""
    _stages: dict[Stage, _LiveStage] = field(default_factory=dict)
    _live: dict[Ref, _LivePolicy] = field(default_factory=dict)
    _forms: dict[ResourceKey, set[Ref]] = field(default_factory=dict)
    """The live ones of each policy."""
    _uses: dict[str, _Uses] = field(default_factory=dict)
    _constants: dict[str, int] = field(default_factory=dict)
    _chain_constants: dict[str, frozenset[str]] = field(default_factory=dict)
    _dirty_stages: dict[Stage, None] = field(default_factory=dict)
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
        self._dirty_policies.update(dict.fromkeys(sorted(self._forms.get(key, ()), key=_ref_order)))

    def set_moved(self, set_id: str, *, grew: bool, shrank: bool, reshaped: bool) -> None:
        """A set changed. Called before policies change in the same flush."""
        uses = self._uses.get(set_id)
        if uses is None:
            return
        if (grew and uses.growing_revokes) or (shrank and uses.shrinking_revokes):
            self.revokes = True
        if reshaped:
            self._dirty_policies.update(dict.fromkeys(sorted(uses.refs, key=_ref_order)))

    def acquire(self, stage: Stage) -> str:
        """One more user of the stage; gives its chain. The chain is in the table after the next ``settle``."""
        live = self._stages.get(stage)
        if live is None:
            live = self._stages[stage] = _LiveStage(stage.chain)
            self._dirty_stages[stage] = None
            for key in stage.policies:
                ref = stage.ref(key)
                self._live.setdefault(ref, _LivePolicy()).stages.add(stage)
                self._forms.setdefault(key, set()).add(ref)
                self._dirty_policies[ref] = None
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
        for ref in self._dirty_policies:
            self._refresh_passes(ref)
        touched = self._settle_stages(edit)
        for ref in self._dirty_policies:
            if ref in self._live:
                self._write_policy(ref, edit)
        self._dirty_policies.clear()
        for stage in touched:
            self._put_chain(edit, self._stages[stage].chain, Program(self._stage_rules(stage)), stage.role.form.basis)

    def widens(self, old: Stage, new: Stage) -> bool:
        """True when ``new`` certainly allows all that ``old`` allowed at the last flush. Called before ``settle``."""
        if old == new:
            return True
        if len(old.tiers) != len(new.tiers) or not old.tiers or old.profiles != new.profiles:
            return False
        for before, after in zip(old.tiers, new.tiers, strict=True):
            if before.default_action is not after.default_action:
                return False
            was = self._settled_rules(old, before.policies)
            now = self._announced_rules(new.ingress, after.policies)
            if was is None or now is None or not only_adds(was, now):
                return False
        return True

    # --- inside ---

    def _settle_stages(self, edit: TableEdit) -> dict[Stage, None]:
        """Stages hold what they lead to and unused ones are gone; gives those whose chain is to be written."""
        touched: dict[Stage, None] = {}
        while self._dirty_stages:
            batch, self._dirty_stages = self._dirty_stages, {}
            unused: list[Stage] = []
            for stage in batch:
                if self._stages[stage].users:
                    self._hold_rest(stage)
                    touched[stage] = None
                else:
                    unused.append(stage)
            if self._dirty_stages:  # stages that came may share an end with stages that go
                self._dirty_stages.update(dict.fromkeys(unused))
                continue
            for stage in unused:
                touched.pop(stage, None)
                self._drop_stage(stage, edit)
        return touched

    def _settled_rules(self, stage: Stage, keys: tuple[ResourceKey, ...]) -> list[Rule] | None:
        found: list[Rule] = []
        for key in keys:
            live = self._live.get(stage.ref(key))
            if live is None or not live.settled or live.denies:
                return None
            found += live.rules
        return found

    def _announced_rules(self, ingress: bool, keys: tuple[ResourceKey, ...]) -> list[Rule] | None:
        found: list[Rule] = []
        for key in keys:
            policy = self.policies.get(key)
            if policy is None or any(self.shape_of(set_id) is None for set_id in polarities(rules_of(policy, ingress))):
                return None
            found += rules_of(policy, ingress)
        return found

    def _refresh_passes(self, ref: Ref) -> None:
        live = self._live.get(ref)
        if live is None:
            return
        policy = self.policies.get(ref.key)
        passes = ref.key.kind != PROFILE and policy is not None and has_pass(rules_of(policy, ref.ingress))
        if passes != live.passes:
            live.passes = passes
            self._dirty_stages.update(dict.fromkeys(live.stages))

    def _hold_rest(self, stage: Stage) -> None:
        """The next stage is in use exactly if this one can lead there."""
        live = self._stages[stage]
        for key in stage.policies:
            self._refresh_passes(stage.ref(key))
        self._dirty_stages.pop(stage, None)
        needed = bool(stage.tiers) and (
            stage.tiers[0].default_action is Action.PASS
            or not stage.role.decides
            or any(self._live[stage.ref(key)].passes for key in stage.policies)
        )
        if needed and not live.holds_rest:
            self.acquire(stage.rest)
        elif live.holds_rest and not needed:
            self.release(stage.rest)
        live.holds_rest = needed

    def _drop_stage(self, stage: Stage, edit: TableEdit) -> None:
        live = self._stages.pop(stage)
        self._drop_chain(edit, live.chain)
        if live.holds_rest:
            self.release(stage.rest)
        for key in dict.fromkeys(stage.policies):
            ref = stage.ref(key)
            policy = self._live[ref]
            policy.stages.discard(stage)
            if policy.stages:
                self._dirty_policies[ref] = None
                continue
            for chain in policy.chains:
                self._drop_chain(edit, chain)
            self._index_uses(ref, policy, {})
            del self._live[ref]
            self._forms[key].discard(ref)
            if not self._forms[key]:
                del self._forms[key]

    def _stage_rules(self, stage: Stage) -> list[ir.Rule]:
        role = stage.role
        rules = [ir.Rule(ir.Jump(role.failsafe))] if role.failsafe else []
        rules += [ir.Rule(ir.Jump(self._chain_of(stage, key))) for key in stage.policies]
        if stage.tiers and (stage.tiers[0].default_action is Action.PASS or not role.decides):
            rules.append(ir.Rule(ir.Goto(stage.rest.chain)))
        elif stage.tiers:
            comment = shortened(f"end of tier {stage.tiers[0].tier}", "")
            rules.append(ir.Rule(ir.Goto(role.form.deny), counter=True, comment=comment))
        elif role.asks_profiles:
            rules.append(ir.Rule(ir.Goto(role.form.deny), counter=True, comment="no profile allows it"))
        else:
            rules.append(ir.Rule(ir.Goto(role.form.undecided or role.form.allow)))
        return rules

    def _chain_of(self, stage: Stage, key: ResourceKey) -> str:
        passes = self._live[stage.ref(key)].passes
        return names.policy_chain(key, stage.ingress, stage.role.form.suffix, stage.rest.chain if passes else "")

    def _write_policy(self, ref: Ref, edit: TableEdit) -> None:
        live = self._live[ref]
        policy = self.policies.get(ref.key)
        rules = () if policy is None else rules_of(policy, ref.ingress)
        form = ref.form
        wanted: set[str] = set()
        denies = False
        for continuation in sorted({stage.rest.chain for stage in live.stages}) if live.passes else [""]:
            name = names.policy_chain(ref.key, ref.ingress, form.suffix, continuation)
            program: Program | None
            if policy is None and ref.key.kind == PROFILE:
                program = Program()
            elif policy is None:
                program = None
            else:
                targets = Targets(allow=form.allow, pass_to=continuation or form.deny, deny=form.deny)
                program = compile_policy(ref.key, ref.ingress, rules, self.shape_of, targets, self.options)
            if program is None:
                program, denies = Program([missing_rule(ref.key, ref.ingress, form.deny)]), True
            self._put_chain(edit, name, program, form.basis)
            wanted.add(name)
        for name in live.chains - wanted:
            self._drop_chain(edit, name)
        live.chains = wanted
        if live.settled and not live.denies and (denies or not only_adds(live.rules, rules)):
            self.revokes = True
        live.settled, live.rules, live.denies = True, rules, denies
        self._index_uses(ref, live, polarities(rules))

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

    def _put_chain(self, edit: TableEdit, name: str, program: Program, basis: ir.Basis) -> None:
        edit.set_chain(name, ir.Chain(tuple(program.rules), basis=basis))
        before = self._chain_constants.get(name, frozenset())
        after = frozenset(program.constants)
        for constant in after - before:
            self._hold_constant(edit, constant, program.constants[constant])
        self._release_constants(edit, before - after)
        if after:
            self._chain_constants[name] = after
        else:
            self._chain_constants.pop(name, None)

    def _drop_chain(self, edit: TableEdit, name: str) -> None:
        edit.remove_chain(name)
        self._release_constants(edit, self._chain_constants.pop(name, frozenset()))

    def _hold_constant(self, edit: TableEdit, name: str, constant: Constant) -> None:
        count = self._constants.get(name, 0)
        self._constants[name] = count + 1
        if not count:
            edit.add_set(name, constant.definition)
            for element in constant.elements:
                edit.add_element(name, element)

    def _release_constants(self, edit: TableEdit, constants: frozenset[str]) -> None:
        for name in constants:
            self._constants[name] -= 1
            if not self._constants[name]:
                del self._constants[name]
                edit.remove_set(name)


def _ref_order(ref: Ref) -> tuple[bool, str, ResourceKey]:
    return ref.ingress, ref.form.suffix, ref.key
