"""Filters: every expression against a naive evaluator that looks at one item at a time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import filters
from mmsearch.column import Column, Vocabulary
from mmsearch.errors import QueryError
from mmsearch.filters import distances, evaluate, parse

Item: TypeAlias = dict[str, list[Any]]
"""Attribute -> its values; an attribute that is absent has no entry."""

KINDS: dict[str, filters.Kind] = {
    "price": "number",
    "brand": "text",
    "tags": "text",
    "sold": "boolean",
    "taken": "datetime",
}


def columns_of(items: Sequence[Item]) -> Callable[[str], Column | None]:
    columns = {}
    for name, kind in KINDS.items():
        pairs = [(row, value) for row, item in enumerate(items) for value in item.get(name, ())]
        rows = np.array([row for row, _ in pairs], np.int64)
        if kind == "text":
            words = sorted({value for _, value in pairs}, reverse=True)
            codes = np.array([words.index(value) for _, value in pairs], np.int32)
            columns[name] = Column(kind, rows, codes, Vocabulary(words))
        elif kind == "datetime":
            seconds = [value.replace(tzinfo=UTC).timestamp() for _, value in pairs]
            columns[name] = Column(kind, rows, np.array(seconds, np.float64))
        else:
            columns[name] = Column(kind, rows, np.array([value for _, value in pairs], np.float64))
    return columns.get


def matching(expression: str, items: Sequence[Item]) -> list[int]:
    mask = evaluate(parse(expression), columns_of(items), len(items))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(items),)
    return list(map(int, np.flatnonzero(mask)))


def quoted(text: str, mark: str = '"') -> str:
    return mark + text.replace(mark, mark * 2) + mark


# a random expression is drawn together with the function that says whether it holds for one item

Case: TypeAlias = tuple[str, Callable[[Item], bool]]

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
WORDS = [
    "",
    "red",
    "Red",
    "dark red",
    "RED%",
    "a_b",
    "grün",
    "I'm",
    'x"y',
    "%",
    "_",
    "null",
    "né",
    "ne\u0301",
]
NUMBERS = [-2.5, -1.0, 0.0, 0.1, 1.0, 2.0, 1e6]
TIMES = [
    datetime(2023, 12, 31, 23, 59, 59, 999999),
    datetime(2024, 1, 1),
    datetime(2024, 2, 29, 12, 30),
    datetime(2024, 2, 29, 12, 30, 5),
    datetime(2024, 3, 1),
    datetime(2025, 1, 1),
    datetime(1, 1, 1),
    datetime(9999, 12, 31, 23, 59, 59),
]


def like(pattern: str, word: str) -> bool:
    """SQL's LIKE, by dynamic programming over both."""
    reach = {0}
    for sign in pattern:
        if sign == "%":
            reach = set(range(min(reach, default=len(word) + 1), len(word) + 1))
        else:
            reach = {i + 1 for i in reach if i < len(word) and sign in ("_", word[i])}
    return len(word) in reach


def fold(text: str) -> str:
    return text.lower().replace("e\u0301", "é")


@st.composite
def leaves(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(KINDS)))
    kind = KINDS[name]
    sign = draw(
        st.sampled_from(["=", "==", "<", "<=", ">", ">=", "!=", "<>", "in", "not in", "like", "is", "is not"])
    )
    if sign.startswith("is"):
        return f"{name} {sign} null", lambda item: (name in item) == (sign == "is not")
    if sign == "like" and kind == "text":
        negative = draw(st.booleans())
        pattern = draw(st.text("%_reda né'\"", max_size=6) | st.sampled_from(WORDS))
        word = "not like" if negative else "like"
        return (
            f"{name} {word} {quoted(pattern)}",
            lambda item: name in item and any(like(fold(pattern), fold(v)) for v in item[name]) != negative,
        )
    if kind == "boolean" or sign == "like":
        sign = draw(st.sampled_from(["=", "!=", "in", "not in"]))

    def one() -> tuple[str, Callable[[str, Any], bool]]:
        if kind == "number":
            number = draw(st.sampled_from(NUMBERS))
            return f"{number:{draw(st.sampled_from(['', '+']))}}", lambda op, v: ORDERS[op](v, number)
        if kind == "boolean":
            flag = draw(st.booleans())
            return draw(st.sampled_from([str(flag), str(flag).lower()])), lambda op, v: ORDERS[op](v, flag)
        if kind == "text":
            word = draw(st.sampled_from(WORDS))
            return quoted(word, draw(st.sampled_from("'\""))), lambda op, v: ORDERS[op](v, word)
        length = draw(st.sampled_from([4, 7, 10, 13, 16, 19]))
        text = draw(st.sampled_from(TIMES)).isoformat()[:length]
        # at one precision, the order of ISO texts is the order of times
        return quoted(text.replace("T", draw(st.sampled_from("T ")))), lambda op, v: ORDERS[op](
            v.isoformat()[:length], text
        )

    if sign in ("in", "not in"):
        several = [one() for _ in range(draw(st.integers(1, 3)))]
        listed = ", ".join(text for text, _ in several)
        return (
            f"{name} {sign} ({listed})",
            lambda item: (
                name in item
                and any(test("=", v) for v in item[name] for _, test in several) == (sign == "in")
            ),
        )
    text, test = one()
    if sign in ("!=", "<>"):
        return (
            f"{name} {sign} {text}",
            lambda item: name in item and not any(test("=", v) for v in item[name]),
        )
    return f"{name}{sign}{text}", lambda item: any(test(sign, v) for v in item.get(name, ()))


