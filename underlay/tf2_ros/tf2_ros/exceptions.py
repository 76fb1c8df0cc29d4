"""The exceptions of a transform lookup, under upstream's names and hierarchy."""


class TransformException(Exception):
    """Any failure of a transform lookup."""


class LookupException(TransformException):
    """A frame was never heard of, or the tree contains a loop."""


class ConnectivityException(TransformException):
    """Both frames are known but no chain of transforms joins them."""


class ExtrapolationException(TransformException):
    """A link between the frames has no data on both sides of the requested time."""


class InvalidArgumentException(TransformException):
    """A frame id is empty or begins with a slash."""


class TimeoutException(TransformException):
    """Never raised by a Buffer: a wait that runs out raises what the lookup itself would have raised."""
