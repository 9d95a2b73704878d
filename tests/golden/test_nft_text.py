"""The fixed part of the table as text, and that nft(8) takes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from rich_tables import everything, gateway, nothing

from tabinet.calc import messages as m
from tabinet.dataplane.nft.render import render_table
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.options import TableOptions

GOLDEN = Path(__file__).parent / "nft"


def tunnels() -> TableBuilder:
    """All tunnels, and a host endpoint that must not keep their packets out."""
    builder = TableBuilder(TableOptions(workloads_send_ipip=True))
    hosts = frozenset(map(parse_address, ("172.16.1.1", "172.16.2.3", "fd16::1")))
    builder.on_update(m.SetUpdate(m.ALL_HOSTS, m.SetKind.NETS, hosts))
    for tunnel in m.Tunnel:
        builder.on_update(m.TunnelUpdate("h", tunnel, m.LocalTunnel(None, None, "", ())))
    builder.on_update(m.HostEndpointUpdate(ResourceKey("HostEndpoint", "eth0"), 1, m.HostEndpoint("h", "eth0", ())))
    builder.flush()
    return builder


@pytest.mark.parametrize("make", [nothing, everything, gateway, tunnels])
def test_text(make, request: pytest.FixtureRequest):
    text = render_table(make().table, 7)
    path = GOLDEN / f"{make.__name__}.nft"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["nothing", "everything", "gateway"])
def test_nft_takes_the_text(name: str):
    if shutil.which("unshare") is None:
        pytest.fail("unshare(1) of util-linux is needed")
    command = ["unshare", "-n", "nft", "-c", "-f", str(GOLDEN / f"{name}.nft")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
