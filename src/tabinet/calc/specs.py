"""``SetSpec``: the meaning of a set, and the name that follows from it.

Two rules that mean the same members, in whatever policy, on whatever host, name the same set. Pure.
"""

from __future__ import annotations

import base64
import hashlib

import msgspec

from tabinet.calc.messages import SetKind
from tabinet.selector import Selector


class SetSpec(msgspec.Struct, frozen=True, gc=False):
    """Which members a set has: those of the endpoints and network sets that ``selector`` selects."""

    kind: SetKind
    selector: Selector
    port_name: str = ""
    """PORTS only: the name that the endpoints' ports must have."""
    protocol: int = 0
    """PORTS only: the protocol that they must have."""

    @property
    def set_id(self) -> str:
        """``s-`` (NETS) or ``p-`` (PORTS) and 16 letters and digits: a function of the meaning only."""
        if self.kind is SetKind.NETS:
            return f"s-{self.selector.uid}"
        # A port's name holds no line end, so that the text is unambiguous.
        text = f"{self.protocol}\n{self.port_name}\n{self.selector.text}"
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).digest()
        return f"p-{base64.b32encode(digest).decode().lower()}"
