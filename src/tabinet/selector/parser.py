"""Text to syntax tree: recursive descent without a separate token list, because words are operators only after a label.

::

    selector   = [ or ]                                  an empty selector is all()
    or         = and { "||" and }
    and        = term { "&&" term }
    term       = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" label ")" | comparison )
    comparison = label ( "==" string | "!=" string | ( "in" | "not in" ) "{" [ string { "," string } [ "," ] ] "}"
                       | ( "contains" | "starts with" | "ends with" ) string )
    label      = 1 to 512 of A-Z a-z 0-9 _ . / -
    string     = text between two ' or two "; no escapes exist

Space and tab separate, as in Calico; a line break is an error there and here. Linear in the length of the text. Nesting is limited, so that
neither parsing nor anything that walks the tree can exhaust the stack.
"""

from __future__ import annotations

import re

from tabinet.errors import TabinetError
from tabinet.selector.tree import (
    All,
    Contains,
    EndsWith,
    Eq,
    Global,
    Has,
    Ne,
    Node,
    StartsWith,
    conjunction,
    disjunction,
    membership,
    negation,
)

MAX_LENGTH = 1024
"""Characters in a selector (the limit of Calico's API)."""
MAX_LABEL = 512
"""Characters in a label's key."""
MAX_DEPTH = 100
"""Parentheses inside parentheses."""

_SPACE = re.compile(r"[ \t]*")
_LABEL = re.compile(r"[A-Za-z0-9_./-]+")
_CALL = re.compile(r"(all|global|has)\(")
_OPERATOR = re.compile(r"==|!=|contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in")
_FOUND = re.compile(r"[A-Za-z0-9_./-]+|&&|\|\||==|!=|.", re.DOTALL)


class SelectorError(TabinetError):
    """A text is not a selector: where it stops being one, what is there and what could be."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        self.text = text
        self.position = position
        """Offset of the first character that does not fit, from 0; the length of the text when it ends too early."""
        self.expected = expected
        found = _FOUND.match(text, position)
        self.found = repr(found[0][:40]) if found else "the end"
        super().__init__(f"at character {position + 1}: found {self.found}, expected {expected}")


def parse_tree(text: str, max_length: int = MAX_LENGTH) -> Node:
    """The tree of ``text``, in normal form.

    Raises:
        SelectorError: not a selector, longer than ``max_length`` characters, or nested deeper than ``MAX_DEPTH``.
    """
    if len(text) > max_length:
        raise SelectorError(text, max_length, f"at most {max_length} characters")
    return _Parser(text).whole()


class _Parser:
    """A cursor in a text; each method reads one rule of the grammar and leaves the cursor behind it and the space after it."""

    __slots__ = ("depth", "position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def whole(self) -> Node:
        self.skip_space(0)
        if self.position == len(self.text):
            return All()
        node = self.disjunction()
        if self.position < len(self.text):
            raise self.error("'&&', '||' or the end")
        return node

    def disjunction(self) -> Node:
        terms = [self.conjunction()]
        while self.take("||"):
            terms.append(self.conjunction())
        return disjunction(terms)

    def conjunction(self) -> Node:
        terms = [self.term()]
        while self.take("&&"):
            terms.append(self.term())
        return conjunction(terms)

    def term(self) -> Node:
        negated = False
        while self.take("!"):
            negated = not negated
        node = self.operand()
        return negation(node) if negated else node

    def operand(self) -> Node:
        start = self.position
        if self.take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise SelectorError(self.text, start, f"at most {MAX_DEPTH} parentheses inside each other")
            node = self.disjunction()
            self.require(")")
            self.depth -= 1
            return node
        call = _CALL.match(self.text, self.position)
        if call is None:
            return self.comparison()
        self.skip_space(call.end())
        inner: Node
        match call[1]:
            case "has":
                inner = Has(self.label("a label"))
            case "all":
                inner = All()
            case _:
                inner = Global()
        self.require(")")
        return inner

    def comparison(self) -> Node:
        key = self.label("a label, 'has(', 'all()', 'global()', '!' or '('")
        operator = _OPERATOR.match(self.text, self.position)
        if operator is None:
            raise self.error("'==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with'")
        self.skip_space(operator.end())
        match operator[0][:2]:
            case "==":
                return Eq(key, self.string())
            case "!=":
                return Ne(key, self.string())
            case "in":
                return membership(key, self.values())
            case "no":
                return negation(membership(key, self.values()))
            case "co":
                return Contains(key, self.string())
            case "st":
                return StartsWith(key, self.string())
            case _:
                return EndsWith(key, self.string())

    def values(self) -> list[str]:
        self.require("{")
        values: list[str] = []
        while not self.take("}"):
            values.append(self.string("a quoted value or '}'"))
            if not self.take(","):
                self.require("}", "',' or '}'")
                break
        return values

    def string(self, expected: str = "a value in quotes") -> str:
        start = self.position
        quote = self.text[start : start + 1]
        if quote not in ("'", '"'):
            raise self.error(expected)
        end = self.text.find(quote, start + 1)
        if end < 0:
            self.position = len(self.text)
            raise self.error(f"the closing {quote}")
        self.skip_space(end + 1)
        return self.text[start + 1 : end]

    def label(self, expected: str) -> str:
        found = _LABEL.match(self.text, self.position)
        if found is None:
            raise self.error(expected)
        if found.end() - found.start() > MAX_LABEL:
            raise self.error(f"a label of at most {MAX_LABEL} characters")
        self.skip_space(found.end())
        return found[0]

    def take(self, symbol: str) -> bool:
        """True when ``symbol`` was next; it is read then."""
        if not self.text.startswith(symbol, self.position):
            return False
        self.skip_space(self.position + len(symbol))
        return True

    def require(self, symbol: str, expected: str = "") -> None:
        if not self.take(symbol):
            raise self.error(expected or f"'{symbol}'")

    def skip_space(self, position: int) -> None:
        space = _SPACE.match(self.text, position)
        self.position = space.end() if space else position

    def error(self, expected: str) -> SelectorError:
        return SelectorError(self.text, self.position, expected)