def compound(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    def join(word: str, cases: list[Case]) -> Case:
        tests = [test for _, test in cases]
        decide = all if word.lower() == "and" else any
        text = f" {word} ".join(f"({text})" for text, _ in cases)
        return text, lambda item: decide(test(item) for test in tests)

    def negate(case: Case) -> Case:
        text, test = case
        return f"not ({text})", lambda item: not test(item)

    return st.builds(
        join, st.sampled_from(["and", "or", "AND", "Or"]), st.lists(inner, min_size=2, max_size=3)
    ) | inner.map(negate)


ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "price": st.sampled_from(NUMBERS).map(lambda value: [value]),
            "brand": st.sampled_from(WORDS).map(lambda value: [value]),
            "tags": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
            "sold": st.booleans().map(lambda value: [value]),
            "taken": st.sampled_from(TIMES).map(lambda value: [value]),
        },
    ),
    max_size=8,
)


@settings(max_examples=200)
@given(st.recursive(leaves(), compound, max_leaves=6), ITEMS)
def test_an_expression_holds_for_the_items_a_naive_evaluator_says(case: Case, items: list[Item]) -> None:
    expression, holds = case
    assert matching(expression, items) == [row for row, item in enumerate(items) if holds(item)]


@given(st.lists(leaves(), min_size=3, max_size=3), ITEMS)
def test_not_binds_tighter_than_and_and_and_tighter_than_or(cases: list[Case], items: list[Item]) -> None:
    (a, is_a), (b, is_b), (c, is_c) = cases
    expected = [row for row, item in enumerate(items) if is_a(item) or (not is_b(item) and is_c(item))]
    assert matching(f"{a} or not {b} and {c}", items) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("price = 1e6", [3]),
        ("price = .5 or price = 5. or price=-1E1", []),
        ("price in (1.0,2)", [1, 2]),
        ("tags = 'red'", [0, 2]),
        ("tags != 'red'", [1]),
        ("tags not in ('blue', 'no such word')", [1, 2]),
        ("tags in ('no such word', 'nor this')", []),
        ("not tags = 'red'", [1, 3]),
        ("tags like 'R_D' and tags like '%u%'", [0]),
        ("not not ((sold = TRUE))", [0]),
        ("`price` = 1", [1]),
        ("price is null", [0]),
        ("(price is not null)", [1, 2, 3]),
        ("tags > 'green'", [0, 2]),
        ("tags >= 'green'", [0, 1, 2]),
        ("tags < 'green'", [0]),
        ("tags <= 'green'", [0, 1]),
    ],
)
def test_an_expression_reads_as_documented(expression: str, expected: list[int]) -> None:
    items: list[Item] = [
        {"tags": ["red", "blue"], "sold": [True]},
        {"tags": ["green"], "price": [1.0], "sold": [False]},
        {"tags": ["red"], "price": [2.0]},
        {"price": [1e6]},
    ]
    assert matching(expression, items) == expected


