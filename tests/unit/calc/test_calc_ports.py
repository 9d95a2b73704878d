"""What workload endpoints say by annotations."""

from __future__ import annotations

import pytest

from tabinet.calc.messages import Trunk
from tabinet.calc.ports import NOTHING, port_needs


@pytest.mark.parametrize(("text", "stateless"), [("true", True), ("false", False), ("yes", True), ("", True)])
def test_what_cannot_be_read_allows_less(text: str, stateless: bool):
    needs = port_needs({"tabinet.io/stateless": text}, "WorkloadEndpoint/w")
    assert needs.stateless is stateless
    assert len(needs.problems) == (0 if text in ("true", "false") else 1)


def test_one_annotation_does_not_spoil_the_other():
    facts = '{"trunkParent": "tap1", "vlan": 7}'
    assert port_needs({"openstack.tabinet/port": facts, "tabinet.io/stateless": "true"}, "w").trunk == Trunk("tap1", 7)
    assert port_needs({"openstack.tabinet/port": "{", "tabinet.io/stateless": "true"}, "w").stateless
    assert port_needs({"a": "b"}, "w") is NOTHING
