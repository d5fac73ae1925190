"""Filters over attributes: a small expression language, parsed by lark and evaluated over numpy columns.

::

    taken >= "2024-05" and camera in ("Fuji X100V", "Leica Q3") and not (iso > 1600 or tags like 'draft%')

==================================  ======================================================================
``= == != <> < <= > >=``            comparison with a literal
``in (a, b)``, ``not in (a, b)``    one of, none of
``like 'a%_'``, ``not like``        ``%`` any run, ``_`` any one character; ignores case and Unicode form
``is null``, ``is not null``        the item has no, has some value of the attribute
``distance(lat, lon, 52.5, 13.4)``  kilometres from a place to the numbers ``lat`` and ``lon`` (degrees), on a sphere of
                                    6371.0088 km; compare it: ``distance(...) < 10``
``and or not ( )``                  ``not`` binds tighter than ``and``, ``and`` tighter than ``or``
``price``, ```unit price```         names; backquotes around any other name (double a backquote inside)
``'it''s'``, ``"5"" disk"``         text; double the quote inside
``12``, ``-0.5``, ``1e6``           numbers; also ``true``, ``false``
``"2024"``, ``"2024-05-01T12Z"``    dates, when compared with a date: ISO 8601, UTC unless it says otherwise
==================================  ======================================================================

A date of lower precision is an interval: ``= "2024-05"`` means within that May, ``> "2024-05"`` after its
end, ``<= "2024-05"`` before its end. A comparison with an attribute that an item does not have is false, so
``not`` around it holds. Of several values (tags) ``=``, ``in``, ``like`` and the orders ask for any; ``!=``,
``not in`` and ``not like`` ask for some value to be there and none to match. Keywords may be in capitals.
"""

from __future__ import annotations

import calendar
import dataclasses
import difflib
import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.column import Column, Kind, Vocabulary, fold
from mmsearch.errors import QueryError

__all__ = ["Column", "Expression", "Kind", "Vocabulary", "conjuncts", "distances", "evaluate", "parse"]

Value: TypeAlias = str | float | bool
Mask: TypeAlias = NDArray[np.bool_]


class Expression:
    """A parsed filter."""

    def names(self) -> set[str]:
        """The attributes it asks about."""
        found = {node.name for node, _ in self.nodes() if isinstance(node, In | Order | Like | Present)}
        for node, _ in self.nodes():
            if isinstance(node, Distance):
                found |= {node.latitude, node.longitude}
        return found

    def nodes(self) -> Iterator[tuple[Expression, int]]:
        """Every node with its depth from 1. Not recursive: it must survive what is nested too deep."""
        todo: list[tuple[Expression, int]] = [(self, 1)]
        while todo:
            node, depth = todo.pop()
            yield node, depth
            if isinstance(node, And | Or):
                todo += [(operand, depth + 1) for operand in node.operands]
            elif isinstance(node, Not):
                todo.append((node.operand, depth + 1))