@pytest.mark.parametrize(
    ("literal", "first", "after"),
    [
        ("2024", "2024-01-01T00:00:00", "2025-01-01T00:00:00"),
        ("2023", "2023-01-01T00:00:00", "2024-01-01T00:00:00"),
        ("2024-02", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("2024-12-31", "2024-12-31T00:00:00", "2025-01-01T00:00:00"),
        ("2024-05-01T12:30Z", "2024-05-01T12:30:00", "2024-05-01T12:31:00"),
        ("2024-05-01T12:30+02:00", "2024-05-01T10:30:00", "2024-05-01T10:31:00"),
        ("2024-05-01 22-0530", "2024-05-02T03:30:00", "2024-05-02T04:30:00"),
        ("2024-05-01T12:30:05.25", "2024-05-01T12:30:05.250000", "2024-05-01T12:30:05.260000"),
        ("0001-01-01T00:30+01:00", "0001-01-01T00:00:00", "0001-01-01T00:00:00"),
    ],
)
def test_a_date_is_an_interval_as_long_as_its_precision(literal: str, first: str, after: str) -> None:
    start, end = datetime.fromisoformat(first), datetime.fromisoformat(after)
    before, last = (
        max(moment, datetime(1, 1, 1, 0, 0, 0, 1)) - datetime.resolution for moment in (start, end)
    )
    items: list[Item] = [{"taken": [moment]} for moment in (before, start, last, end)]
    if start != end:
        assert matching(f"taken = {quoted(literal)}", items) == [1, 2]
        assert matching(f"taken < {quoted(literal)}", items) == [0]
        assert matching(f"taken <= {quoted(literal)}", items) == [0, 1, 2]
        assert matching(f"taken > {quoted(literal)}", items) == [3]
        assert matching(f"taken >= {quoted(literal)}", items) == [1, 2, 3]
        assert matching(f"taken != {quoted(literal)}", items) == [0, 3]
    else:  # an hour before the first moment a date can name
        assert matching(f"taken > {quoted(literal)}", items) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "literal",
    [
        "",
        "yesterday",
        "24",
        "2024-13",
        "2024-02-30",
        "2024-05-01T25",
        "2024-05-01T12:60",
        "0000",
        "2024-5-1",
        "2024-05+01:00",
        "\u0662\u0660\u0662\u0664",
        "2024-05-01T12:30:05.1234567",
        "'",
    ],
)
def test_what_is_no_date_is_refused(literal: str) -> None:
    with pytest.raises(QueryError, match="taken is a date"):
        matching(f"taken = {quoted(literal)}", [])


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("price = 'cheap'", ["price", "number", "'cheap'"]),
        ("price = true", ["price", "number", "true"]),
        ("price < '3'", ["price", "number"]),
        ("brand = 3", ["brand", "text"]),
        ("brand in ('a', false)", ["brand", "text", "false"]),
        ("sold = 1", ["sold", "true or false"]),
        ("sold = 'true'", ["sold", "true or false"]),
        ("sold < true", ["sold", "<"]),
        ("taken > 2024", ["taken", "date", "2024-05-01"]),
        ("taken like '2024%'", ["taken", "like"]),
        ("price like '1%'", ["price", "like"]),
        ("colour = 'red' and price = 1", ["colour"]),
        ("prize = 1", ["prize", "price"]),
    ],
)
def test_a_wrong_kind_or_name_is_refused_with_field_and_kind(expression: str, words: list[str]) -> None:
    full: Item = {"price": [1.0], "brand": ["a"], "sold": [True]}
    for items in ([], [full]):
        with pytest.raises(QueryError) as caught:
            evaluate(parse(expression), columns_of(items), len(items), known=KINDS)
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", ["empty"]),
        (" \n", ["empty"]),
        ("price", ["at its end", "="]),
        ("price =", ["a number"]),
        ("price = 1 2", ["before '2' at character 11", "and"]),
        ("brand = red", ["character 9", '"red"', "quotes"]),
        ("brand = 'red", ["character 9", "never closed"]),
        ("brand = “red”", ["character 9", "plain quotes"]),
        ("price = 1.2.3", ["character 9"]),
        ("price = 1and price = 2", ["character 9"]),
        ("(price = 1", ["expected )"]),
        ("price = 1)", ["before ')'"]),
        ("price in ()", ["before ')'"]),
        ("price in (1,)", ["before ')'"]),
        ("in = 3", ["backquotes"]),
        ("`` = 3", ["character 1"]),
        ("price = 1; drop table items", ["character 10"]),
        ("price = price", ["character 9"]),
        ("1 = price", ["character 1"]),
        ("price = - 1", ["character 9"]),
        ("brand like 3", ["a quoted text"]),
        ("x" * 100_001, ["longer"]),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(expression: str, words: list[str]) -> None:
    with pytest.raises(QueryError) as caught:
        parse(expression)
    assert all(word in str(caught.value) for word in words), str(caught.value)


TOKENS = st.sampled_from(
    [
        "price",
        "brand",
        "(",
        ")",
        ",",
        "and",
        "or",
        "not",
        "in",
        "like",
        "is",
        "null",
        "=",
        "<",
        ">=",
        "!=",
        "1",
        "-2.5",
        "'a'",
        '"%_"',
        "true",
        "`",
        "'",
        "--",
        ";",
        "\\",
        "\0",
        "é",
        "\ud800",
        "%",
        " ",
    ]
)


@given(
    st.text(max_size=30)
    | st.lists(TOKENS, max_size=12).map(" ".join)
    | st.lists(TOKENS, max_size=12).map("".join)
)
def test_garbage_is_a_query_error_or_a_filter(expression: str) -> None:
    items: list[Item] = [{"price": [1.0], "brand": ["a"]}]
    with contextlib.suppress(QueryError):
        evaluate(parse(expression), columns_of(items), len(items), known=KINDS)


