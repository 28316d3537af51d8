"""The bounds themselves: JSON, files, commands and HTTP answers of others."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.request

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _bounded_command, _bounded_http, _untrusted

bounded_json = _untrusted.bounded_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1e400]", "no float can hold"),
        ("[NaN]", "NaN, which is no JSON"),
        ("[-Infinity]", "-Infinity, which is no JSON"),
        ("1" * 5000, "a number of 5000 digits"),
        ("[" * 100 + "]" * 100, "nests deeper than 64"),
        ("[" * 1_000_000, "nests deeper than 64"),
        ('{"a":' * 100_000, "nests deeper than 64"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
        (json.dumps("x" * (9 << 20)), "longer than 8 MiB"),
        (b"\xff", "not in UTF-8"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ("{} {}", "no JSON"),
    ],
)
def test_what_json_is_refused(text, words):
    with pytest.raises(_untrusted.UntrustedError, match="the answer") as caught:
        bounded_json(text, "the answer")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_json_is_read():
    assert bounded_json('{"a": [1, -2, 2.5, 1e3, true, null, "\\ud83d\\ude00"]}', "x") == {
        "a": [1, -2, 2.5, 1000.0, True, None, "\N{GRINNING FACE}"]
    }
    assert bounded_json("[Infinity, 1e400]", "x", infinite=True) == [float("inf")] * 2
    assert bounded_json("[" * 64 + "]" * 64, "x")
    assert bounded_json('{"a": 1, "a": 2}', "x") == {"a": 2}
    with pytest.raises(_untrusted.UntrustedError, match="the key a twice"):
        bounded_json('{"a": 1, "a": 2}', "x", unique=True)


def test_the_callers_own_error_is_raised():
    with pytest.raises(KeyError, match="config"):
        bounded_json("[", "config", KeyError)


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "missing", "too long", "nul"])
def test_a_file_that_is_none_is_not_waited_for(tmp_path, kind):
    path = str(tmp_path / "file")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "too long":
        with open(path, "wb") as stream:
            stream.truncate(1 << 40)
    elif kind == "nul":
        path += "\0"
    with pytest.raises(_untrusted.UntrustedError):
        _untrusted.read_file(path)


def test_a_line_for_the_terminal_cannot_steer_it():
    assert _untrusted.printable("a\x1b]0;x\x07\n\u202eb\ud800") == "a\ufffd]0;x\ufffd \ufffdb\ufffd"
    assert _untrusted.printable("x" * 10**6, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "²", "٣", "1" * 5000, "9" * 19, None, 7, "0x10", "1_0"])
def test_what_is_no_whole_number(text):
    assert _untrusted.whole_number(text) is None


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("sleep 60", "too slow"),
        ("sleep 60 & sleep 60", "too slow"),
        ("exec >&- 2>&-; sleep 60", "too slow"),
        ("trap '' TERM INT HUP; while :; do :; done", "too slow"),
        ("while :; do echo aaaaaaaaaaaaaaaaaaaaaaa; done", "too long"),
        ("while :; do echo aaaaaaaaaaaaaaaaaaaaaaa >&2; done", "too long"),
    ],
)
def test_a_command_ends(command, fault):
    begin = time.monotonic()
    answer = _bounded_command.run(["bash", "-c", command], seconds=0.3, limit=4000)
    assert (answer.rc, answer.fault) == (None, fault)
    assert len(answer.out) <= 4000 and time.monotonic() - begin < 5


def test_what_a_command_says():
    assert _bounded_command.run(["sh", "-c", "echo a; echo b >&2; exit 14"]) == (14, "a\n", "b\n", None)
    assert _bounded_command.run(["no-such-command-here"]).fault == "missing"
    assert _bounded_command.run(["sh", "-c", "echo $LC_ALL$A"], environment={"A": "x"}).out == "Cx\n"


def answers(pieces, wait=0.0):
    """The address of a server that sends these pieces to its first client, the last one over and over."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _address = listener.accept()
        try:
            client.recv(65536)
            for piece in pieces[:-1]:
                client.sendall(piece)
            while pieces[-1]:
                client.sendall(pieces[-1])
                time.sleep(wait)
        except OSError:
            pass  # the client has seen enough
        client.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return "http://127.0.0.1:%d/" % listener.getsockname()[1]


OK = b"HTTP/1.1 200 OK\r\n"


def fetch(url, limit=100_000):
    handlers = _bounded_http.handlers(patience=0.3, seconds=0.3)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    with opener.open(url, timeout=0.3) as response:
        return _bounded_http.read(response, limit)


@pytest.mark.parametrize(
    ("pieces", "wait"),
    [
        ([b""], 0),
        ([OK, b"X-Header: a\r\n"], 0.01),
        ([OK + b"X-Header: ", b"a"], 0.01),
        ([OK + b"\r\n", b"a"], 0.01),
        ([OK + b"\r\n", b"a" * 65536], 0),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"], 0.01),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"], 0.01),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc", b""], 0),
        ([OK + b"Content-Length: 100000000000\r\n\r\n", b"a" * 65536], 0),
        ([OK + b"Content-Length: 10\r\n\r\nabc", b""], 0),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], 0.001),
    ],
)
def test_an_http_answer_ends(pieces, wait):
    begin = time.monotonic()
    with pytest.raises(Exception) as caught:
        assert len(fetch(answers(pieces, wait))) >= 10  # what ends early is no whole answer
    assert not isinstance(caught.value, (MemoryError, RecursionError))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"\r\nok",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_a_good_answer_arrives(answer):
    assert fetch(answers([answer, b""])) == b"ok"


def test_lines_of_a_stream_are_bounded():
    class Endless:
        def readline(self, limit):
            return b"x" * min(limit, 1000)

    with pytest.raises(_bounded_http.AnswerTooLong):
        list(_bounded_http.lines(Endless(), limit=10_000))
    with pytest.raises(_bounded_http.AnswerTooLong):
        list(_bounded_http.lines(Endless(), limit=10_000, longest=100))
