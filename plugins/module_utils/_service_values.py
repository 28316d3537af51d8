# Copyright (c) 2026, the inferops.gpu_host maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values that reach a command line, a volume, an address, a file name or an environment.

Each takes a value as an operator wrote it, returns it clean, or raises `Bad` with what it should have been. A value is
data wherever it goes: nothing here may become an option, a second field of a volume, or a line of its own.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re

from ansible_collections.inferops.gpu_host.plugins.module_utils._container_state import SUFFIXES

LONGEST_PATH = 4096
SHORTEST_GOOD_KEY = 32
# `api_key: none` is wanted open; nobody has to write it as a boolean or leave it out for that.
OPEN = "none"

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]")
# Below these a container has its own files, or the kernel has what are no files.
_NOT_FOR_MODELS = ("/", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/run")
_KERNEL = ("/proc/", "/sys/", "/dev/", "/etc/", "/boot/")
_ID_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_HOST_NAME = re.compile(r"(?=.{1,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
                        r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # fmt: skip


class Bad(ValueError):
    """What a value should have been."""


def one_line(value, wanted="a line of text", longest=1024):
    """Text without control characters that no program takes for an option."""
    if not isinstance(value, str) or not value.strip():
        raise Bad(wanted)
    value = value.strip()
    if _CONTROL.search(value):
        raise Bad(f"{wanted} without control characters")
    if value.startswith("-"):
        raise Bad(f"{wanted} that does not begin with a dash")
    if len(value) > longest:
        raise Bad(f"{wanted} of at most {longest} characters")
    return value


def word(wanted, pattern=r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", longest=128):
    def check(value):
        value = one_line(value, wanted, longest)
        if not re.fullmatch(pattern, value):
            raise Bad(wanted)
        return value

    return check


version = word("a version such as 0.26.0", r"v?[0-9][A-Za-z0-9.+_-]*", 64)
digest = word("a digest such as sha256:… (64 hexadecimal digits)", r"sha256:[0-9a-f]{64}", 71)
method = word("the name of a method, such as awq", r"[A-Za-z0-9_][A-Za-z0-9_.-]*", 64)


def container_name(value):
    wanted = "letters, digits, dots, dashes and underscores, as in a container's name"
    if not isinstance(value, str) or not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", value):
        raise Bad(wanted)
    if len(value) > 100:
        raise Bad(f"{wanted}, at most 100 of them")
    if value.endswith(SUFFIXES):
        raise Bad(f"a name that does not end in {', '.join(SUFFIXES)}: containers beside a service are called so")
    return value


def model_id(value):
    wanted = "an id such as Qwen/Qwen2.5-7B-Instruct (a directory on the host is `path`)"
    value = one_line(value, wanted, 200)
    parts = value.split("/")
    if len(parts) > 2 or not all(re.fullmatch(_ID_PART, part) for part in parts):
        raise Bad(wanted)
    return value


def revision(value):
    wanted = "a branch, a tag or a commit"
    value = one_line(value, wanted, 250)
    parts = value.split("/")
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*", part) for part in parts) or ".." in value:
        raise Bad(wanted)
    return value


def directory(value):
    """An absolute path that can be mounted, and means the same wherever it is written."""
    wanted = "an absolute path without `..`, colons and control characters"
    value = one_line(value, wanted, LONGEST_PATH)
    # A colon ends the first field of a volume, whatever follows.
    if not value.startswith("/") or ":" in value or ".." in value.split("/"):
        raise Bad(wanted)
    return posixpath.normpath("/" + value.lstrip("/"))


def model_directory(value):
    path = directory(value)
    if path in _NOT_FOR_MODELS or path.startswith(_KERNEL):
        raise Bad("the directory of a model, and not one that a system or a container has for itself")
    return path


def image(value):
    wanted = "an image such as registry.example/vllm/vllm-openai:v0.33.0 (NAME:TAG or NAME@sha256:…)"
    value = one_line(value, wanted, 500)
    if not _IMAGE.fullmatch(value):
        raise Bad(wanted)
    return value


def address(value):
    """An IP address or a host name; nothing else can be listened on."""
    wanted = "an IP address (127.0.0.1, 0.0.0.0, ::1, without brackets) or a host name"
    value = one_line(value, wanted, 253)
    try:
        if "%" in value:
            raise Bad(wanted)
        return str(ipaddress.ip_address(value))
    except Bad:
        raise
    except ValueError:
        # `127.1` and `0177.0.0.1` are addresses for some programs and names for others.
        if not _HOST_NAME.fullmatch(value):
            raise Bad(wanted) from None
    return value


def url(value):
    wanted = "an address such as https://mirror.example/models"
    value = one_line(value, wanted, 2000)
    if not re.fullmatch(r"https?://[^\s/\\][^\s\\]*", value):
        raise Bad(wanted)
    return value


def is_pattern(value):
    """Whether it can only be a pattern of file names below a directory."""
    return bool(value) and not (_CONTROL.search(value) or value.startswith(("-", "/")) or ".." in value.split("/"))


def is_ip(value):
    try:
        return bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def is_loopback(value):
    """Whether nothing but the host itself reaches what listens on this address."""
    if isinstance(value, str) and value.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(value).is_loopback
    except ValueError:
        return False


def api_key(value):
    """A key as it can stand in a header, or `none`. What is wrong is said without the key."""
    wanted = "text of printable ASCII characters without spaces that does not begin with a dash, in quotes; or none"
    if not isinstance(value, str):
        raise Bad(wanted)
    value = value.strip()
    if value.lower() == OPEN:
        return OPEN
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", value) or value.startswith("-"):
        raise Bad(wanted)
    return value


def weak(key):
    """Why a key of the operator's is easily guessed; nothing when it is not."""
    if key in (None, "", OPEN):
        return None
    if len(key) < SHORTEST_GOOD_KEY:
        return f"has {len(key)} characters, and fewer than {SHORTEST_GOOD_KEY} can be guessed"
    if len(set(key)) < 8:
        return f"consists of {len(set(key))} different characters only"
    return None


def gpu(value):
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**4:
        return value
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9:/._-]{0,99}", value):
        return value
    raise Bad("a GPU's index or UUID")


# What a mapping may hold


def environment(value):
    result = {}
    for name, item in mapping(value).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", str(name)):
            raise Bad(f"a mapping of names to strings ({str(name)!r} is no name of a variable)")
        if isinstance(item, (dict, list)) or item is None:
            raise Bad(f"a mapping of names to strings ({name} is not a string)")
        text = ("true" if item else "false") if isinstance(item, bool) else str(item)
        if "\0" in text:
            raise Bad(f"a mapping of names to strings ({name} holds a NUL)")
        if name in ("VLLM_API_KEY", "API_KEY"):
            raise Bad(f"no {name}, which docker inspect would show: the key of a service is its `api_key`")
        result[str(name)] = text
    return result


def mapping(value):
    if not isinstance(value, dict):
        raise Bad("a mapping")
    return dict(value)


def options(value):
    """Options of an engine: names that are names, and values that stay values."""
    result = mapping(value)
    for name, item in result.items():
        if not re.fullmatch(r"-{0,2}[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_.-]+)?", str(name)):
            raise Bad(f"a mapping of options to values ({str(name)!r} is no name of an option)")
        for text in _texts(item):
            if "\0" in text:
                raise Bad(f"a mapping of options to values ({name} holds a NUL)")
    return result


def _texts(value, depth=0):
    if depth > 20:
        raise Bad("a mapping of options to values, nested less deeply")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, depth + 1)


# Keys of community.docker.docker_container that other keys of a service set, and by which.
CONTAINER_ELSEWHERE = {
    "command": "options",
    "image": "image",
    "name": "name",
    "published_ports": "port and bind_address",
    "ports": "port and bind_address",
    "state": "state",
}
_LISTS = ("volumes", "ulimits", "devices", "capabilities", "cap_drop", "security_opts", "tmpfs")
LABEL = "io.github.inferops."


def container(value):
    """`container:` of a service: further arguments of community.docker.docker_container."""
    result = mapping(value)
    for key, item in result.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(key)):
            raise Bad(f"a mapping of arguments of docker_container ({str(key)!r} is none)")
        if key in CONTAINER_ELSEWHERE:
            raise Bad(f"a mapping without {key}, which is set by {CONTAINER_ELSEWHERE[key]} of the service")
        if key in _LISTS:
            result[key] = [_part(key, text) for text in item] if isinstance(item, (list, tuple)) else _no_list(key)
        for text in _texts(item):
            if "\0" in text:
                raise Bad(f"a mapping of arguments of docker_container ({key} holds a NUL)")
    if "env" in result:
        result["env"] = environment(result["env"])
    labels = result.get("labels") or {}
    if not isinstance(labels, dict) or any(str(name).startswith(LABEL) for name in labels):
        raise Bad(f"labels as a mapping, and none that begins with {LABEL}, by which this collection knows its own")
    return result


def _no_list(key):
    raise Bad(f"a mapping in which {key} is a list")


def _part(key, text):
    if not isinstance(text, str) or not text or _CONTROL.search(text) or text.startswith("-"):
        raise Bad(f"a mapping in which {key} is a list of strings without control characters and leading dashes")
    if key == "volumes":
        fields = text.split(":")
        if len(fields) > 3 or (len(fields) > 1 and not fields[1].startswith("/")):
            raise Bad(
                f"a mapping in which each of volumes is /HOST:/CONTAINER or /HOST:/CONTAINER:ro ({text!r} is not)"
            )
        if len(fields) > 1 and not (fields[0].startswith("/") or re.fullmatch(r"[A-Za-z0-9][\w.-]*", fields[0])):
            raise Bad(f"a mapping in which each of volumes begins with an absolute path or a volume's name ({text!r})")
    return text
