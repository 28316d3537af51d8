# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt's sources by content: which entries mean one repository, whatever file they are in and however they are written.

Two entries for one repository with other keys stop apt altogether ("Conflicting values set for option Signed-By"). So
there is one entry, ours, and those of others are turned into comments, from which they can come back as they were.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

MARK = "#inferops.gpu_host: "  # in front of each line that we put out of action
REST = "#inferops.gpu_host+ what else the entry above named"  # begins a stanza that is ours
_ONE_LINE = re.compile(r"\s*(deb|deb-src)\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)([^#]*)")
_OFF = ("no", "false", "without", "off", "disable")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_read_by_apt(name):
    """Whether apt reads a file of this name in sources.list.d."""
    return re.match(r"[A-Za-z0-9_.-]+\.(list|sources)$", name) is not None


def repository(uri, suite, architecture):
    """A name for the repository, one for all ways to write it: scheme, user, slashes, port, $(ARCH), flat suites."""
    try:
        parts = urlsplit(uri.replace("$(ARCH)", architecture).rstrip("/"))
    except ValueError:  # nothing that apt could use either
        return "%s %s" % (uri, suite)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = (parts.hostname or "") + ("" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else ":%d" % port)
    path = parts.path
    suite = suite.replace("$(ARCH)", architecture)
    if suite.endswith("/"):  # a flat repository: the suite is the rest of the path
        path, suite = path + "/" + suite, "/"
    path = "/".join(word for word in path.split("/") if word not in ("", "."))
    return "%s/%s %s" % (host.lower(), path, suite)


class _Stanza:
    """One paragraph of a .sources file: its lines, and its fields with lower-case names."""

    def __init__(self, lines):
        self.lines = lines
        parts, name = {}, ""
        for line in lines:
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                parts.setdefault(name, []).append(line.strip())
            else:
                name, _colon, value = line.partition(":")
                name = name.strip().lower()
                parts[name] = [value.strip()]
        self.fields = {name: " ".join(words) for name, words in parts.items()}

    def words(self, name):
        return self.fields.get(name, "").split()

    @property
    def active(self):
        return bool(self.words("uris")) and self.fields.get("enabled", "yes").lower() not in _OFF

    def rest(self, uris, suites):
        """The same entry for these addresses and suites only, as lines of a stanza of ours."""
        replaced = {"uris": uris, "suites": suites}
        lines, skipping = [REST], False
        for line in self.lines:
            if line.startswith("#") or not line.strip():
                continue
            if line[0] not in " \t":
                name = line.partition(":")[0].strip()
                skipping = name.lower() in replaced
                if skipping:
                    line = "%s: %s" % (name, " ".join(replaced[name.lower()]))
                    lines.append(line)
            if not skipping:
                lines.append(line)
        return lines


def _paragraphs(text):
    """The lines of `text` as lists, each a paragraph or the blank lines between two."""
    found = []
    for line in text.splitlines():
        blank = not line.strip()
        if not found or found[-1][0] != blank:
            found.append((blank, []))
        found[-1][1].append(line)
    return found


def disabled(text, deb822, wanted, architecture):
    """`text` without active entries for the repositories `wanted`; and the components that these had."""
    lines, components = [], []
    if not deb822:
        for line in text.splitlines():
            entry = _ONE_LINE.match(line)
            if entry and repository(entry.group(2), entry.group(3), architecture) in wanted:
                components += entry.group(4).split()
                line = MARK + line
            lines.append(line)
    else:
        for blank, paragraph in _paragraphs(text):
            stanza = _Stanza(paragraph)
            pairs = [(uri, suite) for uri in stanza.words("uris") for suite in stanza.words("suites")]
            hit = {pair for pair in pairs if repository(*pair, architecture) in wanted}
            if blank or not stanza.active or not hit:
                lines += paragraph
                continue
            components += stanza.words("components")
            if paragraph[0] != REST:  # one of ours need not come back
                lines += [MARK + line for line in paragraph]
            for uri in dict.fromkeys(uri for uri, _suite in pairs):
                suites = [suite for suite in stanza.words("suites") if (uri, suite) not in hit]
                if suites:
                    lines += ["", *stanza.rest([uri], suites)]
    new = "\n".join(lines) + ("\n" if lines else "")
    return (new if components or new.count(MARK) > text.count(MARK) else text), list(dict.fromkeys(components))


def restored(text):
    """`text` as it was before disabled()."""
    if MARK not in text:
        return text
    kept = []
    for _blank, paragraph in _paragraphs(text):
        if paragraph[0] == REST:
            if kept and not kept[-1].strip():
                kept.pop()  # the blank line that we put before it
            continue
        kept += [line[len(MARK) :] if line.startswith(MARK) else line for line in paragraph]
    return "\n".join(kept) + "\n"


def entry(uris, suite, components, key_file):
    """The text of our own file."""
    lines = ["# Managed by inferops.gpu_host.apt_source", "Types: deb", "URIs:", *(" " + uri for uri in uris)]
    lines.append("Suites: " + suite)
    if components:
        lines.append("Components: " + " ".join(components))
    lines.append("Signed-By: " + key_file)
    return "\n".join(lines) + "\n"


def fields_of(text):
    """The fields of our own file, by names in lower case."""
    return _Stanza(text.splitlines()).fields


def key_ending(data):
    """How the file of this signing key has to end for apt, asc or gpg; empty when it is no key."""
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" in data[:4096]:
        return "asc"
    # The first packet of a binary key is a public key: tag 6, in the old or the new form.
    return "gpg" if data[:1] in (b"\x98", b"\x99", b"\x9a", b"\xc6") else ""


_TELLING = (
    "GPG error",
    "Failed to fetch",
    "Some index files",
    "not signed",
    "does not have a Release file",
    "Conflicting",
)


def complaints(output):
    """The lines with which `apt-get update` says that it cannot use a repository; an old key it only dislikes."""
    found = []
    for line in output.splitlines():
        if line.startswith(("E: ", "Err:")) or (line.startswith("W: ") and any(word in line for word in _TELLING)):
            found.append(line)
    return found
