from __future__ import annotations

import pytest

from ansible_collections.inferops.gpu_host.plugins.module_utils import _wheelhouse

METADATA = """Metadata-Version: 2.4
Name: example
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: Torch_Audio
Requires-Dist: requests>=2.33
Requires-Dist: pytest; extra == "test"

Requires-Dist: quoted-in-the-description
"""


def test_dependencies_leave_out_extras_omissions_and_the_description():
    found = _wheelhouse.dependencies(METADATA, omit=["torch", "torch-audio"])
    assert found == ["requests>=2.33"]


def test_a_dependency_that_only_begins_like_an_omitted_one_stays():
    assert "Torch_Audio" in _wheelhouse.dependencies(METADATA, omit=["torch"])


@pytest.mark.parametrize(
    ("text", "name"), [("Foo_Bar>=1", "foo-bar"), ("zope.interface", "zope-interface"), ("a[extra]==2", "a")]
)
def test_normalized_name(text, name):
    assert _wheelhouse.normalized_name(text) == name


def test_a_requirement_without_a_name_is_refused():
    with pytest.raises(ValueError, match="'==1'"):
        _wheelhouse.normalized_name("==1")


def test_every_glibc_up_to_the_target_is_accepted_and_none_above():
    arguments = _wheelhouse.target_arguments("3.11", "x86_64", 36)
    assert "manylinux_2_36_x86_64" in arguments
    assert "manylinux_2_5_x86_64" in arguments
    assert "manylinux_2_37_x86_64" not in arguments
    assert "cp311" in arguments
