# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny Qwen2 with random weights, its own tokenizer and chat template, made from nothing.

It proves a serving path where no hub can be reached: real config.json, real safetensors, real tokenizer,
about 3 MB. It knows nothing: its answers are random English words.
The same seed gives the same bytes on every machine and Python, because the weights come from SHAKE-256
and integer operations alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct

DEMO_MODEL_ID = "inferops/tiny-random-qwen2"

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Common words, so that an answer drawn at random can be read.
_WORDS = """
the and to of a in is it you that he was for on are with as his they at be this from have or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my than
first been call who its now find long down day did get come made may part sun sea moon tree bird rain star fish hill
old new red blue green sing run walk play read eat ask i me us am ant ox
""".split()

_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_VOCAB_SIZE = 512


def demo_config():
    """The model's config.json as a dict: vLLM's CPU engine wants head_dim ≥ 32, hence 4 heads of 64."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": _VOCAB_SIZE,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def _byte_alphabet():
    """The printable characters that byte-level BPE writes for the bytes 0 to 255, in that order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _vocabulary():
    """Token texts in order of their ids, the merges that make them, and the ids of those that are whole words.

    A word is merged letter by letter behind its leading space, so its beginnings are tokens too.
    """
    alphabet = _byte_alphabet()
    space = alphabet[ord(" ")]
    tokens, merges, words = [*_SPECIAL, *alphabet], [], []
    known = set(tokens)
    for word in _WORDS:
        steps = [(space + word[:end], word[end]) for end in range(len(word))]
        steps = [(left, letter) for left, letter in steps if left + letter not in known]
        if len(tokens) + len(steps) > _VOCAB_SIZE:
            continue
        for left, letter in steps:
            merges.append([left, letter])
            tokens.append(left + letter)
            known.add(left + letter)
        words.append(tokens.index(space + word))
    return tokens, merges, words


def _tokenizer():
    tokens, merges, _words = _vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(_SPECIAL)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": " ?[^\\s]+|\\s"}, "behavior": "Isolated", "invert": False},
                byte_level,
            ],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _random_bf16(name, count, exponent, seed):
    """`count` bfloat16 values of random sign and mantissa, 2^exponent ≤ |value| < 2^(exponent+1), little-endian."""
    noise = int.from_bytes(hashlib.shake_256(f"{seed}/{name}".encode()).digest(2 * count), "little")
    keep = int.from_bytes(b"\x7f\x80" * count, "little")  # mantissa and sign
    fixed = int.from_bytes(struct.pack("<H", (exponent + 127) << 7) * count, "little")
    return (noise & keep | fixed).to_bytes(2 * count, "little")


def _tensors(seed):
    config = demo_config()
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden * config["num_key_value_heads"] // config["num_attention_heads"]

    def random(name, shape, exponent):
        count = shape[0] * shape[1]
        return name, shape, _random_bf16(name, count, exponent, seed)

    def constant(name, size, pattern):
        return name, [size], struct.pack("<H", pattern) * size

    one, zero = 0x3F80, 0x0000
    yield random("model.embed_tokens.weight", [vocab, hidden], -1)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield constant(at + "input_layernorm.weight", hidden, one)
        for part, size in (("q", hidden), ("k", kv), ("v", kv)):
            yield random(f"{at}self_attn.{part}_proj.weight", [size, hidden], -5)
            yield constant(f"{at}self_attn.{part}_proj.bias", size, zero)
        yield random(at + "self_attn.o_proj.weight", [hidden, hidden], -5)
        yield constant(at + "post_attention_layernorm.weight", hidden, one)
        yield random(at + "mlp.gate_proj.weight", [inner, hidden], -5)
        yield random(at + "mlp.up_proj.weight", [inner, hidden], -5)
        yield random(at + "mlp.down_proj.weight", [hidden, inner], -5)
    yield constant("model.norm.weight", hidden, one)
    # Rows of zeros give every token that is not a whole word a logit of 0, far below the best word:
    # answers can be read.
    name, shape, head = random("lm_head.weight", [vocab, hidden], -2)
    row = 2 * hidden
    words = set(_vocabulary()[2])
    yield name, shape, b"".join(head[i * row : (i + 1) * row] if i in words else bytes(row) for i in range(vocab))


def _safetensors(seed):
    header, body, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, data in _tensors(seed):
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        body.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors aligned to 8 bytes
    return struct.pack("<Q", len(text)) + text + b"".join(body)


def demo_files(seed=0):
    """The model as {file name: bytes}, ready to be written into one directory."""

    def as_json(value):
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

    return {
        "config.json": as_json(demo_config()),
        "generation_config.json": as_json({"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}),
        "tokenizer.json": as_json(_tokenizer()),
        "tokenizer_config.json": as_json(
            {
                "tokenizer_class": "Qwen2Tokenizer",
                "model_max_length": demo_config()["max_position_embeddings"],
                "bos_token": None,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "unk_token": None,
                "clean_up_tokenization_spaces": False,
                "chat_template": _TEMPLATE,
            }
        ),
        "model.safetensors": _safetensors(seed),
    }


def write_demo_model(directory, seed=0):
    """Writes the model's files into `directory`, which must exist. Returns {file name: size in bytes}."""
    files = demo_files(seed)
    for name, content in files.items():
        with open(os.path.join(directory, name), "wb") as handle:
            handle.write(content)
    return {name: len(content) for name, content in files.items()}
