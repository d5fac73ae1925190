"""Attributes keep their kinds and values through the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.attributes import from_seconds, kind_of, to_seconds

ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FIRST, LAST = datetime(1836, 1, 1), datetime(2105, 1, 1)
EXACT = st.datetimes(FIRST, LAST) | st.datetimes(FIRST, LAST, timezones=ZONES)


@given(EXACT)
def test_a_datetime_comes_back_in_utc_to_the_microsecond(value: datetime) -> None:
    utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    assert from_seconds(to_seconds(value)) == utc.replace(tzinfo=None)


@given(st.datetimes() | st.datetimes(timezones=ZONES))
def test_any_datetime_can_be_stored_and_read(value: datetime) -> None:
    seconds = to_seconds(value)
    assert abs(to_seconds(from_seconds(seconds)) - seconds) < 1e-3 or not 1 < value.year < 9999


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "boolean"),
        (False, "boolean"),
        (0, "number"),
        (2**53, "number"),
        (2**53 + 1, None),
        (-(10**400), None),
        (1.5, "number"),
        (float("nan"), None),
        (float("inf"), None),
        ("", "text"),
        (["a"], "text"),
        (("a", "b"), "text"),
        ([], "text"),
        (["a", 1], None),
        (b"a", None),
        (None, None),
        ({"a": 1}, None),
        (datetime(2024, 1, 1), "datetime"),
        (datetime(2024, 1, 1).date(), None),
    ],
)
def test_the_kind_of_a_value(value: object, kind: str | None) -> None:
    assert kind_of(value) == kind
