"""Entry point of the executable `detector`: a process that ends when it is told to, whatever it is doing.

Libraries are imported late: that takes seconds, and signals must work meanwhile.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from typing import NoReturn

USAGE = """usage: detector [--ros-args -p NAME:=VALUE ... --params-file FILE -r FROM:=TO ...]

The BEVFormer v2 detector node. Parameters and topics: docs/node.md; `ros2 param describe /detector NAME` of a running
node. A start that fails ends with status 1 and the reason in the log, a GPU that only a new process can use again with
status 3; SIGINT and SIGTERM end it with status 0."""

_GPU_LOST = 3

# Python sees a signal when the executor next returns.
_SIGNAL_LATENCY_S = 0.2
# However a thread hangs in a library, the process is gone before a supervisor kills it.
_LAST_RESORT_S = 2.2


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return 0
    stopping = threading.Event()
    ready = threading.Event()
    _watch_signals(stopping, ready)

    import rclpy
    from rclpy.exceptions import NameValidationException, ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from bevformer_ros.ros.node.detector_node import DetectorNode

    try:
        unknown = remove_ros_args(sys.argv)[1:]
    except RuntimeError as error:  # rclpy's, of what --ros-args cannot mean
        print(f"detector: {error}", file=sys.stderr)
        return 2
    if unknown:
        print(f"detector: unknown arguments {' '.join(unknown)}\n{USAGE}", file=sys.stderr)
        return 2
    ready.set()
    gc.freeze()  # the collection at the end need not look through the libraries, which takes much longer under load
    # rclpy's own handlers shut the context down, after which the last sets could not be reported any more.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DetectorNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        start = node.start() if node.autostart else None
        if start is None:
            node.get_logger().info("waiting for a lifecycle manager to configure and activate it (autostart is false)")
        failed = False
        while not (stopping.is_set() or failed or node.given_up):
            executor.spin_once(timeout_sec=_SIGNAL_LATENCY_S)
            failed = start is not None and start.done() and not (start.result() or node.gpu_lost)
        given_up = node.given_up
        _unfreed = node.detector if given_up else None  # freeing what is on a lost GPU aborts the process
        if node.close():
            executor.shutdown()
            rclpy.try_shutdown()
            del node, executor, start
            gc.collect()  # or the shared memory of the ROS context stays behind
        _leave(_GPU_LOST if given_up else 1 if failed else 0)
    except (ParameterException, NameValidationException, ValueError) as error:
        print(f"detector: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def _watch_signals(stopping: threading.Event, ready: threading.Event) -> None:
    """SIGINT and SIGTERM set `stopping`; before `ready`, and at the second one, they end the process at once."""

    def stop(number: int, _frame: object) -> None:
        if not ready.is_set():
            _leave(0)
        stopping.set()
        signal.signal(number, signal.SIG_DFL)
        last_resort = threading.Timer(_LAST_RESORT_S, _leave, (0,))
        last_resort.daemon = True
        last_resort.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _leave(status: int) -> NoReturn:
    """All has been said. The interpreter takes long to take torch down, and would crash on a thread in the network."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
