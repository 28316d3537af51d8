# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One redaction, through which every value passes that is printed, logged, returned or written where others read.

`Redaction(parameters)` learns the secrets in what a caller was given: values under names such as `hf-token`, passwords
in addresses. Called with a value it returns the same value without them, and without whatever else looks like a secret.
Modules need not think of it: they are made with `_redacting_module.RedactingModule`, which holds one.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, unquote

BLOT = "***"
_SHORTEST = 4  # a shorter secret is blotted out where it stands, not wherever its letters occur

# As the end of a name, and where they mean other things elsewhere, as a word of their own at its end.
_SECRET_NAME = re.compile(
    r"(?:password|passwd|passphrase|secret|token|apikey|credentials?|authorization)$"
    r"|(?:^|_)(?:(?:api|access|secret|private|account|license|shared|encryption)_?keys?|pass|passwords|pwd|secrets|auth|cookie|bearer)$"
)
# Tokenizers have such names, too.
_NO_SECRET = re.compile(
    r"(?:^|_)(?:eos|bos|pad|unk|mask|sep|cls|img|image|video|audio|vision|speech|start|end|stop|special|tool|think|boi|eoi|"
    r"per|each|next|first|last|one)_token$"
)
_IN_QUERY = frozenset({"key", "sig", "signature", "code", "x_amz_signature", "x_amz_credential", "jwt"})

# Every pattern is bounded: what it reads may be a megabyte of one letter.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20})://(?P<rest>[^\s\"'<>`|,]+)")
_QUERY = re.compile(r"(?P<before>[?&;#])(?P<name>[\w.%-]{1,80})=(?P<value>[^&;#\s\"'<>]+)")
_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization|\bx-[a-z-]{0,40}(?:api-key|token)|\b(?:set-)?cookie)"
    r"(?P<between>[\"']?\s{0,9}[:=]\s{0,9}[\"']?)(?P<value>[^\"'\r\n]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>Bearer|Basic)(?P<between>\s{1,9})(?P<value>[A-Za-z0-9._~+/=-]{8,})")
