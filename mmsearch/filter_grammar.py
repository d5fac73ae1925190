"""The grammar of filters. ``mmsearch.filters.parse`` imports it when first called: lark is not free."""

from __future__ import annotations

import functools
from typing import Any, cast

import lark

from mmsearch.errors import QueryError
from mmsearch.filters import And, Distance, Expression, In, Like, Not, Or, Order, Present

MAX_LENGTH = 100_000
"""Characters of an expression."""

MAX_DEPTH = 100
"""Operators nested in each other; parentheses alone and ``not not`` do not count."""

_GRAMMAR = r"""
?start: either
either: both ("or"i both)*
both: negation ("and"i negation)*
?negation: "not"i negation -> negated
         | "(" either ")"
         | test
?test: NAME OPERATOR _value                           -> comparison
     | NAME "in"i _values                             -> one_of
     | NAME "not"i "in"i _values                      -> none_of
     | NAME "like"i TEXT                              -> like
     | NAME "not"i "like"i TEXT                       -> unlike
     | NAME "is"i "null"i                             -> missing
     | NAME "is"i "not"i "null"i                      -> present
     | DISTANCE "(" NAME "," NAME "," NUMBER "," NUMBER ")" OPERATOR NUMBER -> distance
_values: "(" _value ("," _value)* ")"
_value: TEXT | NUMBER | BOOLEAN

DISTANCE.2: /distance(?=\s*\()/i
OPERATOR: "==" | "!=" | "<>" | "<=" | ">=" | "=" | "<" | ">"
NAME: /[^\W\d][\w.-]*|`(?:[^`]|``)+`/i
TEXT: /'(?:[^']|'')*'|"(?:[^"]|"")*"/
NUMBER: /[+-]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:e[+-]?[0-9]+)?(?![\w.])/i
BOOLEAN.1: /(?:true|false)(?![\w.-])/i
%ignore /\s+/
"""


class _Builder:
    """Makes the nodes: lark calls the method named like a terminal or a rule with its token or children."""

    def NAME(self, token: str) -> str:  # noqa: N802
        return token[1:-1].replace("``", "`") if token[0] == "`" else str(token)

    def TEXT(self, token: str) -> str:  # noqa: N802
        return token[1:-1].replace(token[0] * 2, token[0])

    def NUMBER(self, token: str) -> float:  # noqa: N802
        return float(token)

    def BOOLEAN(self, token: str) -> bool:  # noqa: N802
        return token.lower() == "true"

    def comparison(self, children: list[Any]) -> Expression:
        name, operator, value = children
        match operator:
            case "=" | "==":
                return In(name, (value,))
            case "!=" | "<>":
                return _none(name, In(name, (value,)))
            case _:
                return Order(name, str(operator), value)

    def one_of(self, children: list[Any]) -> Expression:
        return In(children[0], tuple(children[1:]))

    def none_of(self, children: list[Any]) -> Expression:
        return _none(children[0], self.one_of(children))

    def like(self, children: list[Any]) -> Expression:
        return Like(*children)

    def unlike(self, children: list[Any]) -> Expression:
        return _none(children[0], Like(*children))

    def missing(self, children: list[Any]) -> Expression:
        return Not(Present(*children))

    def present(self, children: list[Any]) -> Expression:
        return Present(*children)

    def distance(self, children: list[Any]) -> Expression:
        _, latitude, longitude, north, east, operator, kilometres = children
        if operator not in ("<", "<=", ">", ">="):
            raise QueryError(f"bad filter: a distance is compared with < <= > or >=, not {operator}")
        return Distance(latitude, longitude, (north, east), str(operator), kilometres)

    def negated(self, children: list[Expression]) -> Expression:
        (operand,) = children
        return operand.operand if isinstance(operand, Not) else Not(operand)

    def both(self, children: list[Expression]) -> Expression:
        return children[0] if len(children) == 1 else And(tuple(children))

    def either(self, children: list[Expression]) -> Expression:
        return children[0] if len(children) == 1 else Or(tuple(children))


def _none(name: str, matching: Expression) -> Expression:
    return And((Present(name), Not(matching)))


# the basic lexer: a keyword is one everywhere, so a name `in` always wants its backquotes
_PARSER = lark.Lark(_GRAMMAR, parser="lalr", lexer="basic", transformer=cast(Any, _Builder()))


@functools.lru_cache(maxsize=1024)
def read(expression: str) -> Expression:
    """The tree of a filter. Raises ``QueryError`` with the position and what was expected if it is none."""
    if len(expression) > MAX_LENGTH:
        raise QueryError(f"the filter is longer than {MAX_LENGTH} characters")
    if not expression.strip():
        raise QueryError('the filter is empty; write one like: year >= 2024 and camera = "X100V"')
    try:
        tree = cast(Expression, _PARSER.parse(expression))
    except lark.UnexpectedCharacters as error:
        raise QueryError(_unreadable(expression, error.pos_in_stream or 0)) from None
    except lark.UnexpectedToken as error:
        raise QueryError(_unexpected(expression, error.token, error.accepts)) from None
    if any(depth > MAX_DEPTH for _, depth in tree.nodes()):
        raise QueryError(f"the filter is nested more than {MAX_DEPTH} levels deep")
    return tree


def _unreadable(expression: str, position: int) -> str:
    char = expression[position]
    if char in "'\"`":
        return f"bad filter: the {char} at character {position + 1} is never closed"
    hint = "; put text between plain quotes: \"...\" or '...'" if not char.isascii() else ""
    return (
        f"bad filter: cannot read {expression[position : position + 20]!r} at character {position + 1}{hint}"
    )


_EXPECTED = {
    "NAME": "an attribute name",
    "DISTANCE": "distance(...)",
    "LPAR": "(",
    "RPAR": ")",
    "OPERATOR": "= != < <= > >=",
    "TEXT": "a quoted text",
    "NUMBER": "a number",
    "BOOLEAN": "true or false",
    "COMMA": "a comma",
    "$END": "the end",
}


def _unexpected(expression: str, found: lark.Token, expected: set[str]) -> str:
    what = ", ".join(_EXPECTED.get(name, name.lower()) for name in sorted(expected))
    where = (
        "at its end"
        if found.type == "$END"
        else f"before {found.value!r} at character {(found.start_pos or 0) + 1}"
    )
    hint = ""
    if found.type == "NAME" and "TEXT" in expected:
        hint = f'; put text in quotes: "{found.value}"'
    elif "NAME" in expected and found.value.isalpha():
        hint = "; a name like that goes between backquotes: `...`"
    return f"bad filter {expression[:200]!r}: {where} expected {what}{hint}"
