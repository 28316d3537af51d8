"""What a hub or a mirror lists and answers may be hostile: one clear error, within bounds of bytes and time."""

from __future__ import annotations

import fnmatch
import gzip
import json
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stand_ins.model_hub import Hub

from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_http, _model_listing
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_manifest as manifests
from ansible_collections.inferops.gpu_host.plugins.module_utils import _model_sources as sources
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_manifest import FileEntry, ManifestError
from ansible_collections.inferops.gpu_host.plugins.module_utils._model_snapshot import (
    FetchError,
    Places,
    SnapshotError,
)

HASH = "a" * 64
HUBS = {"modelscope": sources.ModelScopeSource, "huggingface": sources.HuggingFaceSource}
HOSTILE_NAMES = [
    "--local-dir=/etc",
    "-x",
    "sub/--token=x",
    "../../etc/cron.d/x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "a/",
    "",
    "..",
    "a\\..\\b",
    "a\nb",
    "a\0b",
    "a\x1b[2Jb",
    "a\u202eb",
    "a\u200bb",
    " a",
    "a ",
    "sub /a",
    "x" * 201,
    "/".join(["d"] * 40),
    "/".join(["d" * 100] * 11),
    "WJ_mSNtUK4pMCYzdDEQDDCnhXcI=.x/config.json",  # the name that `hf` derives for config.json, as a directory
    7,
    None,
    ["a"],
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=repr)
def test_a_name_that_no_file_of_a_model_has(name):
    entries = [FileEntry("config.json", 2, HASH), FileEntry(name, 1, HASH)]
    with pytest.raises(ManifestError, match="the listing names") as error:
        manifests.select(entries)
    assert str(error.value).isprintable()
    if isinstance(name, str) and name:
        assert [e.path for e in manifests.select(entries, exclude=[name])] == ["config.json"]  # a way out


@pytest.mark.parametrize(
    "name", [".model-manifest.json", ".cache/huggingface/x", ".MSC", "w.incomplete", ".git/config"]
)
def test_what_clients_and_this_collection_write_is_no_part_of_a_model(name):
    entries = [FileEntry("config.json", 2, HASH), FileEntry(name, 1, HASH)]
    assert [e.path for e in manifests.select(entries)] == ["config.json"]
    with pytest.raises(ManifestError, match="uses itself"):
        manifests.checked_entries(entries)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.bin", "model.bin"),
        ("README.md", "readme.md"),
        ("Stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("A/b", "a"),
    ],
)
def test_two_names_for_one_place(one, other):
    with pytest.raises(ManifestError, match="the listing names"):
        manifests.select([FileEntry(one, 1, HASH), FileEntry(other, 1, HASH)])


@pytest.mark.parametrize("size", [-1, 1.5, 10**400, "7", None, True, 2**44 + 1, [], {}])
def test_a_size_that_is_none(size):
    with pytest.raises(ManifestError, match="bytes"):
        manifests.select([FileEntry("a", size, HASH)])


def test_more_bytes_than_any_model_has():
    with pytest.raises(ManifestError, match="no model is that large"):
        manifests.select([FileEntry(f"f{n}", 2**43, HASH) for n in range(3)])


@pytest.mark.parametrize("sha256", ["x" * 64, "a" * 63, 5, ["a"], "../" * 10])
def test_a_hash_that_is_none(sha256):
    with pytest.raises(ManifestError, match="no hash"):
        manifests.select([FileEntry("a", 1, sha256)])


def test_a_long_list_takes_time_in_proportion_to_its_length():
    entries = [FileEntry(f"consolidated.{n}.safetensors", 1, HASH) for n in range(manifests.MOST_FILES)]
    began = time.process_time()
    assert len(manifests.select(entries)) == len(entries)
    assert time.process_time() - began < 3
    with pytest.raises(ManifestError, match="no model has more"):
        manifests.select([*entries, FileEntry("one-more", 1, HASH)])


ODD_BUT_RIGHT = [
    "a[1].json",
    "b*c.txt",
    "x?y",
    "sp ace.json",
    "[!a]",
    "sub/[ab].txt",
    "a.*b",
    "=x",
    "#x",
    "\u00e4.json",
]


