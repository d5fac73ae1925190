"""From rows of a result to hits: items read in one go, the part that matched, variants, highlights, explanations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import Catalog
from mmsearch.highlighting import Highlighter
from mmsearch.shapes import Group, Stage
from mmsearch.types import Hit, Item, Modality, Query
from mmsearch.view import State

if TYPE_CHECKING:
    from mmsearch.ordering import Made


@dataclasses.dataclass(frozen=True)
class Page:
    """Rows of a result to be shown; ``start`` of its rows come before."""

    catalog: Catalog
    collection: int
    state: State
    query: Query
    made: Made
    rows: Sequence[int]
    start: int
    passing: NDArray[np.bool_]


def present(page: Page) -> list[Hit]:
    """The hits of a page. Items that another process has just removed are left out."""
    made, query = page.made, page.query
    grouped = query.group_by is not None
    members = {
        row: [int(one) for one in made.ranked.members(row, query.group_size) if page.passing[one]]
        for row in (page.rows if grouped else ())
    }
    every = list(dict.fromkeys([*page.rows, *(one for some in members.values() for one in some)]))
    if not every:
        return []
    ids = page.state.columns.item_ids[every].tolist()
    id_of = dict(zip(every, ids, strict=True))
    items = page.catalog.existing(page.collection, ids, with_parts=query.highlight, fields=query.fields)
    best = _best_parts(page, np.array(every))
    parts = page.catalog.parts_by_id(list(best.values()))
    pictures = _pictures(page, np.array(every))
    replaced = [row for row in every if id_of[row] in items and best.get(row) not in parts]
    if replaced:  # a moment ago: what is now in its place stands for it
        now = page.catalog.existing(page.collection, [id_of[row] for row in replaced], with_parts=True)
        for row in replaced:
            if (item := now.get(id_of[row])) is not None and item.parts:
                best[row], parts[item.parts[0].id] = item.parts[0].id, item.parts[0]
    marker = None
    if query.highlight and made.wording is not None and page.state.full_text is not None:
        marker = Highlighter(made.wording, page.state.full_text)
    copies = _copies(page, items)
    values = _group_values(page) if grouped else {}

    def hit(row: int, rank: int, group: Group | None = None) -> Hit | None:
        item = items.get(id_of[row])
        part = parts.get(best.get(row, 0))
        if item is None or part is None:
            return None
        return Hit(
            rank=rank,
            score=float(made.scores[row]),
            item=item,
            part=part,
            copies=copies.get(item.id, ()),
            group=group,
            highlights=marker.highlights(item, part.id) if marker else (),
            explanation=_explained(page, row) if query.explain else (),
            pinned=row in pinned,
            picture=pictures.get(row),
        )

    pinned = set(made.ranked.head[: made.pinned])
    hits: list[Hit] = []
    for row in page.rows:
        rank = page.start + len(hits) + 1
        group = None
        if grouped:
            variants = [found for n, one in enumerate(members[row], 1) if (found := hit(one, n)) is not None]
            item = items.get(id_of[row])
            name = values.get(row) or (item.key if item else "")
            group = Group(value=name, size=made.ranked.size(row), hits=tuple(variants))
        found = hit(row, rank, group)
        if found is not None:
            hits.append(found)
    return hits


def _best_parts(page: Page, rows: NDArray[np.int64]) -> dict[int, int]:
    """Of each row the id of its best part; without a vector query of its first one."""
    made, best = page.made, dict[int, tuple[float, int]]()
    if made.vector is not None and page.state.matrices:
        found = page.state.exact(page.catalog, rows, made.vector, made.scales)
    else:
        found = []
        for modality, parts in page.state.columns.parts.items():
            if page.query.modality in (None, modality):
                places = page.state.places(modality, rows)
                found.append((parts.rows[places], parts.ids[places], np.zeros(len(places), np.float32)))
    for owners, ids, scores in found:
        for row, part, score in zip(owners.tolist(), ids.tolist(), scores.tolist(), strict=True):
            best[row] = max(best.get(row, (-np.inf, 0)), (score, -part))  # ties go to the lower part id
    return {row: -part for row, (_, part) in best.items()}


def _pictures(page: Page, rows: NDArray[np.int64]) -> dict[int, int]:
    """Of each row that has pictures the id of the first one: parts of an item get their ids in their order."""
    parts = page.state.columns.parts[Modality.IMAGE]
    places = page.state.places(Modality.IMAGE, rows)[::-1]
    return dict(zip(parts.rows[places].tolist(), parts.ids[places].tolist(), strict=True))


def _copies(page: Page, items: dict[int, Item]) -> dict[int, tuple[str, ...]]:
    """Keys of the byte-identical items of each that may be shown as well."""
    contents = {item.content_hash for item in items.values() if item.content_hash is not None}
    columns = page.state.columns
    every = columns.contents
    if not contents or len(every.vocabulary) == len(every.rows):  # no two are alike
        return {}
    may = columns.mask(page.query.where, page.query.path)
    eligible = np.zeros(len(may), np.bool_)
    eligible[: len(page.made.eligible)] = page.made.eligible
    may &= eligible
    alike: dict[bytes, list[tuple[int, str]]] = {}
    found = page.catalog.same_content(page.collection, contents)
    rows, known = columns.places([item_id for item_id, _, _ in found])
    known[known] = may[rows[known]]
    for (item_id, key, content), shown in zip(found, known.tolist(), strict=True):
        if shown:
            alike.setdefault(content, []).append((item_id, key))
    return {
        item.id: tuple(key for other, key in alike.get(item.content_hash or b"", ()) if other != item.id)
        for item in items.values()
    }


def _group_values(page: Page) -> dict[int, str]:
    assert page.query.group_by is not None
    column = page.state.columns.column(page.query.group_by)
    if column is None:
        return {}
    wanted = np.isin(column.rows, page.rows)
    found: dict[int, str] = {}
    for row, code in zip(column.rows[wanted].tolist(), column.values[wanted].tolist(), strict=True):
        found.setdefault(row, column.vocabulary[int(code)])
    return found


def _explained(page: Page, row: int) -> list[Stage]:
    """What each stage said of a row."""
    made = page.made
    chosen = made.ranked.chosen
    stages: list[Stage] = []
    for name, scores in made.stages.items():
        score = float(scores[row])
        ranks = name in ("vector", "text", "fused") and (name != "text" or score > 0)
        rank = int(np.count_nonzero(scores[chosen] > score)) + 1 if ranks else None
        stages.append(
            Stage(name=name, score=score, rank=rank, note=_said(page, row) if name == "text" else "")
        )
    if row in made.chosen_by:
        stages.append(Stage(name="diversity", score=made.chosen_by[row]))
    if row in made.ranked.head[: made.pinned]:
        stages.append(Stage(name="pinned", score=1.0, rank=list(made.ranked.head).index(row) + 1))
    return stages


def _said(page: Page, row: int) -> str:
    """The words of the query that an item holds, as it holds them."""
    wording, full_text = page.made.wording, page.state.full_text
    if wording is None or full_text is None:
        return ""
    found = [
        full_text.stems[code] for code in wording.codes if row in full_text.rows[full_text.postings(code)[0]]
    ]
    return " ".join(sorted(found))
