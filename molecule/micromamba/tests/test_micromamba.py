import pytest

ENVIRONMENT = "/opt/micromamba/envs/hub-client"


@pytest.mark.parametrize(
    "shell",
    [
        "bash --login -c",  # ssh HOST
        "bash -i -c",  # a terminal
        "sh -l -c",  # dash on Debian
    ],
)
def test_every_shell_knows_it(host, shell):
    command = "mamba activate hub-client && echo $CONDA_PREFIX && command -v python && mamba --version"
    result = host.run(f"env -i HOME=/root PATH=/usr/bin:/bin {shell} '{command}'")
    assert result.stdout.split("\n")[:3] == [ENVIRONMENT, f"{ENVIRONMENT}/bin/python", "2.9.0 (stand-in)"], result


def test_every_account_has_it(host):
    command = "mamba activate hub-client && command -v python"
    result = host.run(f"runuser -u nobody -- env -i HOME=/tmp PATH=/usr/bin:/bin bash --login -c '{command}'")
    assert result.stdout == f"{ENVIRONMENT}/bin/python\n", result


def test_a_plain_sh_is_not_disturbed(host):
    result = host.run("env -i HOME=/root PATH=/usr/bin:/bin sh -eu -c '. /etc/profile.d/micromamba.sh; echo fine'")
    assert (result.stdout, result.stderr, result.rc) == ("fine\n", "", 0)


def test_the_rc_file_never_asks_the_licensed_channel(host):
    text = host.file("/opt/micromamba/.mambarc").content_string
    assert "nodefaults" in text
    assert "channel_alias: https://mirror.example/anaconda/cloud" in text


def test_the_binary_is_everybodys(host):
    binary = host.file("/usr/bin/micromamba")
    assert (binary.user, binary.mode) == ("root", 0o755)
    assert host.run("ls -d /var/cache/micromamba-*").rc != 0, "the private directory of the download was left"


def test_the_environment_has_what_was_declared(host):
    assert host.run(f"{ENVIRONMENT}/bin/python -c 'import iniconfig'").rc == 0


def test_a_model_came_by_the_environments_client(host):
    assert host.file("/srv/models/org/name/.model-manifest.json").exists == (host.check_output("hostname") == "raw")