@pytest.mark.parametrize("name", ["modelscope", "huggingface"])
def test_each_name_reaches_the_client_as_a_pattern_of_its_own(tmp_path, name):
    """Not as an argument that could be taken for an option, nor as a pattern that another name matches."""
    source = HUBS[name]("org/name", None, "http://hub", None, None, Places(str(tmp_path / "m")))
    entries = manifests.select([FileEntry(n, 1, HASH) for n in ODD_BUT_RIGHT])
    arguments = source.arguments(entries, str(tmp_path), "c" * 40)
    assert arguments[:2] == ["download", "org/name"]
    assert all(a.startswith("--") and "=" in a for a in arguments[2:])
    patterns = [a.partition("=")[2] for a in arguments if a.startswith("--include=")]
    for pattern, path in zip(patterns, ODD_BUT_RIGHT):
        others = ["/etc/passwd", "../x", "aXc", "a", "b", "b/../../c.txt", *ODD_BUT_RIGHT]
        assert [p for p in others if fnmatch.fnmatchcase(p, pattern)] == [path]


def test_a_comma_divides_names_for_one_of_the_clients():
    entries = [FileEntry("a,../../b", 1, HASH)]
    with pytest.raises(FetchError, match=r"comma.*exclude"):
        list(sources._portions(entries, "modelscope"))
    assert list(sources._portions(entries, "huggingface"))


def test_a_long_list_is_fetched_in_portions():
    entries = [FileEntry(f"{n:05d}{'x' * 190}", 1, HASH) for n in range(2000)]
    portions = list(sources._portions(entries, "modelscope"))
    assert [e for portion in portions for e in portion] == entries
    assert max(sum(len(e.path) for e in portion) for portion in portions) < 64 * 1024


@pytest.mark.parametrize("value", ["--local-dir=/etc", "hf://datasets/x", "a/../../b", "a\nb"])
def test_names_of_models_are_no_options_either(tmp_path, value):
    with pytest.raises(SnapshotError, match="is not the name of one"):
        sources.HuggingFaceSource(value, None, "http://hub", None, None, Places(str(tmp_path / "m")))
    with pytest.raises(SnapshotError, match="is not the name of one"):
        sources.ModelScopeSource("a/b", value, "http://hub", None, None, Places(str(tmp_path / "m")))


# --- answers -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "hub/org/name").mkdir(parents=True)
    (tmp_path / "hub/org/name/config.json").write_text("{}")
    hub = Hub(tmp_path / "hub")
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield hub
    hub.stopped.set()
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def list_it(hub, tmp_path, monkeypatch):
    """Asks the hub for the listing, with less patience than outside of tests."""
    monkeypatch.setattr(_model_http, "SECONDS", 0.4)
    monkeypatch.setattr(
        sources, "get", lambda url, token: _model_http.get(url, token, attempts=2, sleep=lambda s: None)
    )

    def list_it(name="modelscope", token=None):
        places = Places(str(tmp_path / "models/name"))
        source = HUBS[name]("org/name", None, hub.url, token, None, places)
        began = time.monotonic()
        try:
            entries, resolved = source.listing()
            return manifests.select(entries), resolved
        finally:
            assert time.monotonic() - began < 5

    return list_it


def told(list_it, name):
    """The one error that comes, as one line of reasonable length."""
    with pytest.raises((SnapshotError, ManifestError)) as error:
        list_it(name)
    text = str(error.value)
    assert text.isprintable()
    assert len(text) < 700
    return text


DEEP = "[" * 100000
ODD_ANSWERS = [
    ("", "no JSON"),
    ("[]", ""),
    ("null", ""),
    ("7", ""),
    ('"x"', ""),
    (DEEP, "nests deeper"),
    ('{"Data": ' * 50000, "nests deeper"),
    ("9" * 100000, "digits"),
    ("1e400", "1e400"),
    ("NaN", "NaN"),
    ("\xff\xfe", "UTF-8"),
    ("<html>blocked</html>", "no JSON"),
    ('{"Data": 7}', ""),
    ('{"Data": {"Files": 7}}', ""),
    ('{"Data": {"Files": [7]}}', ""),
    ('{"Data": {"Files": [{}]}}', ""),
    ('{"Data": {"Files": [{"Path": "a"}]}}', ""),
    ('{"Data": {"Files": [{"Path": "a", "Size": 1e400}]}}', "1e400"),
    ('{"Data": {"Files": [{"Path": "a", "Size": -1}]}}', "-1 bytes"),
    ('{"Data": {"Files": [{"Path": "a", "Size": 1, "Sha256": 7}]}}', "Sha256"),
    ('{"Data": {"Files": [{"Path": ["a"], "Size": 1}]}}', "list"),
    ('{"Data": {"Files": [{"Path": "--local-dir=/etc", "Size": 1}]}}', "option"),
]


