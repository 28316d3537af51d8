#!/usr/bin/env python3
"""Records which options `vllm serve` of each version has, from vLLM's own sources, into _vllm_option_table.py.

    pip download --no-deps --no-binary :all: --no-build-isolation --no-clean vllm==0.33.0   # keeps the unpacked sources
    record_vllm_options.py 0.32.0=/path/to/sources 0.33.0=/path/to/sources … > _vllm_option_table.py

Static, because importing one version of vLLM needs one environment each. A version already in the table and not given
again is kept. tests/unit/test_vllm_options.py compares a sample with what vLLM's own parser said.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "plugins" / "module_utils" / "_vllm_option_table.py"
PARSER_FILES = (
    "engine/arg_utils.py",
    "entrypoints/openai/cli_args.py",
    "entrypoints/launchers/cli_args.py",
    "entrypoints/common/cli_args.py",
    "entrypoints/cli/serve.py",
)


def annotations(root):
    """{class: ({field: annotation}, [bases])} of every class in the files that hold configurations."""
    files = [root / name for name in PARSER_FILES] + [root / "config.py", root / "transformers_utils" / "config.py"]
    files += sorted((root / "config").glob("**/*.py")) if (root / "config").is_dir() else []
    classes, aliases = {}, {}
    for file in files:
        if not file.is_file():
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                fields = {
                    item.target.id: ast.unparse(item.annotation)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
                decorated = any(
                    "config" in ast.unparse(item) or "dataclass" in ast.unparse(item) for item in node.decorator_list
                )
                classes[node.name] = (fields, [ast.unparse(base) for base in node.bases], decorated)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                aliases[node.targets[0].id] = ast.unparse(node.value)
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).endswith("TypeAlias"):
                aliases[ast.unparse(node.target)] = ast.unparse(node.value)
    return classes, aliases


class Version:
    def __init__(self, root):
        self.root = root
        self.classes, self.aliases = annotations(root)
        self.options = {}
        for name in PARSER_FILES:
            if (root / name).is_file():
                self.read(ast.parse((root / name).read_text()))

    def fields(self, name):
        fields, bases, _ = self.classes.get(name, ({}, [], False))
        merged = {}
        for base in bases:
            merged.update(self.fields(base))
        return {**merged, **fields}

    def read(self, tree):
        kwargs_of = {}
        for node in ast.walk(tree):
            # model_kwargs = get_kwargs(ModelConfig), also get_kwargs(VllmConfig)["logging_config"]
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value, field = node.value, None
                if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
                    value, field = value.value, value.slice.value
                if (
                    isinstance(value, ast.Call)
                    and value.args
                    and ast.unparse(value.func) in ("get_kwargs", "_get_kwargs")
                ):
                    kwargs_of[node.targets[0].id] = (ast.unparse(value.args[0]), field)
        for owner in ast.walk(tree):
            if isinstance(owner, (ast.ClassDef, ast.Module)):
                for function in owner.body:
                    wanted = ("add_cli_args", "make_arg_parser", "subparser_init", "_add_data_parallel_args")
                    if isinstance(function, ast.FunctionDef) and (
                        function.name in wanted or function.name.startswith("add_cli_args")
                    ):
                        self.read_function(function, kwargs_of, getattr(owner, "name", ""))

    def read_function(self, function, kwargs_of, owner):
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("add_argument"):
                continue
            names = [
                arg.value for arg in call.args if isinstance(arg, ast.Constant) and str(arg.value).startswith("--")
            ]
            if not names and any(isinstance(arg, ast.JoinedStr) for arg in call.args):
                # The loop over the fields of FrontendArgs and of what inherits from it.
                for name in [owner] + [cls for cls, (_, bases, _d) in self.classes.items() if owner in bases]:
                    for field, annotation in self.fields(name).items():
                        self.options[field.replace("_", "-")] = self.special(field) or self.kind(annotation)
                continue
            for name in names:
                self.options[name[2:].replace("_", "-")] = self.call_kind(call, kwargs_of)

    @staticmethod
    def special(field):
        """What _customize_cli_kwargs / add_cli_args change for single fields."""
        if field in ("allowed_origins", "allowed_methods", "allowed_headers", "default_chat_template_kwargs"):
            return "j"
        return {"middleware": "a", "lora_modules": "l", "disable_access_log_for_endpoints": "v"}.get(field)

    def call_kind(self, call, kwargs_of):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}
        action = given.get("action", "").strip("'\"")
        if action in ("store_true", "store_false"):
            return "s"
        if "BooleanOptionalAction" in action:
            return "b"
        if "StoreBoolean" in action:
            return "B"
        if action == "append":
            return "a"
        if given.get("nargs", "").strip("'\"") in ("+", "*"):
            return "l"
        if "nullable_kvs" in given.get("type", ""):
            return "k"
        if "json" in given.get("type", "") or "dict" in given.get("type", ""):
            return "j"
        for keyword in call.keywords:
            # **model_kwargs["runner"], **logging_config_kwargs, {**model_kwargs["x"], "choices": …}
            for node in ast.walk(keyword.value) if keyword.arg is None else ():
                subscript = isinstance(node, ast.Subscript)
                cls, field = kwargs_of.get(ast.unparse(node.value if subscript else node), (None, None))
                if cls and (field or subscript):
                    return self.kind(self.fields(cls).get(field or node.slice.value, "str"))
        return "v"

    def kind(self, annotation, depth=0):
        """The letter for a type, in the order in which vLLM's get_kwargs decides."""
        try:
            tree = ast.parse(annotation.strip("'\""), mode="eval").body
        except SyntaxError:
            return "v"
        parts = set(self.parts(tree))
        if parts == {"bool", "str", "None"}:
            return "v"
        if any(self.is_structure(name) for name in parts):
            return "j"
        if "bool" in parts:
            return "b"
        if "Literal" in parts:
            return "v"
        if parts & {"list", "List", "tuple", "set", "Sequence"}:
            return "l"
        if parts & {"int", "float"}:
            return "v"
        if parts & {"dict", "Dict", "Mapping"}:
            return "j"
        return "v"

    def is_structure(self, name):
        _, bases, decorated = self.classes.get(name, ({}, [], False))
        return decorated or any(base.startswith(("dict", "Dict")) for base in bases)

    def parts(self, tree):
        """The alternatives of a union, outermost types only."""
        if isinstance(tree, ast.BinOp):
            yield from self.parts(tree.left)
            yield from self.parts(tree.right)
        elif isinstance(tree, ast.Subscript):
            outer = ast.unparse(tree.value).rsplit(".", 1)[-1]
            inner = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
            if outer in ("Optional", "Union"):
                for item in inner:
                    yield from self.parts(item)
                if outer == "Optional":
                    yield "None"
            elif outer in ("Annotated", "SkipValidation", "ClassVar", "InitVar"):
                yield from self.parts(inner[0])
            else:
                yield outer
        elif isinstance(tree, ast.Constant):
            yield "None" if tree.value is None else str(tree.value)
        else:
            name = ast.unparse(tree).rsplit(".", 1)[-1]
            if name in self.aliases and self.aliases[name] != name:
                yield from self.parts(ast.parse(self.aliases[name], mode="eval").body)
            else:
                yield name


