"""What Felix leaves in the kernel is found and removed, whichever iptables it used, and nothing of others."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest
from calico_host import SETS, felix_rules

from tabinet.agent.doctor.firewalls import read_legacy
from tabinet.agent.takeover.guard import is_guarded_by_felix
from tabinet.agent.takeover.iptables import FelixTable, find_felix, render_removal
from tabinet.agent.takeover.programs import delete_nft_tables, programs_for, restore, save
from tabinet.errors import SetupError
from tabinet.kernel import netns
from tabinet.kernel.ipset import create_set, destroy_sets, list_sets
from tabinet.kernel.routingrules import delete_rules, list_rules

pytestmark = pytest.mark.kernel


def install(backend: str) -> None:
    for name in SETS:
        create_set(name, family=10 if name.startswith("cali6") else 2)
    for program, family in (("iptables", 4), ("ip6tables", 6)):
        restore(f"{program}-{backend}", felix_rules(family))


def found() -> list[FelixTable]:
    return [table for program in programs_for(read_legacy()) for table in find_felix(save(program), program, ("cali",))]


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_tables_and_sets_go_and_others_rules_stay(backend: str) -> None:
    def work() -> None:
        assert (is_guarded_by_felix(), found()) == (False, [])
        install(backend)
        assert is_guarded_by_felix()
        tables = found()
        assert sorted(table.name for table in tables) == sorted(
            f"{program}-{backend} {table}" for program in ("iptables", "ip6tables") for table in ("raw", "mangle", "nat", "filter")
        )
        assert set(destroy_sets(list_sets())) == {"cali40s:clients", "cali60s:clients", "cali40masq-ipam-pools", "cali40all-ipam-pools"}
        for table in tables:
            restore(table.program, render_removal(table))
        assert (is_guarded_by_felix(), found()) == (False, [])
        left = save(f"iptables-{backend}")
        assert "-A POSTROUTING -j stranger" in left and "-A FORWARD -s 192.0.2.0/24 -j stranger" in left
        assert "cali" not in left
        assert destroy_sets([*SETS, "never-was"]) == {}
        assert list_sets() == []

    netns.run_in_new(work)


def test_a_table_goes_as_a_whole_or_not_at_all() -> None:
    def work() -> None:
        install("nft")
        before = save("iptables-nft")
        table = next(table for table in found() if table.name == "iptables-nft filter")
        with pytest.raises(SetupError):
            restore("iptables-nft", render_removal(table).replace("-X cali-FORWARD", "-X cali-FORWARD\n-X no-such-chain"))
        assert _rules(save("iptables-nft")) == _rules(before)

    netns.run_in_new(work)


def test_felix_that_works_with_nftables() -> None:
    def work() -> None:
        hook = "chain filter-FORWARD { type filter hook forward priority 0; policy accept; };"
        for family in ("ip", "ip6"):
            _nft(f"table {family} calico {{ {hook} }}")
        assert is_guarded_by_felix()
        delete_nft_tables([("ip", "calico"), ("ip6", "calico")])
        assert not is_guarded_by_felix()

    netns.run_in_new(work)


def test_rules_that_choose_tables_are_deleted_one_by_one() -> None:
    def work() -> None:
        condition = "not fwmark 0x100000/0x100000 lookup 1"
        run = partial(subprocess.run, check=True)
        for family in ("-4", "-6"):
            run(["ip", family, "rule", "add", "pref", "99", *condition.split()])
        run(["ip", "rule", "add", "pref", "99", "fwmark", "7", "lookup", "1"])
        mine = [rule for rule in list_rules() if rule.inverted]
        assert [str(rule) for rule in mine] == [f"IPv{family} 99: not from all fwmark 0x100000/0x100000 lookup 1" for family in (4, 6)]
        assert delete_rules(mine) == [None, None]
        assert [rule.mark for rule in list_rules() if rule.priority == 99] == [7]

    netns.run_in_new(work)


def _rules(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith(("-A", ":"))]


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
