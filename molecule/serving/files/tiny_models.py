"""Writes a tiny random BERT that embeds and a tiny random XLM-RoBERTa that ranks: tiny_models.py DIRECTORY.

They are to bge-m3 and bge-reranker-large what the generated model is to a chat model: real configurations, weights and
tokenizers of half a megabyte each, which know nothing. The tokenizers know single characters.
"""

import array
import json
import pathlib
import random
import string
import struct
import sys

HIDDEN, INNER, LAYERS, HEADS, LENGTH = 64, 128, 2, 2, 512
LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def encoder(prefix, vocabulary, positions, kinds):
    """(name, shape) of the tensors that both models have."""

    def linear(name, inputs, outputs):
        yield f"{prefix}{name}.weight", [outputs, inputs]
        yield f"{prefix}{name}.bias", [outputs]

    yield f"{prefix}embeddings.word_embeddings.weight", [vocabulary, HIDDEN]
    yield f"{prefix}embeddings.position_embeddings.weight", [positions, HIDDEN]
    yield f"{prefix}embeddings.token_type_embeddings.weight", [kinds, HIDDEN]
    yield from norm(f"{prefix}embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from linear(f"{layer}attention.{part}", HIDDEN, HIDDEN)
        yield from norm(f"{prefix}{layer}attention.output.LayerNorm")
        yield from linear(f"{layer}intermediate.dense", HIDDEN, INNER)
        yield from linear(f"{layer}output.dense", INNER, HIDDEN)
        yield from norm(f"{prefix}{layer}output.LayerNorm")


def norm(name):
    yield f"{name}.weight", [HIDDEN]
    yield f"{name}.bias", [HIDDEN]


def safetensors(tensors):
    draw = random.Random(0)
    header, body, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape in tensors:
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        if name.endswith("LayerNorm.weight"):
            values = array.array("f", [1.0]) * count
        else:
            values = array.array("f", (draw.uniform(-0.5, 0.5) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * count]}
        body.append(values.tobytes())
        offset += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(body)


def config(architecture, model_type, vocabulary, positions, kinds, pad, **more):
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "layer_norm_eps": 1e-05,
        "position_embedding_type": "absolute",
        "type_vocab_size": kinds,
        "vocab_size": vocabulary,
        "pad_token_id": pad,
        "torch_dtype": "float32",
        **more,
    }


def tokenizer(special, pair, single, model, pre_tokenizer, normalizer):
    ids = {token: number for number, token in enumerate(special)}

    def template(text):
        return [
            {"Sequence": {"id": piece, "type_id": 0}}
            if piece in "AB"
            else {"SpecialToken": {"id": piece, "type_id": 0}}
            for piece in text.split()
        ]

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for token, number in ids.items()
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template(single),
            "pair": template(pair),
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ids.items()
            },
        },
        "decoder": None,
        "model": model,
    }


def write(directory, files):
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=2).encode())


def bert(directory):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = special + list(LETTERS) + ["##" + letter for letter in LETTERS]
    write(
        directory,
        {
            "config.json": config("BertModel", "bert", len(tokens), LENGTH, 2, 0),
            "model.safetensors": safetensors([*encoder("", len(tokens), LENGTH, 2)]),
            "tokenizer.json": tokenizer(
                special,
                "[CLS] A [SEP] B [SEP]",
                "[CLS] A [SEP]",
                {
                    "type": "WordPiece",
                    "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                    "vocab": {token: number for number, token in enumerate(tokens)},
                },
                {"type": "BertPreTokenizer"},
                {"type": "Lowercase"},
            ),
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": LENGTH,
                **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special)),
            },
            # How sentence-transformers says that the first token's vector, made one long, is the text's.
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ],
            "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True},
        },
    )


def xlm_roberta(directory):
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*special, "\u2581", *LETTERS, "<mask>"]
    positions = LENGTH + 2  # the first ones are for padding
    head = [("classifier.dense.weight", [HIDDEN, HIDDEN]), ("classifier.dense.bias", [HIDDEN])]
    head += [("classifier.out_proj.weight", [1, HIDDEN]), ("classifier.out_proj.bias", [1])]
    one_label = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    ids = {"bos_token_id": 0, "eos_token_id": 2}
    write(
        directory,
        {
            "config.json": config(
                "XLMRobertaForSequenceClassification",
                "xlm-roberta",
                len(tokens),
                positions,
                1,
                1,
                **one_label,
                **ids,
            ),
            "model.safetensors": safetensors([*encoder("roberta.", len(tokens), positions, 1), *head]),
            "tokenizer.json": tokenizer(
                special,
                "<s> A </s> </s> B </s>",
                "<s> A </s>",
                {"type": "Unigram", "unk_id": 3, "vocab": [[token, -1.0] for token in tokens], "byte_fallback": False},
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                {"type": "Lowercase"},
            ),
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": LENGTH,
                **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
                **{"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
            },
        },
    )


if __name__ == "__main__":
    bert(pathlib.Path(sys.argv[1], "tiny-random-bert"))
    xlm_roberta(pathlib.Path(sys.argv[1], "tiny-random-xlm-roberta"))
