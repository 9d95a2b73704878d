"""Tests that this machine's kernel may have to skip, in a virtual machine whose kernel has what they need: VLANs and IP-in-IP."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernel_guest import GuestRun, lacking, run_tests

KERNEL_TESTS = Path(__file__).parents[1] / "kernel"
FILES = {"test_vlan_contract.py": 5, "test_subport_packets.py": 1, "test_subport_guests.py": 1, "test_ipip_packets.py": 1}
"""With how many tests."""

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(lacking()), reason=f"no virtual machines here, for want of {', '.join(lacking())}: make setup VMS=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> GuestRun:
    """One guest for all files: half of the time is until it runs."""
    return run_tests([KERNEL_TESTS / file for file in FILES], tmp_path_factory.mktemp("guest"), leave_out=("fake", "strangers"))


@pytest.mark.parametrize("file", FILES)
def test_passes_in_a_kernel_that_has_what_it_needs(run: GuestRun, file: str) -> None:
    outcomes = run.outcomes.get(file, {})
    assert (set(outcomes.values()), len(outcomes)) == ({"PASSED"}, FILES[file]), run.output
