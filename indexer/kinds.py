"""What the words of a table stand for: numbers, prices, dates, true or false, lists."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

from mmsearch.tables import Cell
from mmsearch.types import AttributeValue

__all__ = ["KINDS", "SWITCHES", "Kind", "infer", "is_price", "nearly", "value_of"]

Kind: TypeAlias = Literal["number", "text", "list", "boolean", "datetime"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NEARLY = 0.8
"""So many of a column's values must be of one kind that a note tells why the column is not."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?", re.I)
_PRICE = re.compile(
    r"(?P<before>[A-Z]{3}|[$€£¥])?\s*(?P<amount>[+-]?\d[\d.,]*)\s*(?P<after>[A-Z]{3}|[$€£¥])?"
)
_GROUPED = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
_GROUPED_COMMA = re.compile(r"(\d{1,3}(?:\.\d{3})+|\d+),(\d{2})")
_CODES = (
    "AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW LKR MAD MXN "
    "MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR $ € £ ¥"
)
_CURRENCIES = frozenset(_CODES.split())
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
SWITCHES = _WORDS | {"1": True, "y": True, "on": True, "0": False, "n": False, "off": False}
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?\s*(?:Z|[+-]\d\d:?\d\d)?)?", re.I)
_EXACT = 2**53


def infer(cells: Iterable[Cell]) -> Kind:
    """The kind that all values of a column can have: numbers (prices with a currency among them), true or false, dates;
    else text. Numbers with leading zeros are names of something, and text.
    """
    kinds: set[Kind] = set()
    for cell in cells:
        kinds.add(_looks(cell) if isinstance(cell, str) else "text")
        if len(kinds) > 1 or "text" in kinds:
            return "text"
    return kinds.pop() if kinds else "text"


def nearly(name: str, cells: Sequence[Cell]) -> list[str]:
    """A note on a column that is kept as text because of a few values: what was first stays, and no filter for numbers
    will ever work on it.
    """
    looks = [_looks(cell) if isinstance(cell, str) else "text" for cell in cells]
    kind, count = collections.Counter(looks).most_common(1)[0] if looks else ("text", 0)
    other = next((cell for cell, look in zip(cells, looks, strict=True) if look != kind), "")
    if kind == "text" or count < NEARLY * len(cells) or (isinstance(other, str) and other.isdigit()):
        return []  # what is digits only is a code, and text on purpose
    return [
        f"{name} is kept as a text: {str(other)[:40]!r} is no {kind}, as {count} of {len(cells)} values are. With "
        f"--type {name}={kind} the rest is rejected, with --type {name}=text all is well as it is"
    ]


def _looks(word: str) -> Kind:
    if word.lower() in _WORDS:
        return "boolean"
    if _NUMBER.fullmatch(word):
        plain = word.lstrip("+-")
        code = len(plain) > 1 and plain[0] == "0" and plain[1].isdigit()
        return "number" if not code and abs(float(word)) < _EXACT else "text"
    if _DATE.fullmatch(word):
        return "datetime" if _datetime(word) else "text"
    return "number" if (price := _price(word)) and price[1] else "text"


def is_price(cell: Cell) -> bool:
    """Whether it can be a price; ``12,99`` without a currency can where the column says that it has prices."""
    try:
        return isinstance(cell, str) and _price(cell) is not None
    except ValueError:
        return False


def value_of(name: str, kind: Kind, cell: Cell) -> dict[str, AttributeValue]:
    """The attribute of a cell, with a second one for the currency of a price. Raises ``ValueError``."""
    if kind == "list":
        words = (
            re.split(r"[|\r\n]+" if re.search(r"[|\r\n]", cell) else ",", cell)
            if isinstance(cell, str)
            else cell
        )
        found = list(dict.fromkeys(word.strip() for word in words if word.strip()))
        return {name: found} if found else {}
    if kind == "text":
        return {name: cell if isinstance(cell, str) else list(cell)}
    if not isinstance(cell, str):
        if len(cell) > 1:
            raise ValueError(f"{name} has {len(cell)} values, and a {kind} has one")
        cell = cell[0]
    value: AttributeValue | None
    if kind == "boolean":
        value = SWITCHES.get(cell.lower())
    elif kind == "datetime":
        value = _datetime(cell)
    elif (price := _price(cell)) is not None:
        amount, currency = price
        return {name: amount, f"{name}_currency": currency} if currency else {name: amount}
    else:
        value = None
    if value is None:
        raise ValueError(f"{name}: {cell[:80]!r} is no {kind}")
    return {name: value}


def _price(word: str) -> tuple[float | int, str | None] | None:
    """The number of a word and its currency, if it has one; None if it is no number."""
    if _NUMBER.fullmatch(word):
        return _number(word), None
    found = _PRICE.fullmatch(word)
    if found is None or (found["before"] and found["after"]):
        return None
    currency = found["before"] or found["after"]
    if currency is not None and currency not in _CURRENCIES:
        return None
    amount = found["amount"]
    sign, digits = (amount[0], amount[1:]) if amount[0] in "+-" else ("", amount)
    if grouped := _GROUPED.fullmatch(digits):
        return _number(sign + grouped[1].replace(",", "") + (grouped[2] or "")), currency
    if grouped := _GROUPED_COMMA.fullmatch(digits):
        return _number(f"{sign}{grouped[1].replace('.', '')}.{grouped[2]}"), currency
    return None


def _number(word: str) -> float | int:
    value = float(word)
    if abs(value) >= _EXACT:
        raise ValueError(f"{word[:40]} is more than a number can hold exactly; make it a text")
    return int(value) if value.is_integer() else value


def _datetime(word: str) -> datetime | None:
    """A naive datetime in UTC; None if the word is none."""
    try:
        found = datetime.fromisoformat(word.strip().replace(",", "."))
    except ValueError:
        return None
    try:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except OverflowError:
        return None
