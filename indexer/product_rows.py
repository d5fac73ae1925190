"""From the rows of a table to products: which column is what, and of what kind the values of each are.

Nothing needs to be said of tables with the usual names (those of Google Merchant feeds and of shop systems among them).
All other columns become attributes. Their kind is the one that is asked for, else the one that the attribute has in the
collection, else what all values of the column look like.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from indexer.addresses import is_url
from indexer.kinds import KINDS, SWITCHES, Kind, infer, is_price, nearly, value_of
from indexer.product import Product
from mmsearch.documents import without_markup
from mmsearch.errors import ConfigError
from mmsearch.tables import Problems, Row
from mmsearch.types import AttributeValue

__all__ = ["FIELDS", "Layout", "Rows", "split_images"]

FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "sku", "product_id", "item_id", "variant_id", "variant_sku", "key"),
    "title": ("title", "name", "product_title", "product_name", "product_display_name"),
    "description": (
        "description",
        "body",
        "body_html",
        "body_(html)",
        "long_description",
        "product_description",
    ),
    "images": (
        *(
            "images",
            "image",
            "image_link",
            "image_links",
            "image_url",
            "image_urls",
            "image_src",
            "photo",
            "photos",
        ),
        *("picture", "pictures", "additional_image_link", "additional_image_links", "additional_images"),
    ),
    "parent": ("parent", "parent_id", "item_group_id", "group_id", "parent_sku"),
    "delete": ("delete", "deleted", "is_deleted"),
}
"""What a product has, and the columns that stand for it where nothing else is said; all that are there hold images,
of the others the first. Case, blanks for underscores and a leading ``g:`` make no difference.
"""

_LISTS = frozenset(("tags", "keywords", "labels"))
_NAMES = frozenset(
    ("gtin", "ean", "upc", "isbn", "mpn", "barcode", "sku", "asin", "phone", "zip", "postcode")
)
_PRICED = re.compile(r"(?:^|_)(?:price|preis|prix|precio|prezzo|prijs|cost|msrp|rrp)(?:_|$)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a table is read. ``columns``: field or attribute -> its columns; ``types``: attribute -> kind; ``ignore``:
    columns that are left out; ``root``: the folder that relative paths of pictures start from (the table's own).
    """

    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    types: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    root: str | None = None

    @classmethod
    def from_dict(cls, given: Mapping[str, object], source: str) -> Layout:
        """A layout from the plain values of a mapping file. Raises ``ConfigError`` that names ``source`` and key."""
        if unknown := sorted(set(given) - {field.name for field in dataclasses.fields(cls)}):
            raise ConfigError(
                f"{source}: unknown key {unknown[0]!r}; there are columns, types, ignore and root"
            )
        columns = {
            name: _texts(value, f"{source}: columns.{name}")
            for name, value in _table(given, "columns", source)
        }
        types: dict[str, Kind] = {}
        for name, value in _table(given, "types", source):
            if value not in KINDS:
                raise ConfigError(
                    f"{source}: types.{name} is {value!r}; it must be one of {', '.join(KINDS)}"
                )
            types[name] = value
        root = given.get("root")
        if not isinstance(root, str | None):
            raise ConfigError(f"{source}: root must be a text")
        return cls(
            columns=columns,
            types=types,
            ignore=_texts(given.get("ignore", ()), f"{source}: ignore"),
            root=root,
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values, from which ``from_dict`` makes the same layout."""
        columns = {name: list(names) for name, names in self.columns.items()}
        return {"columns": columns, "types": dict(self.types), "ignore": list(self.ignore), "root": self.root}


class Rows:
    """The rows of a table read with a layout.

    ``kinds`` are those of the collection's attributes, ``folder`` is where relative paths of pictures start. What is
    wrong with rows goes to ``problems``, ``keys`` are those of all rows that have one (once read), ``notes`` is what is
    odd, ``nameless`` counts rows without a key. Raises ``ConfigError`` if no column has the ids.
    """

    def __init__(
        self, rows: Sequence[Row], layout: Layout, kinds: Mapping[str, str], folder: Path, problems: Problems
    ) -> None:
        self.notes: list[str] = []
        self.keys: set[str] = set()
        self.nameless = 0
        self._rows = rows
        self._folder = folder
        self._problems = problems
        self._columns = list(dict.fromkeys(name for row in rows for name in row.cells))
        self._fields = self._find(layout)
        if not self._fields["id"]:
            there = ", ".join(self._columns[:20]) or "none"
            raise ConfigError(
                f"no column has the ids of the products: name it with --column id=COLUMN; there are: {there}"
            )
        self._kinds = self._settle(layout, kinds)

    def _find(self, layout: Layout) -> dict[str, tuple[str, ...]]:
        """The columns of each field and attribute."""
        there = set(self._columns)
        found: dict[str, tuple[str, ...]] = {}
        for name, columns in layout.columns.items():
            self.notes += [
                f"no row has anything in column {column!r}" for column in columns if column not in there
            ]
            found[name] = tuple(column for column in columns if column in there)
        taken = {column for columns in layout.columns.values() for column in columns} | set(layout.ignore)
        plain: dict[str, list[str]] = {}
        for column in self._columns:
            if column not in taken:
                plain.setdefault(_plain(column), []).append(column)
        for field, usual in FIELDS.items():
            if field not in found:
                known = [column for name in usual for column in plain.get(name, ())]
                found[field] = tuple(known if field == "images" else known[:1])
            taken.update(found[field])
        for column in self._columns:
            if column not in taken:
                name = re.sub(r"^g:", "", column, flags=re.I)
                found.setdefault(name, ())
                found[name] += (column,)
        return found

    def _settle(self, layout: Layout, known: Mapping[str, str]) -> dict[str, Kind]:
        """The kind of each attribute."""
        kinds: dict[str, Kind] = {}
        for name, columns in self._fields.items():
            if name in FIELDS and name != "parent":
                continue
            if name == "parent":
                kinds[name] = "text"
            elif name in layout.types:
                kinds[name] = layout.types[name]
            elif _plain(name) in _LISTS and known.get(name, "text") == "text":
                kinds[name] = "list"
            elif name in known:
                kinds[name] = next(kind for kind in KINDS if kind == known[name])
            else:
                cells = [row.cells[column] for row in self._rows for column in columns if column in row.cells]
                kinds[name] = "text" if _plain(name) in _NAMES else infer(cells)
                if kinds[name] == "text" and _PRICED.search(_plain(name)) and all(map(is_price, cells)):
                    kinds[name] = "number"
                elif kinds[name] == "text" and _plain(name) not in _NAMES:
                    self.notes += nearly(name, cells)
        return kinds

    def read(self) -> tuple[list[Product], dict[str, str]]:
        """The products, and the keys of those to be removed with their places. A key comes once."""
        products: list[Product] = []
        gone: dict[str, str] = {}
        seen: dict[str, str] = {}
        for row in self._rows:
            key = None
            try:
                key = self._one(row, "id")
                if key is None:
                    raise ValueError("it has no id")
                if key in seen:
                    raise ValueError(f"the id {key!r} is that of {seen[key]}, too")
                seen[key] = row.place
                self.keys.add(key)
                if self._deleted(row):
                    gone[key] = row.place
                else:
                    products.append(self._product(row, key))
            except ValueError as error:
                self.nameless += key is None
                self._problems.add(row.place, str(error))
        return products, gone

    def _product(self, row: Row, key: str) -> Product:
        description = "\n\n".join(row.all(*self._fields["description"])) or None
        sources: list[str] = []
        for column in self._fields["images"]:
            listed = row.cells.get(column, ())
            sources += split_images(listed) if isinstance(listed, str) else listed
        attributes: dict[str, AttributeValue] = {}
        for name, kind in self._kinds.items():
            cell = next((row.cells[column] for column in self._fields[name] if column in row.cells), None)
            if cell is not None:
                attributes |= value_of(name, kind, cell)
        return Product(
            key=key,
            title=self._one(row, "title"),
            description=without_markup(description).strip() if description else None,
            images=tuple(dict.fromkeys(self._placed(source) for source in sources)),
            attributes=attributes,
            place=row.place,
        )

    def _one(self, row: Row, field: str) -> str | None:
        return row.one(*self._fields[field]) if self._fields[field] else None

    def _deleted(self, row: Row) -> bool:
        words = self._one(row, "delete")
        if words is None:
            return False
        if (found := (SWITCHES | {"delete": True, "deleted": True}).get(words.lower())) is None:
            raise ValueError(f"{self._fields['delete'][0]}: {words!r} is neither true nor false")
        return found

    def _placed(self, source: str) -> str:
        """A path from the folder of the pictures, an address as it is."""
        if source.startswith("//"):
            return f"https:{source}"
        return source if is_url(source) else str((self._folder / source).absolute())


def split_images(cell: str) -> list[str]:
    """The paths or addresses in one cell: between ``|`` or line ends, or, if there are none, between commas; an address
    may hold commas, so what follows one there must be an address again.
    """
    found = re.split(r"[|\r\n]+", cell)
    if len(found) == 1:
        found = re.split(r",\s*(?=https?://)" if is_url(cell) else r",", cell, flags=re.I)
    return [source.strip() for source in found if source.strip()]


def _plain(name: str) -> str:
    """A name of a column as ``FIELDS`` writes it."""
    return re.sub(r"[\s-]+", "_", name.strip().lower().removeprefix("g:"))


def _table(given: Mapping[str, object], key: str, source: str) -> Iterable[tuple[str, object]]:
    value = given.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source}: {key} must be a table")
    return value.items()


def _texts(value: object, where: str) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(one, str) and one for one in found):
        raise ConfigError(f"{where} must be a name of a column, or a list of them")
    return tuple(found)
