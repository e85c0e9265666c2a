import pytest

from muster.gateway.dialects.ending import has_told_its_end, tells_its_end
from muster.gateway.metering.counted import Counted

SSE = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
NDJSON = b'{"message":{"content":"a"},"done":false}\n{"message":{"content":""},"done":true,"context":[1,2]}\n'


def told(*pieces: bytes) -> bool:
    answer = Counted(stream=True)
    for piece in pieces:
        answer.take(piece)
    return has_told_its_end(answer.held)


@pytest.mark.parametrize("stream", [SSE, NDJSON, SSE.replace(b": ", b":"), SSE.replace(b"\n", b"\r\n"), NDJSON[:-1]])
def test_a_whole_stream_says_so_in_whatever_pieces_it_comes(stream: bytes):
    assert told(stream)
    for cut in range(len(stream)):
        assert told(stream[:cut], stream[cut:])
    assert told(*[stream[at : at + 1] for at in range(len(stream))])


@pytest.mark.parametrize("stream", [SSE, NDJSON])
def test_a_stream_cut_anywhere_before_its_last_line_is_whole_is_told_to_be_cut(stream: bytes):
    whole_from = len(stream.rstrip())
    for cut in range(len(stream)):
        assert told(stream[:cut]) is (cut >= whole_from), cut


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n',
        b'{"message":{"tool_calls":[{"function":{"arguments":{"done":true}}}]},"done":false}\n',
        b'{"response":"\\"done\\":true"}\n',
        b": a comment\n\n",
        b"[DONE] not\n",
        b"\xff\n",
        b"5\n",
        b"",
    ],
)
def test_words_of_the_answer_are_not_taken_for_its_end(line: bytes):
    assert not told(line)


def test_an_engines_own_error_is_an_end():
    assert told(b'data: {"error":{"message":"out of memory"}}\n\n')
    assert told(b'{"error":"out of memory"}\n')


def test_a_last_line_as_long_as_a_whole_context_is_read():
    numbers = b",".join([b"128000"] * 30_000)
    last = b'{"done":true,"context":[' + numbers + b"]}\n"
    assert told(NDJSON * 1000, *(last[at : at + 65_536] for at in range(0, len(last), 65_536)))
    assert not told(NDJSON * 1000, last[:-3])


def test_of_paths_whose_end_is_not_known_nothing_is_expected():
    assert tells_its_end("/v1/chat/completions")
    assert not tells_its_end("/v1/embeddings")