@given(st.text(min_size=1), st.text(), st.sampled_from("'\""))
def test_names_and_texts_of_any_characters_come_through(name: str, text: str, mark: str) -> None:
    expression = parse(f"`{name.replace('`', '``')}` = {quoted(text, mark)}")
    assert expression.names() == {name}
    column = Column("text", np.array([1]), np.array([0], np.int32), Vocabulary([text]))
    assert list(evaluate(expression, {name: column}.get, 3)) == [False, True, False]


def test_names_are_those_of_the_whole_expression() -> None:
    expression = parse("a = 1 and (b in (1) or not c.d-e like 'x') and größe is null and not (a != 1)")
    assert expression.names() == {"a", "b", "c.d-e", "größe"}


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 40_000 + "price = 1" + ")" * 40_000,
        "not " * 20_000 + "price = 1",
        " or ".join(["price = 1"] * 7_000),
        "price in (" + ", ".join(["1"] * 30_000) + ")",
    ],
)
def test_a_long_filter_works(expression: str) -> None:
    assert matching(expression, [{"price": [1.0]}]) == [0]


@pytest.mark.parametrize(
    "expression",
    [
        "not (price = 2 and " * 4_000 + "price = 1" + ")" * 4_000,
        "(" * 90_000,
        "not (" * 9_000,
        "price in (" * 9_000,
    ],
)
def test_a_deeply_nested_filter_is_refused(expression: str) -> None:
    with pytest.raises(QueryError):
        parse(expression)


def test_wildcards_stand_for_newlines_too() -> None:
    items: list[Item] = [{"brand": ["two\nlines"]}]
    assert matching("brand like 'two_lines'", items) == matching("brand like '%o%s'", items) == [0]


def test_a_pattern_made_to_backtrack_is_answered() -> None:
    word = "a" * 20_000
    column = Column("text", np.array([0]), np.array([0], np.int32), Vocabulary([word]))
    expression = parse("x like '" + "%a_%" * 40 + "b'")  # a plain regex would need 20000 ** 40 steps
    assert not evaluate(expression, {"x": column}.get, 1).any()


def test_lark_is_imported_by_the_first_parse_only() -> None:
    code = """
import sys
import mmsearch.filters
assert "lark" not in sys.modules
mmsearch.filters.parse("a = 1")
assert "lark" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(st.lists(st.none() | PLACES, min_size=1, max_size=6), PLACES, st.floats(0, 20_100))
def test_a_distance_is_that_between_directions_on_a_sphere(
    places: list[tuple[float, float] | None], here: tuple[float, float], kilometres: float
) -> None:
    def direction(place: tuple[float, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        north, east = np.radians(place)
        return np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])

    rows = np.array([row for row, place in enumerate(places) if place], np.int64)
    known = [place for place in places if place]
    columns = {
        name: Column("number", rows, np.array([place[axis] for place in known], np.float64))
        for axis, name in enumerate(("lat", "lon"))
    }
    shown = f"distance(lat, lon, {here[0]:.12f}, {here[1]:.12f})"
    found = distances("lat", "lon", here, columns.get, len(places))
    for sign in ("<", ">="):
        mask = evaluate(parse(f"{shown} {sign} {kilometres:.9f}"), columns.get, len(places))
        for row, place in enumerate(places):
            if place is None:
                assert np.isnan(found[row])
                assert not mask[row]
                continue
            a, b = direction(place), direction(here)
            right = 6371.0088 * np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)
            assert found[row] == pytest.approx(right, abs=1e-3)
            if abs(right - kilometres) > 0.01:
                assert mask[row] == ((right < kilometres) == (sign == "<"))


def test_a_distance_in_a_filter_is_read_and_refused_by_its_place() -> None:
    expression = parse("Distance(a, `b c`, -1, +2.5) <= 3 and distance > 1")
    assert expression.names() == {"a", "b c", "distance"}
    for wrong in ("distance(a, b, 1, 2) = 3", "distance(a, b, 1) < 3", "distance(1, 2, a, b) < 3"):
        with pytest.raises(QueryError, match="bad filter"):
            parse(wrong)
    columns = {name: Column("number", np.array([0]), np.array([1.0])) for name in "ab"}
    columns["word"] = Column("text", np.array([0]), np.array([0], np.int32), Vocabulary(["x"]))
    for wrong, words in (
        ("distance(a, b, 91, 0) < 1", "no place on earth"),
        ("distance(a, word, 0, 0) < 1", "needs a number"),
        ("distance(a, nowhere, 0, 0) < 1", "nowhere"),
    ):
        with pytest.raises(QueryError, match=words):
            evaluate(parse(wrong), columns.get, 1)
