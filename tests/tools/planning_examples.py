"""The worked examples of docs/planning.md, run: prints them, or with --write puts their output into the page.

    python tests/tools/planning_examples.py [--write]

A unit test fails when the page and the planner differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/planning.md"
sys.path.insert(0, str(ROOT / "tests/unit"))

import conftest  # noqa: F401  (makes the collection importable)
from planning import BGE_M3, DEEPSEEK_R1, DISTILL_70B, QWEN_7B, QWEN_14B, QWEN_32B, RERANKER, hosts, service

from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.plan import plan
from ansible_collections.inferops.gpu_host.plugins.module_utils._planner.report import report

# name → services, hosts
EXAMPLES = {
    "r1-two-hosts": ([service(DEEPSEEK_R1)], hosts("H20-96GB", 8, 2)),
    "r1-one-host": ([service(DEEPSEEK_R1, max_model_len="auto")], hosts("H20-96GB", 8, 1)),
    "t4": ([service(DISTILL_70B)], hosts("T4", 4, 4)),
    "vision": (
        [
            service(
                "Qwen/Qwen2.5-VL-72B-Instruct",
                tensor_parallel_size=8,
                dtype="bfloat16",
                gpu_memory_utilization=0.9,
                max_model_len=73480,
                port=8001,
            )
        ],
        hosts("A100-80GB", 8),
    ),
    "shared-card": ([service(BGE_M3), service(RERANKER), service(QWEN_7B)], hosts("RTX-4090", 1)),
}
for _size, _model in (("7b", QWEN_7B), ("14b", QWEN_14B), ("32b", QWEN_32B)):
    for _gpu, _name in (("24gb", "RTX-4090"), ("80gb", "A100-80GB")):
        EXAMPLES[f"{_size}-{_gpu}"] = ([service(_model)], hosts(_name, 4))


def output(name):
    """The example's plan, and its report as the page shows it."""
    services, fleet = EXAMPLES[name]
    planned = plan(services, fleet)
    return planned, "\n".join(report(planned)).strip()


def rendered(page):
    """The page with the output of every example it shows: `<!-- example: NAME -->`, then a text block."""

    def block(match):
        text = output(match.group(1))[1]
        if match.group(2):  # the recommendation alone
            text = "\n".join(
                line for line in text.splitlines() if line.startswith(("Recommendation", "Shared", "  replica"))
            )
        return f"<!-- example: {match.group(1)}{match.group(2)} -->\n```text\n{text}\n```"

    return re.sub(r"<!-- example: ([a-z0-9-]+)( short|) -->\n```text\n.*?```", block, page, flags=re.DOTALL)


def main():
    if "--write" in sys.argv[1:]:
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name in EXAMPLES:
        print(f"== {name}\n{output(name)[1]}\n")


if __name__ == "__main__":
    main()