@dataclasses.dataclass(frozen=True, slots=True)
class In(Expression):
    """Some value is one of ``values``. One value: equality."""

    name: str
    values: tuple[Value, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Order(Expression):
    """Some value is ``<``, ``<=``, ``>`` or ``>=`` ``value``."""

    name: str
    sign: str
    value: Value


@dataclasses.dataclass(frozen=True, slots=True)
class Like(Expression):
    """Some value matches ``pattern``."""

    name: str
    pattern: str


@dataclasses.dataclass(frozen=True, slots=True)
class Present(Expression):
    """There is a value."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Distance(Expression):
    """The great-circle distance of (``latitude``, ``longitude``) from ``place`` (degrees) is ``<``, ``<=``, ``>`` or
    ``>=`` ``kilometres``.
    """

    latitude: str
    longitude: str
    place: tuple[float, float]
    sign: str
    kilometres: float


@dataclasses.dataclass(frozen=True, slots=True)
class Not(Expression):
    operand: Expression


@dataclasses.dataclass(frozen=True, slots=True)
class And(Expression):
    operands: tuple[Expression, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Or(Expression):
    operands: tuple[Expression, ...]


def parse(expression: str) -> Expression:
    """Read a filter. Raises ``QueryError`` with the position and what was expected if it is none."""
    from mmsearch.filter_grammar import read

    return read(expression)


def conjuncts(expression: Expression) -> Sequence[Expression]:
    """What is joined by ``and`` at the top of a filter."""
    return expression.operands if isinstance(expression, And) else (expression,)


def evaluate(
    expression: Expression, columns: Callable[[str], Column | None], n: int, known: Iterable[str] = ()
) -> Mask:
    """Which of the items 0 .. n-1 the filter holds for: bool (n,).

    ``columns`` gives the column of a name, or None if no item has such an attribute; ``known`` are the names
    to suggest then.

    Raises ``QueryError`` for an unknown attribute and for a literal that does not fit the attribute's kind.
    """
    match expression:
        case Not(operand):
            return ~evaluate(operand, columns, n, known)
        case And(operands):
            return functools.reduce(
                operator.and_, (evaluate(operand, columns, n, known) for operand in operands)
            )
        case Or(operands):
            return functools.reduce(
                operator.or_, (evaluate(operand, columns, n, known) for operand in operands)
            )
        case Distance():
            away = distances(expression.latitude, expression.longitude, expression.place, columns, n, known)
            return _compared(away, expression.sign, expression.kilometres)  # not a number: none has that
        case In(name) | Order(name) | Like(name) | Present(name):
            column = columns(name)
            if column is None:
                raise QueryError(unknown(name, known))
            return _items(column, _values_mask(expression, column), n)
        case _:
            raise TypeError(f"not a filter expression: {expression!r}")


def _items(column: Column, mask: Mask, n: int) -> Mask:
    """From a mask over values to a mask over items."""
    if column.ascending and len(mask) == n:
        return mask
    items = np.zeros(n, np.bool_)
    if column.ascending:
        items[column.rows] = mask
    else:
        items[column.rows[mask]] = True
    return items


def _values_mask(leaf: In | Order | Like | Present, column: Column) -> Mask:
    match leaf:
        case Present():
            return np.ones(len(column.rows), np.bool_)
        case Like(name, pattern):
            if column.kind != "text":
                raise QueryError(f"{name} is {_A_KIND[column.kind]}: like needs text")
            return _by_word(column, _likes(pattern, column.folded))
        case In(name, values):
            return _equals(column, [_fit(name, column.kind, value) for value in values])
        case Order(name, sign, value):
            return _ordered(name, column, sign, _fit(name, column.kind, value))


def _equals(column: Column, wanted: Sequence[Value | Interval]) -> Mask:
    if column.kind == "text":
        codes = [column.codes[word] for word in wanted if isinstance(word, str) and word in column.codes]
        if len(codes) == 1:
            return np.equal(column.values, codes[0], dtype=np.bool_)
        table = np.zeros(len(column.vocabulary), np.bool_)
        table[codes] = True
        return _by_word(column, table)
    if len(wanted) > 1 and column.kind == "number":
        return np.isin(column.values, np.array(wanted, np.float64))
    mask = np.zeros(len(column.rows), np.bool_)
    for value in wanted:
        if isinstance(value, Interval):
            mask |= (column.values >= value.start) & (column.values < value.end)
        else:
            mask |= column.values == value
    return mask


def _ordered(name: str, column: Column, sign: str, value: Value | Interval) -> Mask:
    if isinstance(value, bool):
        raise QueryError(f"{name} is {_A_KIND[column.kind]}: {sign} needs a number, text or date")
    if isinstance(value, str):
        compare = {"<": value.__gt__, "<=": value.__ge__, ">": value.__lt__, ">=": value.__le__}[sign]
        words = column.vocabulary[:]  # it may grow meanwhile
        return _by_word(column, np.fromiter(map(compare, words), np.bool_, len(words)))
    if isinstance(value, Interval):  # > is after its end, <= before its end; >= and < look at its start
        sign, value = {">": (">=", value.end), "<=": ("<", value.end)}.get(sign, (sign, value.start))
    return _compared(column.values, sign, value)


def _compared(values: NDArray[np.float64] | NDArray[np.int32], sign: str, value: float) -> Mask:
    match sign:
        case "<":
            return values < value
        case "<=":
            return values <= value
        case ">":
            return values > value
        case _:
            return values >= value


EARTH_KM = 6371.0088
"""The mean radius of the earth (IUGG)."""


def distances(
    latitude: str,
    longitude: str,
    place: tuple[float, float],
    columns: Callable[[str], Column | None],
    n: int,
    known: Iterable[str] = (),
) -> NDArray[np.float64]:
    """Kilometres (n,) of each item from ``place`` (latitude, longitude in degrees), NaN where it has no position.

    The haversine formula: on a sphere, within 0.6 % of the ellipsoid. Raises ``QueryError`` for a place that is none
    and for attributes that are unknown or no numbers.
    """
    if not (-90 <= place[0] <= 90 and -180 <= place[1] <= 180):
        raise QueryError(
            f"no place on earth: latitude {place[0]:g} must be within -90 to 90,"
            f" longitude {place[1]:g} within -180 to 180"
        )
    angles = []
    for name in (latitude, longitude):
        column = columns(name)
        if column is None:
            raise QueryError(unknown(name, known))
        if column.kind != "number":
            raise QueryError(f"{name} is {_A_KIND[column.kind]}: distance needs a number of degrees")
        degrees = np.full(n, np.nan)
        degrees[column.rows] = column.values
        angles.append(np.radians(degrees))
    here, there = np.radians(place[0]), angles[0]
    half = np.sin((there - here) / 2) ** 2
    half += np.cos(here) * np.cos(there) * np.sin((angles[1] - np.radians(place[1])) / 2) ** 2
    found: NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    return found


def _by_word(column: Column, table: Mask) -> Mask:
    """From a mask over the vocabulary to a mask over values."""
    mask: Mask = table[column.values]
    return mask


def _likes(pattern: str, folded: Sequence[str]) -> Mask:
    """Which of the folded words match. Takes time linear in their length, whatever the pattern."""
    runs = fold(pattern).split("%")
    parts = ["".join("." if char == "_" else re.escape(char) for char in run) for run in runs]
    regex = parts[0]
    if len(parts) > 1:
        # each run in the middle at its first place, for good: an atomic group never goes back
        regex += "".join(f"(?>.*?{part})" for part in parts[1:-1]) + ".*" + parts[-1]
    fullmatch = re.compile(regex, re.DOTALL).fullmatch
    needle = max(re.split("[%_]", fold(pattern)), key=len)
    mask = np.zeros(len(folded), np.bool_)
    for place in [place for place, word in enumerate(folded) if needle in word]:
        mask[place] = fullmatch(folded[place]) is not None
    return mask


def unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"no item has an attribute {name}{hint}"


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """UTC seconds since 1970: ``start`` inclusive, ``end`` exclusive."""

    start: float
    end: float


_A_KIND: dict[Kind, str] = {
    "number": "a number",
    "text": "text",
    "boolean": "true or false",
    "datetime": "a date",
}


def _fit(name: str, kind: Kind, value: Value) -> Value | Interval:
    match kind, value:
        case ("boolean", bool()) | ("text", str()):
            return value
        case "number", int() | float() if not isinstance(value, bool):
            return value
        case "datetime", str():
            within = interval(value)
            if within is None:
                raise QueryError(
                    f'{name} is a date: {value!r} is none; write it like "2024-05-01" or "2024-05-01T12:30"'
                )
            return within
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    example = {"number": "12.5", "text": '"dog"', "boolean": "true", "datetime": '"2024-05-01"'}[kind]
    raise QueryError(f"{name} is {_A_KIND[kind]}: {shown} does not fit; write it like {example}")


_DATE = re.compile(
    r"""(\d{4}) (?: -(\d\d) (?: -(\d\d) (?: [T\ ](\d\d) (?: :(\d\d) (?: :(\d\d) (?: [.](\d{1,6}) )? )? )?
        (Z | [+-]\d\d:?\d\d )? )? )? )?""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1)


def interval(text: str) -> Interval | None:
    """The time that a date of ISO 8601 names, or a part of one; None if it is none."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    first, *fields, fraction, zone = found.groups()
    year = int(first)
    month, day, hour, minute, second = (int(field) if field else None for field in fields)
    micro = int(fraction.ljust(6, "0")) if fraction else 0
    try:
        start = datetime(year, month or 1, day or 1, hour or 0, minute or 0, second or 0, micro) - _EPOCH
    except ValueError:
        return None
    if zone and zone not in "Zz":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        start += offset if zone[0] == "-" else -offset
    if month is None:
        length = timedelta(days=365 + calendar.isleap(year))
    elif day is None:
        length = timedelta(days=calendar.monthrange(year, month)[1])
    elif hour is None:
        length = timedelta(days=1)
    elif minute is None:
        length = timedelta(hours=1)
    elif second is None:
        length = timedelta(minutes=1)
    else:
        length = timedelta(microseconds=10 ** (6 - len(fraction or "")))
    return Interval(start.total_seconds(), (start + length).total_seconds())
