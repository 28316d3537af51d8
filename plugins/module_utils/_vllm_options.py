# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`vllm serve` options as operators write them → the YAML of `vllm serve MODEL --config FILE` for one engine version.

The loader of that file has traps: it drops `x: false` for flags that have a --no-x, old versions cannot read lists or
mappings from it, and `--config=FILE` is ignored altogether. What is written here means what it says in every version.
"""

from __future__ import annotations

import difflib
import json
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._service import option_name
from ansible_collections.inferops.gpu_host.plugins.module_utils._versions import version_tuple
from ansible_collections.inferops.gpu_host.plugins.module_utils._vllm_option_table import OPTIONS, VERSIONS

_LISTS_IN_FILE_SINCE = (0, 10, 1)
_GONE = {
    # option: why it may be dropped without a replacement
    "device": "the image decides on the device",
    "disable-async-output-proc": "its engine is gone",
    "disable-frontend-multiprocessing": "the frontend is always a process of its own",
    "disable-logprobs-during-spec-decoding": "its engine is gone",
    "enable-prompt-adapter": "prompt adapters are gone",
    "engine-use-ray": "its engine is gone",
    "max-prompt-adapter-token": "prompt adapters are gone",
    "max-prompt-adapters": "prompt adapters are gone",
    "max-seq-len-to-capture": "CUDA graphs go by batch size now, see max-cudagraph-capture-size",
    "multi-step-stream-outputs": "its engine is gone",
    "num-lookahead-slots": "its engine is gone",
    "num-scheduler-steps": "the scheduler always works asynchronously now",
    "preemption-mode": "preempted requests are always recomputed",
    "ray-workers-use-nsight": "profiling is configured elsewhere",
    "scheduler-delay-factor": "its scheduler is gone",
    "swap-space": "preempted requests are recomputed, not swapped; kv-offloading-size is something else",
    "tokenizer-pool-extra-config": "the tokenizer pool is gone",
    "tokenizer-pool-size": "the tokenizer pool is gone",
    "tokenizer-pool-type": "the tokenizer pool is gone",
    "use-v2-block-manager": "it is the only one",
}
_REPLACED_BY_HAND = {
    # option: what to write instead; a wrong guess would change the model's answers
    "rope-scaling": 'hf-overrides: {"rope_parameters": {…}} with rope_theta inside',
    "rope-theta": 'hf-overrides: {"rope_parameters": {…, "rope_theta": …}}',
    "enable-reasoning": "reasoning-parser: NAME",
}
_SPECULATIVE = {
    "speculative-model": "model",
    "num-speculative-tokens": "num_speculative_tokens",
    "speculative-draft-tensor-parallel-size": "draft_tensor_parallel_size",
    "speculative-max-model-len": "max_model_len",
    "speculative-disable-by-batch-size": "disable_by_batch_size",
    "speculative-model-quantization": "quantization",
    "ngram-prompt-lookup-max": "prompt_lookup_max",
    "ngram-prompt-lookup-min": "prompt_lookup_min",
}
_GUIDED = {
    "guided-decoding-backend": "backend",
    "guided-decoding-disable-fallback": "disable_fallback",
    "guided-decoding-disable-any-whitespace": "disable_any_whitespace",
    "guided-decoding-disable-additional-properties": "disable_additional_properties",
}
_OWN = {
    "config": "the role writes this file",
    "headless": "the placement decides on it",
}


class OptionError(ValueError):
    """Everything that is wrong with the options of one service, at once."""

    def __init__(self, problems):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def known_options(engine_version=None):
    """(options, exact): {name: kind} of the recorded version that stands for this one.

    exact: whether that version or its minor release was recorded; only then is a missing option surely unknown.
    """
    at, exact = _column(engine_version)
    return {name: row[at] for name, row in OPTIONS.items() if row[at] != "."}, exact


def _column(engine_version):
    wanted = version_tuple(engine_version, 3)
    if wanted is None:
        return len(VERSIONS) - 1, False
    recorded = [version_tuple(version, 3) for version in VERSIONS]
    same_minor = [at for at, version in enumerate(recorded) if version[:2] == wanted[:2]]
    if same_minor:
        return max((at for at in same_minor if recorded[at] <= wanted), default=same_minor[0]), True
    return max((at for at, version in enumerate(recorded) if version <= wanted), default=0), False


def config_file(options, engine_version=None):
    """{config, arguments, warnings}: the mapping to write as YAML, what must stand on the command line, what to tell.

    Raises OptionError with all problems. `engine_version` None: the newest recorded one, and unknown names only warn.
    """
    return _Translation(options, engine_version).run()


class _Translation:
    def __init__(self, options, engine_version):
        self.version = engine_version
        self.engine = f"vLLM {engine_version}" if engine_version else f"vLLM {VERSIONS[-1]}"
        self.known, self.exact = known_options(engine_version)
        self.lists_in_file = (version_tuple(engine_version, 3) or (99,)) >= _LISTS_IN_FILE_SINCE
        self.options = {}
        self.config = {}
        self.arguments = []
        self.warnings = []
        self.problems = []
        for spelling, value in options.items():
            name = option_name(spelling)
            if name in self.options:
                self.problems.append(f"options: {name} is given twice")
            if value is not None:
                self.options[name] = value
        self.fold_dots()

    def fold_dots(self):
        """`hf-overrides.rope_parameters.factor: 2` into the mapping: vLLM would let one form override the other."""
        for name in [name for name in self.options if "." in name]:
            outer, *path = name.split(".")
            value = self.options.pop(name)
            inside = self.options[outer] = self.mapping(outer)
            for key in path[:-1]:
                inside[key] = dict(inside.get(key) or {})
                inside = inside[key]
            inside[path[-1]] = value

    def run(self):
        for name, reason in _OWN.items():
            if self.options.pop(name, None) is not None:
                self.problems.append(f"options.{name}: {reason}")
        self.translate()
        for name, value in sorted(self.options.items()):
            self.write(name, value)
        if self.problems:
            raise OptionError(self.problems)
        return {"config": self.config, "arguments": self.arguments, "warnings": self.warnings}

    # Names

    def missing(self, *names):
        """The options among these that the operator set and this engine does not have."""
        return [name for name in names if name in self.options and name not in self.known]

    def take(self, name, told):
        self.warnings.append(f"options.{name}: {told}")
        return self.options.pop(name)

    def translate(self):
        self.translate_task()
        self.translate_logging()
        self.translate_structured()
        self.translate_speculative()
        for name in self.missing("worker-use-ray"):
            if truth(self.take(name, "is distributed-executor-backend: ray now")):
                self.options.setdefault("distributed-executor-backend", "ray")
        if self.missing("enable-reasoning") and "reasoning-parser" in self.options:
            self.take("enable-reasoning", "dropped: reasoning-parser alone does it now")
        for name, instead in _REPLACED_BY_HAND.items():
            for gone in self.missing(name):
                self.options.pop(gone)
                self.problems.append(f"options.{gone} is not in {self.engine}: write {instead}")
        for name, reason in _GONE.items():
            for gone in self.missing(name):
                self.take(gone, f"dropped, it is not in {self.engine}: {reason}")

    def translate_task(self):
        if self.missing("task"):
            task = str(self.take("task", "is runner and convert now"))
            if task in ("generate", "embed", "embedding", "classify", "score", "reward"):
                self.options.setdefault("runner", "generate" if task == "generate" else "pooling")
            if task == "classify":
                self.options.setdefault("convert", "classify")
            elif task not in ("auto", "generate", "embed", "embedding", "score", "reward"):
                self.problems.append(f"options.task: {task} has no equivalent in {self.engine}: see runner")
        if self.missing("runner", "convert") and "task" in self.known:
            runner = self.options.get("runner")
            convert = self.options.get("convert")
            for name in self.missing("runner", "convert"):
                self.take(name, f"is task in {self.engine}")
            tasks = {"generate": "generate", "pooling": "classify" if convert == "classify" else "embed"}
            task = tasks.get(runner) or {"embed": "embed", "classify": "classify"}.get(convert)
            if task:
                self.options.setdefault("task", task)

    def translate_logging(self):
        if self.missing("disable-log-requests"):
            if truth(self.take("disable-log-requests", "dropped, requests are not logged by default now")) is False:
                self.options.setdefault("enable-log-requests", True)
        elif self.missing("enable-log-requests") and not truth(
            self.take("enable-log-requests", f"is disable-log-requests in {self.engine}")
        ):
            self.options.setdefault("disable-log-requests", True)

    def translate_structured(self):
        gone = self.missing(*_GUIDED)
        if gone and "structured-outputs-config" in self.known:
            settings = self.mapping("structured-outputs-config")
            for name in gone:
                value = self.take(name, f"is structured-outputs-config.{_GUIDED[name]} now")
                value = value.partition(":")[0] if name.endswith("backend") else truth(value)
                settings.setdefault(_GUIDED[name], value)
            self.options["structured-outputs-config"] = settings
        elif self.missing("structured-outputs-config"):
            settings = self.mapping("structured-outputs-config")
            self.take("structured-outputs-config", f"is guided-decoding-… in {self.engine}")
            for name, inner in _GUIDED.items():
                if inner in settings and name in self.known:
                    self.options.setdefault(name, settings.pop(inner))
            if settings:
                self.problems.append(f"options.structured-outputs-config: {', '.join(settings)}: not in {self.engine}")

    def translate_speculative(self):
        gone = self.missing(*_SPECULATIVE)
        if gone and "speculative-config" in self.known:
            settings = self.mapping("speculative-config")
            for name in gone:
                settings.setdefault(
                    _SPECULATIVE[name], self.take(name, f"is speculative-config.{_SPECULATIVE[name]} now")
                )
            if settings.get("model") == "[ngram]":
                settings["method"] = "ngram"
                del settings["model"]
            self.options["speculative-config"] = settings
        elif self.missing("speculative-config"):
            self.options.pop("speculative-config")
            self.problems.append(
                f"options.speculative-config is not in {self.engine}: write speculative-model, num-speculative-tokens"
            )

    def mapping(self, name):
        value = self.options.get(name) or {}
        try:
            return dict(json.loads(value) if isinstance(value, str) else value)
        except (ValueError, TypeError):
            self.problems.append(f"options.{name} is {value!r}, wanted a mapping or JSON")
            return {}

    # Values

    def write(self, name, value):
        kind = self.known.get(name)
        negated = name[len("no-") :] if name.startswith("no-") else None
        if kind is None and self.known.get(negated) == "b" and truth(value) is not None:
            name, kind, value = negated, "b", not truth(value)
        if kind is None and not self.accept_unknown(name):
            return
        if "k" in OPTIONS.get(name, ""):
            value = self.pairs(name, value)
        if kind in ("b", "s", "B"):
            self.write_flag(name, kind, value)
        elif isinstance(value, dict):
            # JSON in a string: before 0.16 the loader cannot read mappings from the file.
            self.config[name] = as_pairs(value) if kind == "k" else json.dumps(value, sort_keys=True)
        elif isinstance(value, (list, tuple)):
            self.write_list(name, kind, list(value))
        elif kind == "l" and self.lists_in_file:
            self.write_list(name, kind, [value])
        elif isinstance(value, bool) and kind in ("v", "k"):
            self.problems.append(f"options.{name} is {value!r}, wanted a value")
        elif self.speakable(name, value):
            self.config[name] = value

    def write_flag(self, name, kind, value):
        on = truth(value)
        if on is None:
            self.problems.append(f"options.{name} is {value!r}, wanted true or false")
        elif kind == "B":
            self.config[name] = "true" if on else "false"
        elif on:
            self.config[name] = True
        elif kind == "b":
            # `name: false` would be dropped without a word.
            self.config[f"no-{name}"] = True

    def write_list(self, name, kind, values):
        if kind == "j":
            self.config[name] = json.dumps(values)
        elif kind not in ("l", "a", None):
            self.problems.append(f"options.{name} is a list, wanted one value")
        elif not all(self.speakable(name, value) for value in values):
            return
        elif kind == "a":
            self.arguments += [f"--{name}={value}" for value in values]
        elif self.lists_in_file:
            self.config[name] = values
        else:
            self.arguments += [f"--{name}", *map(str, values)]

    def speakable(self, name, value):
        """The loader hands values to argparse as separate words, where a leading dash makes an option of them."""
        if isinstance(value, str) and re.match(r"-(?!\d+(\.\d+)?$)", value):
            self.problems.append(f"options.{name}: a value that starts with a dash cannot be given through --config")
            return False
        return True

    def pairs(self, name, value):
        """`image=5,video=5`, JSON or a mapping → a mapping."""
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
            if isinstance(found, dict):
                return found
        except (ValueError, TypeError):
            pass
        found = dict(re.findall(r"(\w+)=(\d+)", str(value)))
        if ",".join(f"{key}={count}" for key, count in found.items()) != str(value).replace(" ", ""):
            self.problems.append(f"options.{name} is {value!r}, wanted image=5,video=5 or a mapping")
        return {key: int(count) for key, count in found.items()}

    def accept_unknown(self, name):
        row = OPTIONS.get(name)
        if row:
            having = [version for version, kind in zip(VERSIONS, row) if kind != "."]
            told = f"it exists in vLLM {having[0]} to {having[-1]}"
        else:
            near = difflib.get_close_matches(name, list(self.known), n=1)
            told = f"did you mean {near[0]}?" if near else "see the list of options of vllm serve"
        if self.exact:
            self.problems.append(f"options.{name} is not an option of {self.engine}: {told}")
        else:
            self.warnings.append(f"options.{name} is passed on, though the options known here do not have it: {told}")
        return not self.exact


def as_pairs(value):
    return ",".join(f"{key}={count}" for key, count in value.items())


def truth(value):
    """True or False of a boolean or the word for one, else None."""
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "false": False, "no": False}.get(str(value).strip().lower())
