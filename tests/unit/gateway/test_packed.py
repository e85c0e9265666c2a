"""What is kept of streams comes back as it was, and takes little until then."""

import tracemalloc

from muster.gateway.packed import Packed


def test_what_is_kept_of_a_stream_takes_a_fraction_of_what_it_says() -> None:
    packed = Packed(1_000_000)
    stream = b"".join(b'data: {"choices":[{"delta":{"content":" %d"}}]}\n\n' % number for number in range(10_000))
    tracemalloc.start()
    for at in range(0, len(stream), 5000):
        packed.add(bytearray(stream[at : at + 5000]))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert packed.read(b"rest") == stream + b"rest"
    assert taken < len(stream) / 5


def test_the_end_counts_for_the_bound_too() -> None:
    packed = Packed(10)
    assert packed.add(bytearray(b"12345678"))
    assert packed.read(b"90") == b"1234567890"
    assert packed.read(b"901") is None
    assert not packed.add(bytearray(b"901"))
