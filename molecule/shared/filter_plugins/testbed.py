"""Reads the platforms of a scenario for create.yml."""

from __future__ import annotations


def disks(platforms, testbed):
    """Every disk to attach: its host, its size, and a serial number that no disk of another scenario has."""
    return [
        {"host": platform["name"], "size": size, "serial": f"{testbed}-{platform['name']}-disk{number}"}
        for platform in platforms
        for number, size in enumerate(platform.get("disks", []), start=1)
    ]


def inventory(platforms, prefix, attached):
    """What Ansible and testinfra have to know to reach the hosts."""
    return {
        "all": {
            "hosts": {
                platform["name"]: {
                    "ansible_connection": "community.docker.docker",
                    "ansible_host": prefix + platform["name"],
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "testbed_disks": [disk for disk in attached if disk["host"] == platform["name"]],
                }
                for platform in platforms
            }
        }
    }


def networks(platform, available):
    """A host without the internet has only the internal network; its name is known on both."""
    return [
        {"name": network["name"], "aliases": [platform["name"]]}
        for network in available
        if network["internal"] or platform.get("internet", True)
    ]


class FilterModule:
    def filters(self):
        return {"testbed_disks": disks, "testbed_inventory": inventory, "testbed_networks": networks}
