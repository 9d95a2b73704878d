"""Virtual machines as workloads: addresses by DHCP from the guest service, and packets as the policies say."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from lab_world import running_lab

from tabinet.lab.lab import Lab
from tabinet.lab.vm import missing

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(missing()), reason=f"no virtual machines here, for want of {', '.join(missing())}: make setup VMS=1"),
]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with running_lab("vms") as made:
        yield made


async def test_every_packet_does_what_the_policies_say(lab: Lab) -> None:
    for _ in range(2):  # a prober in a guest ends with who asked it, and another one starts
        report = await lab.check()
        assert report.mismatches == 0, report.details
    assert {(pair.source, pair.destination) for pair in report.pairs} >= {
        (source, destination) for source in ("vm1", "vm2", "web1") for destination in ("vm1", "vm2", "web1") if source != destination
    }
    assert 0 < sum(pair.allowed for pair in report.pairs) < report.probes
