"""What bevformer_ros uses of upstream's message_filters (Python), where no ROS 2 is installed.

Present, with the names and behaviour of Jazzy and Kilted: the filter protocol (SimpleFilter), Subscriber,
TimeSynchronizer and ApproximateTimeSynchronizer. Options after `slop` are by keyword only, since their positions
differ between the distributions.

Absent: Cache, Chain, DeltaFilter, InputAligner, unregisterCallback, queue_offset, time_getter, and the attributes
of the subscription behind a Subscriber (use `.sub`).

As upstream's Python for ROS 2, and unlike ROS 1's, nothing here clears itself when the clock jumps back. A queue that
is full of newer stamps then refuses older ones, so a user of the synchronizers must make new ones after a jump.
"""

from message_filters.simple_filter import SimpleFilter
from message_filters.subscriber import Subscriber
from message_filters.time_synchronizer import ApproximateTimeSynchronizer, TimeSynchronizer

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter", "Subscriber", "TimeSynchronizer"]