@pytest.mark.parametrize(("body", "words"), ODD_ANSWERS, ids=[body[:30] for body, _words in ODD_ANSWERS])
def test_an_answer_of_an_odd_form(hub, list_it, body, words):
    for name in HUBS:
        hub.misbehave("answer", "listing", {"body": body}, times=1)
        try:
            entries = list_it(name)[0]
        except (SnapshotError, ManifestError) as error:
            assert str(error).isprintable()
            assert name != "modelscope" or words in str(error)
        else:
            assert name == "modelscope"
            assert entries == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"repeat": "x"}, "longer than"),
        ({"body": "[" * 60, "drip": 0.05}, "time"),
        ({"headers": {"X": "y" * 70000}}, "header"),
        ({"headers": {f"X-{n}": "y" for n in range(200)}}, "header"),
        ({"body": "{", "headers": {"Content-Length": "9" * 30}}, "more expected"),
        ({"body": "{}", "headers": {"Content-Length": "-5"}}, ""),
        ({"code": 302, "headers": {"Location": "file:///etc/passwd"}}, "not followed"),
        ({"code": 302, "headers": {"Location": "ftp://127.0.0.1/x"}}, "not followed"),
        ({"code": 302, "headers": {"Location": "gopher://127.0.0.1/x"}}, "not followed"),
        ({"code": 302, "headers": {"Location": "\\\\x"}}, ""),
        ({"code": 302}, "redirects"),
        ({"code": 429, "headers": {"Retry-After": "-5"}}, "HTTP 429"),
        ({"code": 429, "headers": {"Retry-After": "9" * 5000}}, "HTTP 429"),
        ({"code": 503, "headers": {"Retry-After": "soon"}}, "HTTP 503"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_answer_that_never_ends_well(hub, list_it, answer, words):
    hub.misbehave("answer", "listing", answer)
    assert words.lower() in told(list_it, "huggingface").lower()


def test_a_small_answer_that_unpacks_to_a_large_one(hub, list_it):
    body = gzip.compress(b"[" * 20_000_000).decode("latin-1")
    hub.misbehave("answer", "listing", {"body": body, "headers": {"Content-Encoding": "gzip"}})
    assert "no JSON" in told(list_it, "modelscope") or "UTF-8" in told(list_it, "modelscope")


def test_a_million_files(hub, list_it):
    files = '{"Path":"a","Size":1},' * 1_000_000
    hub.misbehave("answer", "listing", {"body": '{"Data":{"Files":[' + files})
    assert "longer than" in told(list_it, "modelscope")


def test_a_token_does_not_travel(hub, list_it, tmp_path):
    elsewhere = Hub(tmp_path / "hub")
    threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    target = f"{elsewhere.url}/api/v1/models/org/name/repo/files"
    hub.misbehave("answer", "listing", {"code": 302, "headers": {"Location": target}})
    assert [e.path for e in list_it("modelscope", "token")[0]] == ["config.json"]
    assert (hub.tokens, elsewhere.tokens, elsewhere.answers) == ({"token"}, set(), {200: 1})
    elsewhere.shutdown()
    elsewhere.server_close()


def test_a_redirect_to_itself_ends(hub, list_it):
    hub.misbehave("answer", "listing", {"code": 302, "headers": {"Location": "/api/models/org/name/revision/main"}})
    assert "redirects more than" in told(list_it, "huggingface")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("7", 7), ("-1", None), ("1e9", None), ("soon", None), ("", None), ("99999999", 60), ("0", None)],
)
def test_how_long_a_server_may_ask_to_wait(given, seconds):
    assert _model_http.retry_after({"Retry-After": given}) == seconds