def recorded():
    if not TABLE.is_file():
        return {}
    scope = {}
    exec(TABLE.read_text(), scope)
    return {
        version: {name: row[at] for name, row in scope["OPTIONS"].items() if row[at] != "."}
        for at, version in enumerate(scope["VERSIONS"])
    }


def main():
    table = recorded()
    for item in sys.argv[1:]:
        version, _, root = item.partition("=")
        table[version] = Version(Path(root) / "vllm").options
    versions = sorted(table, key=lambda text: [int(part) for part in text.replace("post", "").split(".")])
    names = sorted({name for options in table.values() for name in options})
    header = (ROOT / "plugins" / "module_utils" / "_units.py").read_text().split('"""')[0]
    print(header, end="")
    print('"""Every option of `vllm serve`, version by version. Written by tests/tools/record_vllm_options.py.\n')
    print("Source: the sdists of vLLM on PyPI. One letter per version: `.` absent, `v` value, `s` flag that only sets,")
    print("`b` flag with a --no- form, `B` flag that takes true or false, `l` list, `a` may be repeated, `j` JSON,")
    print('`k` pairs (name=value,name=value).\n"""\n')
    print("from __future__ import annotations\n")
    print("VERSIONS = (")
    for version in versions:
        print(f'    "{version}",')
    print(")\n\nOPTIONS = {")
    for name in names:
        print(f'    "{name}": "{"".join(table[version].get(name, ".") for version in versions)}",')
    print("}")


if __name__ == "__main__":
    main()
