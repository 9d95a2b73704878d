"""nft(8) of this machine lists our tables: whoever lists the ruleset of a host must not stumble over what is ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable

import pytest
from rich_tables import everything, gateway, nothing

from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftsocket import open_nftables
from tabinet.rules.builder import TableBuilder


@pytest.mark.kernel
@pytest.mark.parametrize("build", [nothing, everything, gateway], ids=lambda build: build.__name__)
def test_nft_lists_every_chain_and_set(build: Callable[[], TableBuilder]) -> None:
    table = build().table
    name = f"tbl-{os.getpid():x}-{build.__name__}"

    def load() -> None:
        nftables = open_nftables()
        NftDriver(nftables).resync(table)
        nftables.close()

    netns.create(name)
    try:
        netns.run_in(name, load)
        argv = ["ip", "netns", "exec", name, "nft"]
        text = subprocess.run([*argv, "list", "ruleset"], check=True, capture_output=True, text=True, timeout=60).stdout
        listed = json.loads(subprocess.run([*argv, "-j", "list", "ruleset"], check=True, capture_output=True, timeout=60).stdout)
    finally:
        netns.delete(name)
    chains = {item["chain"]["name"] for item in listed["nftables"] if "chain" in item}
    assert chains == table.chains.keys()
    assert all(f"chain {chain} {{" in text for chain in chains)
    sets = [item.get("set") or item.get("map") for item in listed["nftables"]]
    assert len([found for found in sets if found]) == len(table.sets)
