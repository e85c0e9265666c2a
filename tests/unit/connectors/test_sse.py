from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from muster.connectors.sse import EventLines

STREAM = b': hello\n\ndata: {"a": 1}\r\n\r\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\n'
VALUES = [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_the_values_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    lines, found = EventLines(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += lines.feed(STREAM[start:end])
    assert found == VALUES
