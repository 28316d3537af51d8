"""How long plans take: one service, and 20 services on up to 1 000 hosts of eight GPUs, on one core.

python tests/benchmark/plan_speed.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

UNIT = Path(__file__).resolve().parents[1] / "unit"
sys.path.insert(0, str(UNIT))

import conftest  # noqa: F401  (makes the collection importable)
from planning import DEEPSEEK_R1, PUBLISHED, QWEN_7B, hosts, service

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner import plan

FLEETS = (125, 250, 500, 1000)


def timed(services, fleet, repeat=1):
    """Seconds of processor time of the fastest of `repeat` plans, and the plan."""
    best, planned = None, None
    for _attempt in range(repeat):
        start = time.process_time()
        planned = plan.plan(services, fleet)
        seconds = time.process_time() - start
        best = seconds if best is None else min(best, seconds)
    return best, planned


def twenty():
    models = [model for model in PUBLISHED if model != "moonshotai/Kimi-K2-Instruct"]
    return [service(models[number * 7 % len(models)], name=f"s{number}") for number in range(20)]


def main():
    for model, gpu, count in ((QWEN_7B, "L4", 1), (QWEN_7B, "H100", 1), (DEEPSEEK_R1, "H20-96GB", 2)):
        seconds, _planned = timed([service(model)], hosts(gpu, 8, count), repeat=3)
        print(f"{model} on {count} × 8 {gpu}: {seconds * 1000:.1f} ms")
    for count in FLEETS:
        seconds, planned = timed(twenty(), hosts("H100", 8, count))
        replicas = sum(len(entry["placements"]) for entry in planned["services"])
        print(f"20 services on {count} hosts of 8 H100: {seconds:.2f} s, {replicas} replicas placed")


if __name__ == "__main__":
    main()
