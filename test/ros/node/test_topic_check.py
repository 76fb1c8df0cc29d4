from __future__ import annotations

import pytest

from bevformer_ros.ros.node.topic_check import Expected, Publisher, topic_fault

IMAGE, JPEG = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
EXPECTED = Expected("CAM_BACK", "image_topic", "/cam_back/image_raw", IMAGE)


@pytest.mark.parametrize(
    ("publishers", "graph", "parts"),
    [
        ([], {}, ["nobody publishes /cam_back/image_raw (cameras.CAM_BACK.image_topic)", "ROS_DOMAIN_ID"]),
        (
            [],
            {"/cam_bak/image_raw": [IMAGE], "/map": ["nav_msgs/msg/OccupancyGrid"]},
            ["nearest", "/cam_bak/image_raw"],
        ),
        ([], {"/cam_back/image_raw/compressed": [JPEG]}, ["of another type: /cam_back/image_raw/compressed"]),
        ([], {"/xyz": [IMAGE]}, ["there are /xyz"]),
        ([Publisher(JPEG, "")], {}, ["is published as sensor_msgs/msg/CompressedImage", "compressed to true"]),
        ([Publisher(IMAGE, "reliability")], {}, ["QoS", "reliability", "image_reliability to best_effort"]),
        ([Publisher(IMAGE, "")], {}, []),
        ([Publisher(JPEG, ""), Publisher(IMAGE, "")], {}, []),
    ],
)
def test_what_the_graph_tells(publishers, graph, parts):
    fault = topic_fault(EXPECTED, publishers, graph)
    assert bool(fault) == bool(parts)
    assert all(part in fault for part in parts), fault
