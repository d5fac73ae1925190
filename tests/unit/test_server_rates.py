"""Rates are token buckets: compared with a bucket that is filled drop by drop, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mmsearch.server.access import Buckets

Visits = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50_000)), max_size=80)


@given(visits=Visits, rate=st.integers(1, 20))
def test_a_bucket_gives_what_has_flowed_into_it(visits: list[tuple[str, int]], rate: int) -> None:
    now = 0.0
    buckets = Buckets(lambda: now)
    held = dict.fromkeys("abc", Fraction(rate))
    for who, waited_ms in visits:
        now += waited_ms / 1000
        held = {
            name: min(Fraction(rate), of + Fraction(waited_ms * rate, 60_000)) for name, of in held.items()
        }
        late = buckets.take(who, rate)
        if abs(held[who] - 1) < Fraction(1, 10**6):
            held[who] -= not late  # on the edge either will do
        elif held[who] > 1:
            held[who] -= 1
            assert late == 0.0
        else:
            assert abs(late - float((1 - held[who]) * 60 / rate)) < 1e-4


def test_what_a_refusal_says_is_when_the_next_is_taken() -> None:
    now = 100.0
    buckets = Buckets(lambda: now)
    for _ in range(10):
        assert buckets.take("key", 10) == 0
    late = buckets.take("key", 10)
    assert late == 6.0
    now += late - 0.01
    assert buckets.take("key", 10) > 0
    now += 0.02
    assert buckets.take("key", 10) == 0
