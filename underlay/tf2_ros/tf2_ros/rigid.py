"""Rigid transforms as plain tuples of floats: for one transform at a time this beats numpy several times over."""

from __future__ import annotations

import math
from typing import NamedTuple

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

# Below this angle (radians) the slerp weights lose precision and a straight line is exact to rounding.
_SLERP_MINIMUM_ANGLE = 1e-6


class Rigid(NamedTuple):
    """Translation (x, y, z) in metres and unit quaternion (x, y, z, w)."""

    translation: Vector
    rotation: Quaternion


IDENTITY = Rigid((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def compose(a_from_b: Rigid, b_from_c: Rigid) -> Rigid:
    """a_from_c."""
    x, y, z = _rotate(a_from_b.rotation, b_from_c.translation)
    tx, ty, tz = a_from_b.translation
    return Rigid((x + tx, y + ty, z + tz), _multiply(a_from_b.rotation, b_from_c.rotation))


def invert(a_from_b: Rigid) -> Rigid:
    """b_from_a."""
    x, y, z, w = a_from_b.rotation
    inverse = (-x, -y, -z, w)
    tx, ty, tz = _rotate(inverse, a_from_b.translation)
    return Rigid((-tx, -ty, -tz), inverse)


def interpolate(earlier: Rigid, later: Rigid, ratio: float) -> Rigid:
    """Straight line for the translation, slerp along the shorter arc for the rotation; ratio 0 is `earlier`."""
    ax, ay, az = earlier.translation
    bx, by, bz = later.translation
    rest = 1.0 - ratio
    translation = (rest * ax + ratio * bx, rest * ay + ratio * by, rest * az + ratio * bz)
    return Rigid(translation, _slerp(earlier.rotation, later.rotation, ratio))


def normalise(q: Quaternion) -> Quaternion:
    x, y, z, w = q
    scale = 1.0 / math.sqrt(x * x + y * y + z * z + w * w)
    return (x * scale, y * scale, z * scale, w * scale)


def _slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    angle = math.acos(min(1.0, abs(dot)))
    if angle < _SLERP_MINIMUM_ANGLE:
        from_a, from_b = 1.0 - ratio, ratio
    else:
        sine = math.sin(angle)
        from_a, from_b = math.sin((1.0 - ratio) * angle) / sine, math.sin(ratio * angle) / sine
    if dot < 0.0:
        from_b = -from_b
    return normalise(
        (
            from_a * a[0] + from_b * b[0],
            from_a * a[1] + from_b * b[1],
            from_a * a[2] + from_b * b[2],
            from_a * a[3] + from_b * b[3],
        )
    )


def _multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _rotate(q: Quaternion, v: Vector) -> Vector:
    qx, qy, qz, qw = q
    x, y, z = v
    tx = 2.0 * (qy * z - qz * y)
    ty = 2.0 * (qz * x - qx * z)
    tz = 2.0 * (qx * y - qy * x)
    return (
        x + qw * tx + qy * tz - qz * ty,
        y + qw * ty + qz * tx - qx * tz,
        z + qw * tz + qx * ty - qy * tx,
    )
