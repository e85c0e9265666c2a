"""A language model of half a megabyte: random weights, a real file, which a real llama.cpp serves in an instant."""

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, HIDDEN, CONTEXT_TOKENS = 2, 64, 4, 128, 2048
WORDS = ("the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_PREFIX_OF_WORD = "\u2581"


def make_tiny_model(path: Path) -> Path:
    """Write the model to `path`, whole or not at all. It says random text, and any prompt of its 2048 tokens fits."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    writer = gguf.GGUFWriter(str(part), "llama")
    tokens = _add_vocabulary(writer)
    _add_shape(writer, len(tokens))
    _add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return part.replace(path)


def _add_vocabulary(writer: Any) -> list[bytes]:
    """Three controls, a token for each byte so that any text can be read, two marks of the chat, and some words."""
    kind = gguf.TokenType
    groups = [
        ([b"<unk>"], kind.UNKNOWN),
        ([b"<s>", b"</s>"], kind.CONTROL),
        ([f"<0x{byte:02X}>".encode() for byte in range(256)], kind.BYTE),
        ([b"<|im_start|>", b"<|im_end|>"], kind.CONTROL),
        ([(_PREFIX_OF_WORD + word).encode() for word in WORDS], kind.NORMAL),
    ]
    tokens = [token for group, _ in groups for token in group]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([kind for group, kind in groups for _ in group])
    writer.add_token_scores([0.0 if b"\xe2" not in token else -float(i) for i, token in enumerate(tokens)])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)  # noqa: FBT003 - the writer's own way
    writer.add_chat_template(CHAT_TEMPLATE)
    return tokens


def _add_shape(writer: Any, vocabulary: int) -> None:
    writer.add_name("tiny-random")
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(0)


def _add_weights(writer: Any, vocabulary: int) -> None:
    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", (rng.standard_normal(shape) * 0.3).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    add("token_embd", vocabulary, WIDTH)
    add_norm("output_norm")
    add("output", vocabulary, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm")
        add_norm(f"{block}.ffn_norm")
        for part in ("q", "k", "v", "output"):
            add(f"{block}.attn_{part}", WIDTH, WIDTH)
        add(f"{block}.ffn_gate", HIDDEN, WIDTH)
        add(f"{block}.ffn_up", HIDDEN, WIDTH)
        add(f"{block}.ffn_down", WIDTH, HIDDEN)
