from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.ros.node.manager_bond import bond_with_manager

NODE = SimpleNamespace(get_name=lambda: "detector")


class RecordedBond:
    """Takes what bondpy.bondpy.Bond of ROS 2 takes."""

    def __init__(self, node, topic, id, on_broken=None, on_formed=None):
        self.arguments, self.started = (node, topic, id), False

    def start(self):
        self.started = True


def test_without_bondpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "bondpy", None)
    assert bond_with_manager(NODE) is None


def test_a_bond_as_nav2s_manager_expects_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bondpy", ModuleType("bondpy"))
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", SimpleNamespace(Bond=RecordedBond))
    bond = bond_with_manager(NODE)
    assert bond.arguments == (NODE, "bond", "detector")
    assert bond.started
