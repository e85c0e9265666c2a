"""Answers that are kept for callers who come back."""

from muster.domain.stream import KeptStream, StreamEnd, StreamPart


def test_a_part_adds_to_an_answer_that_goes_on_unless_it_says_how_it_ended() -> None:
    part = StreamPart(stream_id="s", runner="a", offset=3, keep_s=60.0, lease_s=4.0)
    assert (part.data, part.opening, part.end) == (b"", b"", None)
    kept = KeptStream(opening=b"head", size=3)
    assert (kept.end, kept.running, kept.handed_over) == (None, False, False)
    assert [str(end) for end in StreamEnd] == ["whole", "cut", "dropped"]  # as stores have them
