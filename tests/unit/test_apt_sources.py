from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.inferops.gpu_host.plugins.module_utils import _apt_sources as apt_sources

DOCKER = "https://download.docker.com/linux/debian"
NVIDIA = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64"
WANTED = {
    apt_sources.repository(DOCKER, "bookworm", "amd64"),
    apt_sources.repository(NVIDIA, "/", "amd64"),
}
SAME = [
    "deb https://download.docker.com/linux/debian bookworm stable",
    "deb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable",
    "  deb\t[ arch=amd64 trusted=yes ]  http://download.docker.com/linux/debian/  bookworm  stable test  # ours",
    "deb https://DOWNLOAD.docker.com:443/linux//debian bookworm stable",
    "deb https://me:pw@download.docker.com/linux/debian bookworm stable",
    "deb-src https://download.docker.com/linux/debian bookworm stable",
    "deb https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /",
    "deb [signed-by=/x] https://nvidia.github.io/libnvidia-container/stable/deb amd64/",
    "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64/ ./",
]
OTHER = [
    "# deb https://download.docker.com/linux/debian bookworm stable",
    "#deb https://download.docker.com/linux/debian bookworm stable",
    "deb https://download.docker.com/linux/debian trixie stable",
    "deb https://download.docker.com/linux/ubuntu bookworm stable",
    "deb https://mirror.lan/docker-ce/linux/debian bookworm stable",
    "deb http://deb.debian.org/debian bookworm main # https://download.docker.com/linux/debian bookworm",
    "deb cdrom:[Debian GNU/Linux 12]/ bookworm main",
    "deb",
    "",
]


@pytest.mark.parametrize("line", SAME)
def test_an_entry_for_the_repository_is_found_however_it_is_written(line):
    text = "# mine\n" + line + "\n" + "\n".join(OTHER) + "\n"
    new, _components = apt_sources.disabled(text, False, WANTED, "amd64")
    assert new == text.replace(line, apt_sources.MARK + line, 1)
    assert apt_sources.disabled(new, False, WANTED, "amd64")[0] == new
    assert apt_sources.restored(new) == text


@pytest.mark.parametrize("line", OTHER)
def test_everything_else_stays(line):
    text = line + "\n"
    assert apt_sources.disabled(text, False, WANTED, "amd64") == (text, [])


def test_components_of_others_are_told():
    assert apt_sources.disabled(SAME[2], False, WANTED, "amd64")[1] == ["stable", "test"]


STANZA = """\
# Docker
Types: deb deb-src
URIs: {uris}
Suites: {suites}
Components: stable
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 x
"""
FOREIGN = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n"


@pytest.mark.parametrize(
    ("uris", "suites", "rest"),
    [
        (DOCKER, "bookworm", []),
        (DOCKER + "/", "trixie bookworm", ["trixie"]),
        ("http://mirror.lan/docker " + DOCKER, "bookworm", ["http://mirror.lan/docker"]),
        ("\n http://mirror.lan/docker\n " + DOCKER, "bookworm", ["http://mirror.lan/docker"]),
    ],
)
def test_a_paragraph_becomes_comments_and_what_else_it_named_goes_on(uris, suites, rest):
    text = FOREIGN + "\n" + STANZA.format(uris=uris, suites=suites) + "\n" + FOREIGN
    new, components = apt_sources.disabled(text, True, WANTED, "amd64")
    assert components == ["stable"]
    active = [apt_sources._Stanza(lines) for blank, lines in apt_sources._paragraphs(new) if not blank]
    active = [stanza for stanza in active if stanza.active]
    assert len(active) == 2 + len(rest)
    for stanza, word in zip(active[1:-1], rest):
        assert word in stanza.words("uris") + stanza.words("suites")
        assert "BEGIN PGP" in stanza.fields["signed-by"]
    assert apt_sources.disabled(new, True, WANTED, "amd64")[0] == new
    assert apt_sources.restored(new) == text


@pytest.mark.parametrize("off", ["Enabled: no", "enabled: False", "Enabled: off"])
def test_a_paragraph_that_is_switched_off_is_left_alone(off):
    text = off + "\n" + STANZA.format(uris=DOCKER, suites="bookworm")
    assert apt_sources.disabled(text, True, WANTED, "amd64") == (text, [])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*SAME, *OTHER]), max_size=8),
    st.booleans(),
)
def test_what_was_put_out_of_action_comes_back(lines, deb822):
    text = "\n".join(lines) + "\n" if lines else ""
    new, _components = apt_sources.disabled(text, deb822, WANTED, "amd64")
    assert apt_sources.restored(new) == text


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "asc"),
        (b"\x99\x02\x0d\x04", "gpg"),
        (b"<html><title>Sign in to the hotel's network</title>", ""),
        (b"", ""),
    ],
)
def test_what_is_a_signing_key(data, ending):
    assert apt_sources.key_ending(data) == ending


def test_which_words_of_apt_are_complaints():
    said = (
        "Hit:1 http://deb.debian.org bookworm InRelease\n"
        "W: https://m/InRelease: Policy will reject signature within a year, see --audit for details\n"
        "W: GPG error: https://m stable InRelease: NO_PUBKEY 1234\n"
        "E: The repository 'https://m stable InRelease' is not signed.\n"
    )
    assert len(apt_sources.complaints(said)) == 2
