import struct
from pathlib import Path

import pytest

from muster.connectors.llamacpp.gguf import NotGguf, read_facts
from tests.tiny_model import make_tiny_model


def test_the_facts_of_a_model_are_read_without_its_vocabulary(tmp_path: Path) -> None:
    facts = read_facts(make_tiny_model(tmp_path / "tiny.gguf"))
    assert facts["general.architecture"] == "llama"
    assert facts["llama.context_length"] == 2048
    assert facts["tokenizer.ggml.add_bos_token"] is True
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert "tokenizer.ggml.tokens" not in facts


@pytest.mark.parametrize("size", [0, 3, 4, 20, 500, 3000])
def test_a_file_cut_off_within_its_head_is_refused(tmp_path: Path, size: int) -> None:
    whole = make_tiny_model(tmp_path / "tiny.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:size])
    with pytest.raises(NotGguf):
        read_facts(path)


def _head(count: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, count) + rest


def _key(name: bytes = b"k") -> bytes:
    return struct.pack("<Q", len(name)) + name


@pytest.mark.parametrize(
    "content",
    [
        b"hello, world, this is no model",
        _head(1 << 60, b""),
        _head(1, struct.pack("<Q", 1 << 60)),
        _head(1, _key() + struct.pack("<I", 99)),
        _head(1, _key(b"\xff\xff") + struct.pack("<I", 4)),
        _head(1, _key() + struct.pack("<IIQ", 9, 9, 1)),
    ],
    ids=["text", "too many facts", "a huge key", "an unknown type", "a key that is no text", "lists of lists"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(NotGguf):
        read_facts(path)
