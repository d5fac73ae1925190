"""Rows of a table as products: usual names, kinds of values, pictures, and what is wrong with rows."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.feeds import read_layout
from indexer.kinds import infer
from indexer.product import Product
from indexer.product_rows import FIELDS, Layout, Rows, split_images
from mmsearch.errors import ConfigError, MediaError
from mmsearch.tables import Problems, Row, read_table

FOLDER = Path("/shop")


def read(
    *rows: Mapping[str, str | tuple[str, ...]],
    layout: Layout | None = None,
    kinds: Mapping[str, str] | None = None,
) -> tuple[list[Product], dict[str, str], list[tuple[str, str]]]:
    """Products, deleted keys, and problems of rows."""
    problems = Problems(Path("feed.csv"))
    numbered = [Row(f"line {n}", dict(cells)) for n, cells in enumerate(rows, start=2)]
    products, gone = Rows(numbered, layout or Layout(), kinds or {}, FOLDER, problems).read()
    return products, gone, list(problems)


def one(**cells: str | tuple[str, ...]) -> Product:
    (product,), _, problems = read({"id": "1", **cells})
    assert problems == []
    return product


def test_a_google_merchant_feed_needs_no_mapping() -> None:
    (product,), gone, problems = read(
        {
            "g:id": "SKU-1",
            "title": "Red shirt",
            "description": "<p>Soft.</p><ul><li>Cotton</li></ul>",
            "g:image_link": "https://shop.example/a,b.jpg",
            "g:additional_image_link": "https://shop.example/c.jpg,https://shop.example/d.jpg",
            "g:price": "1,299.90 USD",
            "g:item_group_id": "SKU",
            "g:availability": "in stock",
            "g:gtin": "09312345678907",
        }
    )
    assert (gone, problems) == ({}, [])
    assert (product.key, product.title, product.description) == ("SKU-1", "Red shirt", "Soft.\n\nCotton")
    assert product.images == tuple(f"https://shop.example/{name}" for name in ("a,b.jpg", "c.jpg", "d.jpg"))
    assert product.attributes == {
        "price": 1299.9,
        "price_currency": "USD",
        "parent": "SKU",
        "availability": "in stock",
        "gtin": "09312345678907",
    }


def test_columns_are_found_whatever_their_case_and_the_first_usual_name_wins() -> None:
    (product,), _, _ = read({"SKU": "s", "Id": "i", "Name": "n", "Image URL": "a.jpg", "photo": "b.jpg"})
    assert (product.key, product.title, product.attributes) == ("i", "n", {"SKU": "s"})
    assert product.images == ("/shop/a.jpg", "/shop/b.jpg")


def test_a_layout_names_columns_kinds_and_what_is_left_out() -> None:
    layout = Layout(
        columns={"id": ("nr",), "title": ("de",), "images": ("p2", "p1"), "colour": ("farbe",)},
        types={"size": "text", "code": "number"},
        ignore=("internal",),
    )
    (product,), _, problems = read(
        {"nr": "7", "id": "x", "de": "Hemd", "title": "shirt", "p1": "1.jpg", "p2": "2.jpg", "farbe": "rot"}
        | {"size": "38", "code": "007", "internal": "secret"},
        layout=layout,
    )
    assert problems == []
    assert (product.key, product.title, product.images) == ("7", "Hemd", ("/shop/2.jpg", "/shop/1.jpg"))
    assert {name: product.attributes[name] for name in ("colour", "size", "code")} == {
        "colour": "rot",
        "size": "38",
        "code": 7,
    }
    assert "internal" not in product.attributes


def test_no_column_with_ids_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="--column id=COLUMN; there are: nr, name"):
        read({"nr": "1", "name": "x"})


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1", "2.5", "-3e2"], "number"),
        (["12.99 USD", "EUR 1.299,00", "$5"], "number"),
        (["true", "No"], "boolean"),
        (["2024-05-01", "2024-05-01T10:00:00Z", "2024-05-01 10:00+02:00"], "datetime"),
        (["1", "M"], "text"),
        (["true", "1"], "text"),
        (["007", "12"], "text"),
        (["2024-13-01"], "text"),
        (["100 GSM"], "text"),
        (["12,99"], "text"),
        (["nan"], "text"),
        (["inf"], "text"),
        (["9007199254740993"], "text"),
        ([], "text"),
    ],
)
def test_the_kind_of_a_column_is_what_all_of_its_values_can_be(words: list[str], kind: str) -> None:
    assert infer(words) == kind


@pytest.mark.parametrize(
    ("column", "words", "values"),
    [
        ("price", ["12,99", "5", "1.299,00"], [12.99, 5, 1299]),
        ("Sale Price", ["0,50", "1,299"], [0.5, 1299]),
        ("Preis", ["3,50"], [3.5]),
        ("price", ["12,99", "on request"], ["12,99", "on request"]),
        ("price", ["9,0071992547409931"], ["9,0071992547409931"]),
        ("sizes", ["38,39"], ["38,39"]),
        ("pricey", ["38,39"], ["38,39"]),
    ],
)
def test_a_comma_in_a_column_of_prices_stands_before_the_cents(
    column: str, words: list[str], values: list[object]
) -> None:
    products, _, _ = read(*({"id": str(n), column: word, "title": "x"} for n, word in enumerate(words)))
    assert [product.attributes[column] for product in products] == values


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["3"] * 9 + ["N/A"], "price is kept as a text: 'N/A' is no number, as 9 of 10 values are"),
        (
            ["2024-05-01"] * 4 + ["soon"],
            "price is kept as a text: 'soon' is no datetime, as 4 of 5 values are",
        ),
        (["3"] * 9 + ["007"], None),
        (["3"] * 7 + ["S", "M", "L"], None),
        (["3"] * 10, None),
    ],
)
def test_a_column_that_is_text_because_of_a_few_values_is_told(words: list[str], told: str | None) -> None:
    numbered = [Row(f"line {n}", {"id": str(n), "title": "x", "price": word}) for n, word in enumerate(words)]

    def notes(layout: Layout, kinds: Mapping[str, str]) -> list[str]:
        return Rows(numbered, layout, kinds, FOLDER, Problems(Path("feed.csv"))).notes

    assert [note[: len(told or "")] for note in notes(Layout(), {})] == ([told] if told else [])
    assert notes(Layout(types={"price": "text"}), {}) == []
    assert notes(Layout(), {"price": "text"}) == [], "it was told when it was new"


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15), min_size=1)
)
def test_numbers_come_back_as_they_were(numbers: list[float]) -> None:
    rows = [{"id": str(n), "x": repr(number)} for n, number in enumerate(numbers)]
    products, _, problems = read(*rows)
    assert problems == []
    assert [product.attributes["x"] for product in products] == numbers


@given(st.lists(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)), min_size=1))
def test_dates_come_back_as_they_were(times: list[datetime]) -> None:
    zone = timezone(timedelta(hours=2))
    rows = [
        {"id": str(n), "x": (when + timedelta(hours=2)).replace(tzinfo=zone).isoformat()}
        for n, when in enumerate(times)
    ]
    products, _, problems = read(*rows)
    assert problems == []
    assert [product.attributes["x"] for product in products] == times


@given(st.text(min_size=1).map(str.strip).filter(bool))
def test_any_text_is_kept_as_a_text(words: str) -> None:
    product = one(x=words, y="a", z=("b", words))
    assert product.attributes["z"] == ["b", words]
    assert isinstance(product.attributes["x"], str | float | int | bool | datetime)
    if infer([words]) == "text":
        assert product.attributes["x"] == words


@given(
    cents=st.integers(0, 10**9),
    currency=st.sampled_from(["USD", "EUR", "€"]),
    comma=st.booleans(),
    behind=st.booleans(),
)
def test_prices_are_numbers_and_currencies(cents: int, currency: str, comma: bool, behind: bool) -> None:
    plain = f"{cents // 100:,}.{cents % 100:02}"
    amount = plain.translate(str.maketrans(",.", ".,")) if comma else plain
    product = one(price=f"{amount} {currency}" if behind else f"{currency}{amount}")
    assert product.attributes["price_currency"] == currency
    assert math.isclose(float(str(product.attributes["price"])), cents / 100)


def test_the_kind_of_the_collection_wins_over_what_a_column_looks_like() -> None:
    products, _, problems = read(
        {"id": "1", "size": "38", "price": "12,99"},
        {"id": "2", "size": "40", "price": "cheap"},
        kinds={"size": "text", "price": "number"},
    )
    assert [product.attributes for product in products] == [{"size": "38", "price": 12.99}]
    assert problems == [("line 3", "price: 'cheap' is no number")]


def test_tags_are_lists() -> None:
    assert one(tags="a, b,a").attributes == {"tags": ["a", "b"]}
    assert one(Keywords="a, b|c").attributes == {"Keywords": ["a, b", "c"]}
    assert one(sizes=("S", "M")).attributes == {"sizes": ["S", "M"]}
    layout = Layout(types={"colour": "list"})
    (product,), _, _ = read({"id": "1", "colour": "red|blue"}, layout=layout)
    assert product.attributes == {"colour": ["red", "blue"]}


@pytest.mark.parametrize(
    ("cell", "sources"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg, b.jpg", ["a.jpg", "b.jpg"]),
        ("a,b.jpg|c.jpg", ["a,b.jpg", "c.jpg"]),
        ("a,b.jpg|", ["a,b.jpg"]),
        ("a.jpg\nb.jpg\r\nc.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        ("https://x/a,b.jpg", ["https://x/a,b.jpg"]),
        ("https://x/a,b.jpg, https://x/c.jpg", ["https://x/a,b.jpg", "https://x/c.jpg"]),
        (" | ", []),
    ],
)
def test_several_pictures_in_a_cell(cell: str, sources: list[str]) -> None:
    assert split_images(cell) == sources


def test_pictures_start_at_the_folder_and_come_once() -> None:
    product = one(images=("a.jpg", "/else/b.jpg", "a.jpg", "//cdn.example/c.jpg"))
    assert product.images == ("/shop/a.jpg", "/else/b.jpg", "https://cdn.example/c.jpg")


def test_rows_without_an_id_or_with_one_that_was_there_are_refused() -> None:
    products, _, problems = read({"id": "1", "title": "a"}, {"title": "b"}, {"id": "1", "title": "c"})
    assert [product.title for product in products] == ["a"]
    assert problems == [("line 3", "it has no id"), ("line 4", "the id '1' is that of line 2, too")]


def test_a_column_says_what_is_deleted() -> None:
    products, gone, problems = read(
        {"id": "1", "deleted": "true"},
        {"id": "2", "deleted": "0"},
        {"id": "3"},
        {"id": "4", "deleted": "perhaps"},
    )
    assert [product.key for product in products] == ["2", "3"]
    assert gone == {"1": "line 2"}
    assert problems == [("line 5", "deleted: 'perhaps' is neither true nor false")]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.integers(0, 999).map(str)},
            optional={
                "title": st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1),
                "price": st.integers(0, 10**6).map(lambda n: n / 100),
                "sold": st.booleans(),
                "since": st.dates(date(1990, 1, 1), date(2050, 1, 1)),
            },
        ),
        min_size=1,
        unique_by=lambda row: str(row["id"]),
    )
)
def test_csv_json_lines_and_parquet_give_the_same_products(
    tmp_path_factory: Any, rows: list[dict[str, Any]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("feeds")
    names = ["id", "title", "price", "sold", "since"]
    with (folder / "feed.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row, default=date.isoformat) for row in rows]
    (folder / "feed.jsonl").write_text("\n".join(lines))
    types = [pa.string(), pa.string(), pa.float64(), pa.bool_(), pa.date32()]
    schema = pa.schema(list(zip(names, types, strict=True)))
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "feed.parquet")
    expected = {
        row["id"]: {"price": row.get("price"), "sold": row.get("sold"), "since": row.get("since")}
        for row in rows
    }
    for suffix in ("csv", "jsonl", "parquet"):
        problems = Problems(folder)
        table = read_table(folder / f"feed.{suffix}", fold=False, problems=problems)
        products, _ = Rows(table, Layout(), {}, folder, problems).read()
        assert list(problems) == []
        assert [product.key for product in products] == [row["id"] for row in rows]
        assert [product.title for product in products] == [row.get("title") for row in rows]
        for product in products:
            wanted = {name: value for name, value in expected[product.key].items() if value is not None}
            if "since" in wanted:
                wanted["since"] = datetime.combine(wanted["since"], datetime.min.time())
            assert product.attributes == wanted


def test_lines_that_cannot_be_read_are_problems_and_the_others_go_in(tmp_path: Path) -> None:
    problems = Problems(tmp_path)
    (tmp_path / "feed.jsonl").write_text('{"id": 1}\nnonsense\n[1]\n{"id": 2, "x": {"y": 1}}\n{"id": 3}\n')
    rows = read_table(tmp_path / "feed.jsonl", problems=problems)
    assert [row.cells for row in rows] == [{"id": "1"}, {"id": "3"}]
    assert [place for place, _ in problems] == ["line 2", "line 3", "line 4"]
    (tmp_path / "feed.csv").write_text('id,x\n1,a\n2,b,c\n3,"d\n4,e\n')
    problems = Problems(tmp_path)
    rows = read_table(tmp_path / "feed.csv", problems=problems)
    assert [row.cells["id"] for row in rows] == ["1"]
    assert [place for place, _ in problems] == ["line 3", "line 4"]


def test_a_file_of_which_no_line_can_be_read_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    """And not that it has no columns."""
    (tmp_path / "feed.csv").write_text('id,title\n1,"never closed\n2,b\n')
    with pytest.raises(MediaError, match="line 2: unexpected end of data"):
        read_table(tmp_path / "feed.csv", problems=Problems(tmp_path))


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text("﻿ID;Preis;Titel\n1;12,99 EUR;a,b\n")
    (row,) = read_table(tmp_path / "feed.csv", fold=False)
    assert row.cells == {"ID": "1", "Preis": "12,99 EUR", "Titel": "a,b"}


def test_a_mapping_file_is_read_and_its_mistakes_are_told(tmp_path: Path) -> None:
    toml, plain = tmp_path / "map.toml", tmp_path / "map.json"
    toml.write_text(
        'root = "images"\nignore = ["x"]\n[columns]\nid = "nr"\nimages = ["a", "b"]\n[types]\nsize = "text"\n'
    )
    layout = read_layout(toml)
    assert layout == Layout(
        columns={"id": ("nr",), "images": ("a", "b")}, types={"size": "text"}, ignore=("x",), root="images"
    )
    plain.write_text(json.dumps(layout.as_dict()))
    assert read_layout(plain) == layout
    for text, told in [
        ("x = 1", "unknown key 'x'"),
        ('[types]\nsize = "float"', "types.size is 'float'"),
        ("[columns]\nid = 1", "columns.id must be"),
        ("columns = 1", "columns must be a table"),
        ("root = 1", "root must be a text"),
        ("= nonsense", "cannot be read"),
    ]:
        toml.write_text(text)
        with pytest.raises(ConfigError, match=told) as caught:
            read_layout(toml)
        assert str(toml) in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        read_layout(tmp_path / "none.toml")


def test_the_usual_names_are_of_one_field_each() -> None:
    names = [name for usual in FIELDS.values() for name in usual]
    assert len(set(names)) == len(names)
