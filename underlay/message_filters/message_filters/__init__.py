"""What bevformer_ros uses of upstream's message_filters (Python), where no ROS 2 is installed.

Present, with the names and behaviour of Jazzy and Kilted: the filter protocol (SimpleFilter) and Subscriber. Absent:
everything else, the time synchronizers among it.
"""

from message_filters.simple_filter import SimpleFilter
from message_filters.subscriber import Subscriber

__all__ = ["SimpleFilter", "Subscriber"]
