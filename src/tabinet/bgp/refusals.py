"""What BIRD's complaint about a configuration means: which line, and of which peer or filter.

In: the complaint (``file:line:column message``) and the text that it is about. Out: ``Refusal``. Pure; linear in the text. Passwords
are never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from tabinet.bgp.names import description, filter_name
from tabinet.calc.intents import BgpIntent

_COMPLAINT = re.compile(r":(\d{1,9}):\d+ (.*)")
_DESCRIPTION = re.compile(r'  description "(.*)";')
_FUNCTION = re.compile(r"function '([^']*)'\(.*")
_PASSWORD = re.compile(r'password ".*"')


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why BIRD does not accept a configuration."""

    words: str
    peer: str = ""
    """Description of the peer in whose protocol the line is."""
    function: str = ""
    """Name of the BGPFilter's function in which the line is."""

    def culprits(self, intent: BgpIntent | None) -> Iterator[str]:
        """Names of the intent's peers without which BIRD may accept it."""
        for peer in intent.peers if intent else ():
            if self.peer and description(peer.name) == self.peer:
                yield peer.name
            functions = {
                filter_name(name, direction, family) for name in peer.filters for direction in ("export", "import") for family in (4, 6)
            }
            if self.function and self.function in functions:
                yield peer.name

    def blamed(self, intent: BgpIntent | None) -> str:
        """The BGPFilter that the line is of, with a colon; empty when it is of none."""
        for found in intent.filters if intent else ():
            if self.function in {filter_name(found.name, direction, family) for direction in ("export", "import") for family in (4, 6)}:
                return f"BGPFilter/{found.name}: "
        return ""


def read_refusal(complaint: str, text: str) -> Refusal:
    """The complaint about ``text``, with the line that it is about, and whose that line is."""
    match = _COMPLAINT.search(complaint)
    if not match:
        return Refusal(complaint)
    lines = text.splitlines()
    number = int(match[1])
    if not 1 <= number <= len(lines):
        return Refusal(complaint)
    peer = function = ""
    for line in lines[:number]:
        if line == "}":
            peer = function = ""
        if found := _DESCRIPTION.fullmatch(line):
            peer = found[1]
        if found := _FUNCTION.fullmatch(line):
            function = found[1]
    shown = _PASSWORD.sub('password "..."', lines[number - 1].strip())
    what = f"line {number}: {match[2]}: {shown}"
    return Refusal(f"peer {peer}: {what}" if peer else what, peer, function)
