"""The messages about the boxes of one set: the same from the node and from the replay of a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.error_model import ErrorModel
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import detections_to_message, kinematics_to_message
from bevformer_ros.ros.markers import MarkerWriter
from bevformer_ros.types import SECOND_NS, Detections3D

# Markers outlive their period by this factor, so that they do not flicker, and vanish when the node falls silent.
_LIFETIME_PERIODS = 2.5
_LIFETIME_LIMITS_NS = (200_000_000, 5_000_000_000)
_LIFETIME_UNKNOWN_NS = SECOND_NS


class ResultMessages:
    """Turns the boxes of one set after the other into messages; markers know what the last ones showed."""

    def __init__(self, output_frame: str) -> None:
        self.frame = output_frame
        self.markers, self.proposal_markers = MarkerWriter(), MarkerWriter()

    def of(
        self,
        detections_bev: Detections3D,
        output_from_bev: NDArray[np.float64],
        period_ns: float | None,
        wanted: Callable[[str], bool],
        error_model: ErrorModel | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """(topic, message). period_ns: time between sets, for the life of the markers; None while unknown. wanted:
        whether anybody listens to a topic, asked for all but detections and kinematics. error_model: of the weights,
        where they have one."""
        covariances = None if error_model is None else error_model.covariances(detections_bev)
        place, lifetime = (self.frame, output_from_bev), marker_lifetime_ns(period_ns)
        yield topics.DETECTIONS, detections_to_message(detections_bev, *place, covariances=covariances)
        yield topics.KINEMATICS, kinematics_to_message(detections_bev, *place, covariances=covariances)
        if wanted(topics.MARKERS):
            yield topics.MARKERS, self.markers.write(detections_bev, *place, lifetime)
        proposals = detections_bev.proposals
        if proposals is None:
            return
        if wanted(topics.PROPOSALS):
            yield topics.PROPOSALS, detections_to_message(proposals, *place)
        if wanted(topics.PROPOSAL_MARKERS):
            yield topics.PROPOSAL_MARKERS, self.proposal_markers.write(proposals, *place, lifetime)


def marker_lifetime_ns(period_ns: float | None) -> int:
    if period_ns is None:
        return _LIFETIME_UNKNOWN_NS
    shortest, longest = _LIFETIME_LIMITS_NS
    return round(min(max(_LIFETIME_PERIODS * period_ns, shortest), longest))
