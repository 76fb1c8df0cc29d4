"""BEVFormer v2 as a ROS 2 camera perception node, and as a plain Python library."""

from pkgutil import extend_path

# The messages generated from msg/ are installed as bevformer_ros.msg, outside the source tree: both halves
# of the package have to be found when tests run from a checkout.
__path__ = extend_path(__path__, __name__)