# What hubs and code hosts give out says itself what it is.
_GIVEN_OUT = re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-)[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b")
# "name": "value", name=value, --name value, and `name: value` where a line says nothing else.
_ASSIGNED = re.compile(
    r"(?<![A-Za-z0-9_])(?P<name>[A-Za-z][\w.-]{0,80})(?P<between>\\{0,4}[\"']\s{0,9}:\s{0,9}|\s{0,9}=\s{0,9})"
    r"(?P<value>\\{1,4}\"[^\"\\]*\\{1,4}\"|\"(?:[^\"\\]|\\.)*\"|'[^']*'|\[[^\]]*\]|[^\s,;&\"'{}\[\]]+)"
)
_ARGUMENT = re.compile(r"(?P<name>--[A-Za-z][\w-]{0,80})(?P<between>[\s\"',]{1,9})(?P<value>[^\s\"',]+)")
_LINE = re.compile(
    r"^(?P<name>[ \t]{0,80}(?:- )?[\w.-]{1,80})(?P<between>:[ \t]{1,9})(?P<value>[^\s{\[]\S*)[ \t]*$", re.MULTILINE
)
_SAID = frozenset({"added", "changed", "removed", "null", "none", "true", "false", "yes", "no", BLOT, "********"})


def is_secret_name(name):
    """Whether what carries this name is a secret: `hf-token`, `HF_TOKEN`, `apiKey`; not `max_tokens`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name))
    name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET.search(name)


def is_proxy_name(name):
    return re.sub(r"[^a-z]+", "_", str(name).lower()).endswith("_proxy") and "no_proxy" not in str(name).lower()


def split_userinfo(rest, scheme=""):
    """(what stands before the @ of an address, what follows); before it is None when there is nothing to hide."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        # A password with a slash that nobody quoted: `user:a/b@host` has no number as its port.
        port = authority.rpartition("]")[2].partition(":")[2]
        if "@" not in rest or not port or re.fullmatch(r"\d*", port):
            return None, rest
        authority = rest.rpartition("@")[0] + "@"
    user = authority.rpartition("@")[0]
    if ":" not in user and re.search(r"ssh|rsync|sftp|docker", scheme, re.IGNORECASE):
        return None, rest
    return user, rest[len(user) + 1 :]


def without_credentials(address):
    """An address without its user and password, to be used together with them in another place."""
    return _ADDRESS.sub(lambda found: "%s://%s" % (found["scheme"], split_userinfo(found["rest"])[1]), address)


def credentials(address):
    """(user, password) of an address, None where it has none."""
    found = _ADDRESS.match(address or "")
    user = split_userinfo(found["rest"])[0] if found else None
    if user is None:
        return None
    name, _colon, password = user.partition(":")
    return unquote(name), unquote(password)


def _blot(found, check=is_secret_name):
    value = found["value"]
    name = found["name"].strip().lstrip("- ")
    if value.strip("\"'").lower() in _SAID:
        return found[0]
    if not check(name):
        if not is_proxy_name(name) or "://" in value or split_userinfo(value.strip("\"'"))[0] is None:
            return found[0]
        value = value.replace(split_userinfo(value.strip("\"'"))[0], BLOT)  # an address without a scheme
        return "%s%s%s" % (found["name"], found["between"], value)
    if value[:1] == "[":
        return '%s%s["%s"]' % (found["name"], found["between"], BLOT)
    quoted = value[:1] if value[:1] in "\"'" and value[-1:] == value[:1] and len(value) > 1 else ""
    before = found["before"] if "before" in found.re.groupindex else ""
    between = found["between"] if "between" in found.re.groupindex else "="
    return "%s%s%s%s%s%s" % (before, found["name"], between, quoted, BLOT, quoted)


def _in_query(name):
    name = unquote(name)
    return is_secret_name(name) or re.sub(r"[^a-z0-9]+", "_", name.lower()) in _IN_QUERY


def _blot_address(found):
    user, rest = split_userinfo(found["rest"], found["scheme"])
    return "%s://%s%s" % (found["scheme"], "" if user is None else BLOT + "@", rest)


def text(value):
    """A text without what looks like a secret."""
    value = str(value)
    if "://" in value:
        value = _ADDRESS.sub(_blot_address, value)
    if "=" in value:
        value = _QUERY.sub(lambda found: _blot(found, _in_query), value)
    if ":" in value or "=" in value:
        value = _HEADER.sub(lambda found: _blot(found, lambda _name: True), value)
        value = _ASSIGNED.sub(_blot, value)
        value = _LINE.sub(_blot, value)
    if "--" in value:
        value = _ARGUMENT.sub(_blot, value)
    value = _GIVEN_OUT.sub(BLOT, value)
    return _BEARER.sub(lambda found: _blot(found, lambda _name: True), value)


class Redaction:
    """What is known to be secret. Called with a value of any kind it returns that value as everybody may see it."""

    def __init__(self, *known):
        """known: mappings, lists and texts in which secrets are found by name and by form."""
        self.secrets = set()
        for value in known:
            self.learn(value)

    def learn(self, value):
        """Take in the secrets of another value."""
        self._learn(value, "", False)
        return self

    def add(self, *secrets):
        """Take in texts that are secret by themselves."""
        for secret in secrets:
            secret = "" if secret is None else str(secret)
            plain = unquote(secret)
            quoted = {quote(secret, safe=""), quote(plain, safe=""), quote(plain)}
            for form in {secret, plain, secret.strip(), json.dumps(secret)[1:-1], *quoted}:
                if len(form) >= _SHORTEST and form != BLOT:
                    self.secrets.add(form)
        return self

    def _learn(self, value, name, secret):
        if isinstance(value, dict):
            for key, inner in value.items():
                self._learn(inner, key, secret or is_secret_name(key))
        elif isinstance(value, (list, tuple, set)):
            for inner in value:
                self._learn(inner, name, secret)
        elif isinstance(value, (str, bytes)):
            self._learn_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, name, secret)
        elif secret and isinstance(value, int) and not isinstance(value, bool):
            self.add(value)

    def _learn_text(self, value, name, secret):
        if secret:
            if value.lower() not in _SAID:
                self.add(value)
            return
        addresses = [(found["scheme"], found["rest"]) for found in _ADDRESS.finditer(value)]
        if is_proxy_name(name) and "://" not in value:
            addresses.append(("", value))
        for scheme, rest in addresses:
            user, _host = split_userinfo(rest, scheme)
            if user is None:
                continue
            login, colon, password = user.partition(":")
            self.add(user, password if colon else login)
            self.add(base64.b64encode(unquote(user).encode("utf-8")).decode("ascii"))
        for found in _QUERY.finditer(value):
            if _in_query(found["name"]):
                self.add(found["value"])
        for pattern in (_ARGUMENT, _ASSIGNED, _HEADER):
            for found in pattern.finditer(value):
                said = found["value"].strip("\"'")
                if (pattern is _HEADER or is_secret_name(found["name"].lstrip("-"))) and said.lower() not in _SAID:
                    self.add(re.sub(r"^(?:Bearer|Basic)\s+", "", said))

    def __call__(self, value, name="", secret=False):
        secret = secret or (bool(name) and is_secret_name(name))
        if isinstance(value, dict):
            return {self._key(key): self(inner, key, secret) for key, inner in value.items()}
        if isinstance(value, list):
            return self._list(value, name, secret)
        if isinstance(value, (tuple, set, frozenset)):
            return type(value)(self(inner, name, secret) for inner in value)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return BLOT if secret else value
        if secret:
            return BLOT if value else value
        if not isinstance(value, (str, bytes)):
            return value
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if is_proxy_name(name) and "://" not in value:
            user, rest = split_userinfo(value)
            value = value if user is None else "%s@%s" % (BLOT, rest)
        return self.text(value)

    def _key(self, key):
        return self._known(key) if isinstance(key, str) else key

    def _list(self, value, name, secret):
        """Also a command line: what follows `--api-key` is blotted out."""
        result, after = [], False
        for inner in value:
            option = isinstance(inner, str) and inner.startswith("--")
            result.append(self(inner, name, secret or (after and not option)))
            after = option and "=" not in inner and is_secret_name(inner.lstrip("-"))
        return result

    def _known(self, value):
        for secret in sorted(self.secrets, key=len, reverse=True):  # the longest first: one may be a part of another
            if secret in value:
                value = value.replace(secret, BLOT)
        return value

    def text(self, value):
        """A text, such as a message of another program, without the secrets."""
        return text(self._known(str(value)))


def redacted(value, *known):
    """`value` as everybody may see it; known: where its secrets may come from."""
    return Redaction(value, *known)(value)
