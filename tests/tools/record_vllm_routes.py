#!/usr/bin/env python3
"""Records which routes vLLM's API server of each version has, from vLLM's own sources, into _vllm_route_table.py.

    pip download --no-deps --no-binary :all: --no-build-isolation --no-clean vllm==0.33.0   # keeps the unpacked sources
    record_vllm_routes.py 0.32.0=/path/to/sources 0.33.0=/path/to/sources … > _vllm_route_table.py

Static: what is written at `@router.post("/path")` and `add_api_route("/path", …)` below vllm/entrypoints. A version
already in the table and not given again is kept. What each path does is judged in _open_routes.py, and a test wants
all of them there.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "plugins" / "module_utils" / "_vllm_route_table.py"
METHODS = ("get", "post", "put", "patch", "delete", "websocket")
# Servers of their own, which `vllm serve` of one service does not start.
OTHERS = ("dp_supervisor.py", "preload.py", "api_server.py of entrypoints itself")


def routes_of(root):
    """({(method, path)}, guarded prefixes) of one version's sources."""
    routes, guarded = set(), ("/v1",)
    for file in sorted((root / "entrypoints").glob("**/*.py")):
        if file.name in OTHERS or file == root / "entrypoints" / "api_server.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "GUARDED_PREFIX":
                guarded = tuple(ast.literal_eval(node.value))
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            path, method = node.args[0], node.func.attr
            if not isinstance(path, ast.Constant) or not str(path.value).startswith("/"):
                continue
            if not ast.unparse(node.func.value).endswith(("router", "app")):
                continue
            if method in ("add_api_route", "api_route"):
                named = [word for word in METHODS if f"'{word.upper()}'" in ast.unparse(node)]
                routes |= {(word.upper(), path.value) for word in named or ["get"]}
            elif method in METHODS:
                routes.add((method.upper(), path.value))
    return routes, guarded


def recorded():
    if not TABLE.is_file():
        return {}
    scope = {}
    exec(TABLE.read_text(), scope)
    versions = scope["VERSIONS"]
    return {
        version: (
            {tuple(name.split()) for name, row in scope["ROUTES"].items() if row[at] == "x"},
            scope["GUARDED"][version],
        )
        for at, version in enumerate(versions)
    }


def main():
    table = recorded()
    for item in sys.argv[1:]:
        version, _, root = item.partition("=")
        table[version] = routes_of(Path(root) / "vllm")
    versions = sorted(table, key=lambda text: [int(part) for part in text.replace("post", "").split(".")])
    names = sorted({name for routes, _ in table.values() for name in routes}, key=lambda name: name[::-1])
    header = (ROOT / "plugins" / "module_utils" / "_units.py").read_text().split('"""')[0]
    print(header, end="")
    print('"""Every route of vLLM\'s API server, version by version. Written by tests/tools/record_vllm_routes.py.\n')
    print("Source: the sdists of vLLM on PyPI, what is declared below vllm/entrypoints, and the prefixes that its")
    print('AuthenticationMiddleware guards. One letter per version: `x` there, `.` not.\n"""\n')
    print("from __future__ import annotations\n")
    print("VERSIONS = (")
    for version in versions:
        print(f'    "{version}",')
    print(")\n\n# Paths that begin so want the key.\nGUARDED = {")
    for version in versions:
        prefixes = ", ".join(f'"{prefix}"' for prefix in table[version][1])
        print(f'    "{version}": ({prefixes}{"," if len(table[version][1]) == 1 else ""}),')
    print("}\n\nROUTES = {")
    for method, path in names:
        row = "".join("x" if (method, path) in table[version][0] else "." for version in versions)
        print(f'    "{method} {path}": "{row}",')
    print("}")


if __name__ == "__main__":
    main()
