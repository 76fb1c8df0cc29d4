"""The bond that nav2's lifecycle manager wants: heartbeats by which it sees that an active node lives."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import Node

TOPIC = "bond"


def bond_with_manager(node: Node) -> Any:
    """A started bondpy.Bond, whose shutdown() ends it; None where bondpy is not installed."""
    try:
        from bondpy.bondpy import Bond
    except ImportError:
        return None
    bond = Bond(node, TOPIC, node.get_name())
    bond.start()
    return bond
