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
_ROLES = ("system", "user", "assistant")
# Common words, so that an answer drawn at random can be read.
_WORDS = """
a about above after again air all almost along always am an and animal answer any are around as ask at autumn
away back be because before began below bell between big bird black blue boat book both boy bread bridge
bright bring brother brown but by call came can car carry cat change child circle city clear close cloud cold
colour come could country dark day did different do does door down draw dream drink each early earth east eat
eight end enough evening every eye face fall family far farm fast father feet few field find fire first fish
five flower fly follow food for forest forget found four friend from full garden gave girl give glass go gold
good grass great green grew ground had half hand happy hard has have he head hear heart help her here high
hill him his home horse hot house how hundred ice idea if in into iron is island it its just keep kind king
know lake land large last late laugh leaf learn leave left letter life light like line listen little live long
look lost made make man many map may me mean milk mine moon more morning most mother mountain move much music
must my name near never new next night nine no north not now number of off often old on once one only open or
other our out over paper part path people picture place plant play point quiet rain red rest right river road
room round run sail salt same sand say sea seven she ship short
""".split()

_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_BYTES_AT = len(_SPECIAL)
_WORDS_AT = _BYTES_AT + 256
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


def _vocabulary():
    """Token texts in order of their ids: special tokens, the 256 bytes, then words with their leading space."""
    words = list(dict.fromkeys(list(_ROLES) + ["\u2581" + word for word in _WORDS]))[: _VOCAB_SIZE - _WORDS_AT]
    return list(_SPECIAL) + [f"<0x{value:02X}>" for value in range(256)] + words


def _tokenizer():
    vocabulary = _vocabulary()
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
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "ByteFallback"},
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
            ],
        },
        # Unigram picks the path with the best score: whole words beat bytes.
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": True,
            "vocab": [[token, -1.0 if index >= _WORDS_AT else -10.0] for index, token in enumerate(vocabulary)],
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
    # Rows of zeros give the byte tokens a logit of 0, far below the best word: answers stay readable.
    name, shape, head = random("lm_head.weight", [vocab, hidden], -2)
    row = 2 * hidden
    yield name, shape, head[: row * _BYTES_AT] + bytes(row * 256) + head[row * _WORDS_AT :]


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
                "tokenizer_class": "PreTrainedTokenizerFast",
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
