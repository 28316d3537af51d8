"""README.md of every role, written from its argument specs: prints which are out of step, or with --write writes them.

    python tests/tools/role_pages.py [--write]

A unit test fails when a page and its role differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
# Ansible's markup in descriptions → Markdown.
MARKUP = [
    (r"\b[CV]\(([^)]*)\)", r"`\1`"),
    (r"\b[OEP]\(([^)]*)\)", r"`\1`"),
    (r"\bM\(([^)]*)\)", r"`\1`"),
    (r"\bI\(([^)]*)\)", r"*\1*"),
    (r"\bB\(([^)]*)\)", r"**\1**"),
    (r"\bL\(([^,)]*), *([^)]*)\)", r"[\1](\2)"),
    (r"\bU\(([^)]*)\)", r"<\1>"),
]


def prose(text):
    """A description, which is a string or a list of paragraphs, as Markdown paragraphs."""
    paragraphs = [text] if isinstance(text, str) else list(text or [])
    for pattern, replacement in MARKUP:
        paragraphs = [re.sub(pattern, replacement, str(paragraph)) for paragraph in paragraphs]
    return paragraphs


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def shown(option):
    """The default as an operator would write it."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return "see `defaults/main.yml`" if option.get("type") in ("list", "dict", "bool") else ""
    value = option["default"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == "":
        return "`''`"
    text = cell(value)
    # A template this long says nothing in a table.
    return f"`{text}`" if len(text) <= 60 else "see `defaults/main.yml`"


def kind(option):
    text = option.get("type", "str")
    return f"{text} of {option['elements']}" if option.get("elements") else text


def rows(options, depth=0):
    for name, option in options.items():
        meaning = " ".join(prose(option.get("description")))
        if option.get("choices"):
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        label = "&nbsp;" * 4 * depth + f"`{name}`"
        yield f"| {label} | {kind(option)} | {shown(option)} | {cell(meaning)} |"
        yield from rows(option.get("options") or {}, depth + 1)


def tags(role):
    """The tags of the role's steps, in order, each once."""
    seen = {}
    for task in yaml.safe_load((role / "tasks/main.yml").read_text()) or []:
        for tag in task.get("tags") or []:
            seen[tag] = None
    return list(seen)


def page(role):
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    main = specs["main"]
    lines = [f"# inferops.gpu_host.{role.name}", "", f"{main['short_description'].rstrip('.')}.", ""]
    for paragraph in prose(main.get("description")):
        lines += [paragraph, ""]
    lines += ["```yaml", "- hosts: gpu_hosts", "  roles:", f"    - inferops.gpu_host.{role.name}", "```", ""]
    for name, entry in specs.items():
        title = "Variables" if name == "main" else f"Entry point `{name}`"
        lines += [f"## {title}", ""]
        if name != "main":
            lines += [f"{entry['short_description'].rstrip('.')}.", ""]
        if entry.get("options"):
            lines += ["| variable | type | default | meaning |", "|---|---|---|---|", *rows(entry["options"]), ""]
        else:
            lines += ["None of its own.", ""]
    if tags(role):
        lines += ["## Tags", "", ", ".join(f"`{tag}`" for tag in tags(role)) + ".", ""]
    lines += [
        "Licence: GPL-3.0-or-later. This page is written by `make docs` from "
        "[`meta/argument_specs.yml`](meta/argument_specs.yml).",
        "",
    ]
    return "\n".join(lines)


def main(write):
    stale = [
        role for role in ROLES if not (role / "README.md").is_file() or (role / "README.md").read_text() != page(role)
    ]
    for role in stale:
        if write:
            (role / "README.md").write_text(page(role))
        print(f"{'wrote' if write else 'out of step:'} roles/{role.name}/README.md")
    return 1 if stale and not write else 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
