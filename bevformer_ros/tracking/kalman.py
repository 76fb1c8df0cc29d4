"""Kalman filters for many tracks at once.

n tracks. A state is x, y, vx, vy over ground in a frame that stays put: constant velocity with white acceleration. The
rest of a box (z, length, width, height, yaw) is five random walks, each filtered by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def predict(states: Array, covariances: Array, densities: Array, elapsed_s: float) -> tuple[Array, Array]:
    """States (n, 4) and covariances (n, 4, 4) so much later. densities: (n,) m²/s³ of acceleration.

    Two steps give what one step over both times gives, so that uneven sets do no harm.
    """
    later = np.eye(4)
    later[0, 2] = later[1, 3] = elapsed_s
    spread = np.array([[elapsed_s**3 / 3, elapsed_s**2 / 2], [elapsed_s**2 / 2, elapsed_s]])
    noise = densities[:, None, None] * np.kron(spread, np.eye(2))
    return states @ later.T, later @ covariances @ later.T + noise


def update(states: Array, covariances: Array, measured: Array, noises: Array) -> tuple[Array, Array]:
    """States and covariances with measured states (n, 4) of covariance (n, 4, 4) taken in."""
    # Both are symmetric: gain = P (P + R)^-1 is the transpose of the solution of (P + R) X = P.
    gains = np.swapaxes(np.linalg.solve(covariances + noises, covariances), 1, 2)
    updated = states + np.einsum("nij,nj->ni", gains, measured - states)
    # P - K P = K R, which stays symmetric and positive when it is averaged with its transpose.
    remaining = gains @ noises
    return updated, (remaining + np.swapaxes(remaining, 1, 2)) / 2


def walk(values: Array, variances: Array, innovations: Array, noises: Array) -> tuple[Array, Array]:
    """Random walks (n, k) with their measurements' innovations (n, k) of variance noises taken in."""
    gains = variances / (variances + noises)
    return values + gains * innovations, gains * noises


def measurement_noise(positions: Array, observer: Array, across: Array, depth_share: Array, speed: Array) -> Array:
    """(n, 4, 4) covariance of boxes at positions (n, 2) seen by cameras near the observer (2,).

    across: (n,) m, across the line of sight and along it, where depth_share (n,) of the range comes to it; speed: (n,)
    m/s, in both directions.
    """
    sight = positions - observer
    ranges = np.linalg.norm(sight, axis=1)
    along = np.divide(sight, ranges[:, None], out=np.zeros_like(sight), where=ranges[:, None] > 0)
    noises = np.zeros((len(positions), 4, 4))
    noises[:, [0, 1], [0, 1]] = across[:, None] ** 2
    extra = (across + depth_share * ranges) ** 2 - across**2
    noises[:, :2, :2] += extra[:, None, None] * along[:, :, None] * along[:, None, :]
    noises[:, [2, 3], [2, 3]] = speed[:, None] ** 2
    return noises