# --- Hugging Face's pages ------------------------------------------------------------------------------------


class Pages:
    """Answers one page after the other; `link` makes the Link header from the number of the page."""

    def __init__(self, link, files=10, commit="c" * 40):
        self.link, self.files, self.commit, self.asked = link, files, commit, []

    def __call__(self, path):
        if "/revision/" in path:
            return {"sha": self.commit}, {}
        self.asked.append(path)
        number = len(self.asked)
        files = [{"type": "file", "path": f"{number}-{n}", "size": 1, "oid": "b" * 40} for n in range(self.files)]
        return files, {"Link": self.link(number)}


TREE = f"/api/models/org/name/tree/{'c' * 40}"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (lambda n: f'<http://hub{TREE}?recursive=true>; rel="next"', "never ends"),
        (lambda n: f'<http://hub{TREE}?cursor=x>; rel="next"', "never ends"),
        (lambda n: f'<http://hub{TREE}?cursor={n}>; rel="next"', "does not end"),
        (lambda n: '<file:///etc/passwd>; rel="next"', "no listing of a model"),
        (lambda n: f'<ftp://hub{TREE}?cursor=x>; rel="next"', "no listing of a model"),
        (lambda n: '<http://hub/api/models/../../x>; rel="next"', "no listing of a model"),
        (lambda n: '<http://[x>; rel="next"', "no listing of a model"),
    ],
)
def test_pages_that_lead_nowhere(link, words):
    pages = Pages(link, files=1000)
    with pytest.raises(ManifestError, match=words):
        _model_listing.huggingface_listing(pages, "org/name", "main")
    assert len(pages.asked) < 30


def test_pages_without_files_end():
    with pytest.raises(ManifestError, match="never ends"):
        _model_listing.huggingface_listing(
            Pages(lambda n: f'<{TREE}?cursor={n}>; rel="next"', files=0), "org/name", "main"
        )


def test_a_page_of_another_host_is_asked_for_at_the_same_one():
    """Mirrors pass on the links of the hub that they mirror."""
    pages = Pages(lambda n: f'<https://elsewhere{TREE}?cursor=x>; rel="next"' if n == 1 else "")
    assert len(_model_listing.huggingface_listing(pages, "org/name", "main")[0]) == 20
    assert pages.asked == [f"{TREE}?recursive=true", f"{TREE}?cursor=x"]


@pytest.mark.parametrize("commit", [None, 7, "main", "../x", "C" * 40, "--x"])
def test_a_branch_stands_for_a_commit(commit):
    with pytest.raises(ManifestError, match="names no commit"):
        _model_listing.huggingface_listing(Pages(lambda n: "", commit=commit), "org/name", "main")


def test_a_commit_stays_what_it_is():
    with pytest.raises(ManifestError, match="when asked for"):
        _model_listing.huggingface_listing(Pages(lambda n: ""), "org/name", "d" * 40)


# --- manifests and sums of mirrors and neighbours ------------------------------------------------------------


def manifest_with(**changes):
    entries = [FileEntry("a", 1, HASH)]
    manifest = manifests.build(entries, "local", "a/b", None, None, [], [], "now")
    return json.dumps({**manifest, **changes})


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        manifest_with(files=7),
        manifest_with(files=[{"path": "a", "size": 1, "sha256": None}]),
        manifest_with(files=[{"path": "../a", "size": 1, "sha256": HASH}]),
        manifest_with(size=2**70),
        manifest_with(model=["x"]),
        manifest_with(revision={}),
        '{"format": 1, "files": [' + '{"path": "a", "size": 1e400, "sha256": "x"}]}',
    ],
    ids=range(8),
)
def test_a_manifest_that_is_not_trusted(text):
    with pytest.raises(ManifestError):
        manifests.parse(text)


@pytest.mark.parametrize("name", [n for n in HOSTILE_NAMES if isinstance(n, str) and n and "\n" not in n], ids=repr)
def test_sums_name_no_hostile_file_either(name):
    if name.startswith("./"):
        return
    with pytest.raises(ManifestError, match="the listing names"):
        manifests.parse_sha256sums(f"{HASH}  {name}\n")
