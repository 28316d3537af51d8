"""Predicted against measured: what vLLM reported on real starts, and what the estimator says of the same starts.

    python tests/accuracy/accuracy.py [--runs FILE] [--json OUT]

FILE has the form of tests/ground_truth/vllm-0.26.0-h200.json; a field that a run lacks is not compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/unit"))

import conftest  # noqa: F401  (makes the collection importable)

from ansible_collections.inferops.gpu_host.plugins.module_utils._memory.estimate import Engine, Layout, estimate
from ansible_collections.inferops.gpu_host.plugins.module_utils._model.config import parse_model_config
from ansible_collections.inferops.gpu_host.plugins.module_utils._units import GIB

DEFAULT_RUNS = ROOT / "tests/ground_truth/vllm-0.26.0-h200.json"
H200_TOTAL_GIB = 139.80
CARDS_GIB = (16, 24, 32, 40, 48, 80, 96, 141)
PERCENT_TERMS = ("weights", "kv_cache_bytes", "kv_cache_tokens", "max_concurrency")


def predict(run, gpu_total_gib=H200_TOTAL_GIB, version="0.26.0"):
    """The estimate of a measured run, from its configuration and options alone."""
    spec = parse_model_config(run["config"])
    layout = Layout(
        run.get("tensor_parallel_size") or 1,
        run.get("pipeline_parallel_size") or 1,
        bool(run.get("expert_parallel")),
    )
    options = {
        name: run[name]
        for name in (
            "gpu_memory_utilization",
            "max_model_len",
            "max_num_batched_tokens",
            "max_num_seqs",
            "dtype",
            "kv_cache_dtype",
            "enforce_eager",
            "enable_prefix_caching",
            "kv_cache_memory_bytes",
            "mm_encoder_tp_mode",
            "flashinfer",
            "runner",
            "language_model_only",
        )
        if run.get(name) is not None
    }
    if not spec.state_layers:
        options["block_size"] = run.get("block_size")  # hybrids: what vLLM raises it to is predicted
    engine = Engine(version=run.get("vllm") or version, **options)
    total = int((run.get("gpu_total_gib") or gpu_total_gib) * GIB)
    return estimate(spec, layout, engine, total), layout


def compare(run, gpu_total_gib=H200_TOTAL_GIB, version="0.26.0"):
    """One run's figures: term → (predicted, measured, error); the error in percent, of activations in GiB.

    Ranks log in any order and not all of them: equally many figures are compared in order of size, else the largest.
    """
    found, layout = predict(run, gpu_total_gib, version)
    ranks = [rank for rank in found.ranks for _i in range(layout.tensor_parallel_size)]
    terms = {}

    def add(term, predicted, measured, percent=True):
        error = (predicted - measured) / (measured if percent else 1) * (100 if percent else 1)
        terms[term] = {"predicted": round(predicted, 4), "measured": measured, "error": round(error, 4)}

    for term, key, value in (
        ("weights", "weights_gib_per_rank", lambda r: r.weights / GIB),
        ("activation", "peak_activation_gib_per_rank", lambda r: r.activation / GIB),
    ):
        measured = run.get(key)
        if measured:
            pairs = _pairs([value(r) for r in ranks], measured)
            worst = max(pairs, key=lambda p: abs(p[0] - p[1]))
            add(term, *worst, percent=term != "activation")
    if run.get("kv_cache_gib"):
        add("kv_cache_bytes", found.ranks[0].kv_cache / GIB, run["kv_cache_gib"])
    if run.get("kv_cache_tokens"):
        add("kv_cache_tokens", found.kv_cache_tokens, run["kv_cache_tokens"])
    if run.get("max_concurrency"):
        add("max_concurrency", found.max_concurrency, run["max_concurrency"])
    result = {"id": run["id"], "model": run.get("model"), "terms": terms}
    cards = smallest_cards(run, found)
    if cards:
        result["smallest_card_gib"] = {"predicted": cards[0], "measured": cards[1]}
    return result


def smallest_cards(run, found):
    """(predicted, measured) smallest card that holds one request of full length on every rank; None: not measured."""
    share = found.gpu_memory_utilization
    if run.get("kv_cache_gib") and run.get("max_concurrency"):
        budget = found.ranks[0].budget / GIB
        measured = budget - run["kv_cache_gib"] + run["kv_cache_gib"] / run["max_concurrency"]
    elif run.get("weights_gib_per_rank") and not found.kv_cache_tokens:
        # An encoder: what the process held, less its context.
        used, before = run.get("used_mib_after_init"), run.get("memory_in_use_before_weights_gib")
        measured = max(used) / 1024 - max(before) if used and before else max(run["weights_gib_per_rank"])
    else:
        return None
    predicted = max(found.ranks[0].minimum, 0) / GIB
    return _card(predicted / share), _card(measured / share)


def _card(needed):
    return next((card for card in CARDS_GIB if card >= needed), None)


def _pairs(predicted, measured):
    if len(predicted) == len(measured):
        return list(zip(sorted(predicted), sorted(measured)))
    return [(max(predicted), max(measured))]


def summarize(results):
    """Mean absolute, signed mean and worst error per term over all runs."""
    terms = {}
    for term in (*PERCENT_TERMS, "activation"):
        errors = [(r["terms"][term]["error"], r["id"]) for r in results if term in r["terms"]]
        if not errors:
            continue
        worst, worst_id = max(errors, key=lambda e: abs(e[0]))
        mean = sum(abs(e) for e, _id in errors) / len(errors)
        signed = sum(e for e, _id in errors) / len(errors)
        if term == "activation":
            terms[term] = {"mean_abs_gib": mean, "mean_signed_gib": signed, "worst_gib": abs(worst)}
        else:
            terms[term] = {"mean_abs_pct": mean, "mean_signed_pct": signed, "worst_pct": abs(worst)}
        terms[term] = {name: round(value, 4) for name, value in terms[term].items()}
        terms[term].update(worst_id=worst_id, runs=len(errors))
    return terms


def evaluate(document):
    """All of a file: {"terms": …, "smallest_card": …, "runs": …}."""
    what = document.get("what", "")
    total = document.get("gpu_total_gib") or _number(r"([\d.]+) GiB by cudaMemGetInfo", what) or H200_TOTAL_GIB
    version = document.get("vllm") or (re.findall(r"vLLM (\d+\.\d+(?:\.\d+)?)", what) or ["0.26.0"])[0]
    results = [compare(run, float(total), version) for run in document["runs"]]
    cards = [r for r in results if "smallest_card_gib" in r]
    wrong = [r["id"] for r in cards if len(set(r["smallest_card_gib"].values())) > 1]
    return {
        "terms": summarize(results),
        "smallest_card": {"cases": len(cards), "right": len(cards) - len(wrong), "wrong": wrong},
        "runs": results,
    }


def _number(pattern, text):
    return next(iter(re.findall(pattern, text)), None)


def table(answer):
    """What `make accuracy` prints."""
    lines = [
        "| run | weights GiB/rank | activation GiB | KV cache GiB | KV tokens | requests | smallest card |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in answer["runs"]:
        cells = [_cell(r["terms"].get(t), form) for t, form in COLUMNS]
        card = r.get("smallest_card_gib")
        cells.append(f"{card['predicted']} / {card['measured']}" if card else "")
        lines.append(f"| {r['id']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Each cell: predicted / measured.",
        "",
        "| term | runs | mean absolute error | signed mean | worst | worst run |",
        "|---|---|---|---|---|---|",
    ]
    for term, t in answer["terms"].items():
        unit, suffix = ("gib", " GiB") if "worst_gib" in t else ("pct", " %")
        numbers = [f"{t[name + unit]:.3f}{suffix}" for name in ("mean_abs_", "mean_signed_", "worst_")]
        lines.append(f"| {term} | {t['runs']} | " + " | ".join(numbers) + f" | {t['worst_id']} |")
    cards = answer["smallest_card"]
    lines += ["", f"Smallest card that holds one full request: {cards['right']} of {cards['cases']} right."]
    return "\n".join(lines)


COLUMNS = (
    ("weights", ".2f"),
    ("activation", ".2f"),
    ("kv_cache_bytes", ".2f"),
    ("kv_cache_tokens", ",.0f"),
    ("max_concurrency", ".2f"),
)


def _cell(term, form):
    return f"{term['predicted']:{form}} / {term['measured']:{form}}" if term else ""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default=str(DEFAULT_RUNS), help="measured runs")
    parser.add_argument("--json", help="write the comparison there as well")
    options = parser.parse_args(arguments)
    answer = evaluate(json.loads(Path(options.runs).read_text(encoding="utf-8")))
    print(table(answer))
    if options.json:
        Path(options.json).write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
