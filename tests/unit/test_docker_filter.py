from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.inferops.gpu_host.plugins.filter.docker import docker_ulimits


def test_limits_in_the_shape_of_daemon_json():
    assert docker_ulimits({"memlock": {"soft": -1, "hard": "-1"}}) == {
        "memlock": {"Name": "memlock", "Soft": -1, "Hard": -1}
    }


def test_half_a_limit_is_refused():
    with pytest.raises(AnsibleFilterError, match="nofile lacks hard"):
        docker_ulimits({"nofile": {"soft": 1}})
