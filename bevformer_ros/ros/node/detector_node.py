"""The detector as a lifecycle node: configure reads the parameters, activate loads the network, deactivate frees it."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, Node, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger
from tf2_ros import TransformListener

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.compute_threads import in_passing_thread
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.resources import config_file, model_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.detector_loading import device_of, load_network
from bevformer_ros.ros.ego_motion import EgoMotion, LoopingBuffer
from bevformer_ros.ros.node import parameters
from bevformer_ros.ros.node.outputs import Outputs
from bevformer_ros.ros.node.session import UNTRAINED, DetectionSession
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

DIAGNOSIS_PERIOD_S = 1.0
# At the end of the process: longer than most sets take, shorter than launch waits before it kills.
_EXIT_PATIENCE_S = 3.0
# Python sees a signal when the executor next returns.
_SIGNAL_LATENCY_S = 0.2


class DetectorNode(Node):
    """Camera topics in, boxes out. Spin it in the main thread: large messages cost four times as much in another."""

    def __init__(self) -> None:
        super().__init__(topics.NODE_NAME)
        self._rig: RigConfig | None = None
        self._session: DetectionSession | None = None
        self.add_on_set_parameters_callback(self._on_parameters)
        parameters.declare(self)
        self._settings = parameters.read(self)
        self.add_post_set_parameters_callback(self._after_parameters)
        backward = Duration(nanoseconds=-round(self._settings.sync_timeout_ms * MILLISECOND_NS))
        threshold = JumpThreshold(min_forward=None, min_backward=backward, on_clock_change=False)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_time_jump)

    @property
    def autostart(self) -> bool:
        return self._settings.autostart

    def start(self) -> bool:
        """Configure and activate; whether both succeeded (the reason is in the log)."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def close(self) -> bool:
        """For the end of the process: report what waits and let the worker finish, but not for long; whether it did."""
        ended = self._session is None or self._session.close(_EXIT_PATIENCE_S)
        if ended:
            self._jump_handle.unregister()
            self.destroy_node()
        return ended

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("configure", self._configure, undo=self._clean_up)
        return super().on_configure(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activate", self._activate, undo=self._deactivate)
        return super().on_activate(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._clean_up()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._deactivate()
        self._clean_up()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, so that a manager can try again."""
        self._deactivate()
        self._clean_up()
        return super().on_error(state)

    def _attempt(self, what: str, action: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        """FAILURE for what the user can mend, ERROR for the rest; rclpy would swallow both."""
        try:
            action()
        except (ValueError, OSError, ParameterException) as error:
            self.get_logger().error(f"cannot {what}: {error}")
            undo()
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"cannot {what}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._settings = parameters.read(self)
        rig = load_yaml(RigConfig, config_file("rigs", self._settings.rig))
        parameters.declare_cameras(self, rig)
        rig = replace(rig, cameras=parameters.read_cameras(self, rig))
        self._settings.synchronizer(rig)  # refuses what cannot work before anything is built
        model_file(self._settings.model)  # so does this
        self._rig = rig
        buffer = LoopingBuffer(Duration(nanoseconds=round(self._settings.transform_cache_s * SECOND_NS)))
        self._tf_listener = TransformListener(buffer, self)
        self._ego_motion = EgoMotion(buffer, rig, self._settings.output_frame)
        self._outputs = Outputs(self, self._ego_motion.output_frame)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        self._reset_service = self.create_service(Trigger, topics.RESET, self._on_reset)

    def _activate(self) -> None:
        assert self._rig is not None
        settings = self._settings
        detector = in_passing_thread(partial(_warm_network, settings, self._rig))
        if detector.config.temporal.frames[-1] > 0:
            raise ValueError(f"{detector.config.name} uses future frames and cannot run live; replay a bag with it")
        if not detector.trained:
            self.get_logger().error(UNTRAINED)
        self._session = DetectionSession(self, settings, self._rig, self._ego_motion, self._outputs, detector)
        self._diagnosed_at = time.monotonic()
        self._diagnosis_timer = self.create_timer(
            DIAGNOSIS_PERIOD_S, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        names = ", ".join(camera.name for camera in self._rig.cameras)
        self.get_logger().info(
            f"detecting with {detector.config.name} on {device_of(settings)}, boxes in "
            f"{self._ego_motion.output_frame}, cameras {names}"
        )

    def _deactivate(self) -> None:
        if self._session is None:
            return
        self.destroy_timer(self._diagnosis_timer)
        self._session.close()
        self._session = None
        self._outputs.delete_markers(self.get_clock().now().nanoseconds)
        gc.collect()  # the network's memory must be free now, not when the collector next runs
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _clean_up(self) -> None:
        parameters.undeclare_cameras(self)
        if self._rig is None:
            return
        self._rig = None
        self._tf_listener.unregister()
        self._outputs.destroy()
        self.destroy_publisher(self._diagnostics)
        self.destroy_service(self._reset_service)

    def _on_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        return parameters.check(changed, configured=self._rig is not None)

    def _after_parameters(self, changed: list[Parameter]) -> None:
        if self._session is not None:
            self._session.score_threshold = parameters.read(self).score_threshold

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._session is not None
        if self._session is not None:
            self._session.request_reset()
        response.message = "the next set starts a new history" if response.success else "the node is not active"
        return response

    def _on_time_jump(self, jump: TimeJump) -> None:
        """The ROS clock went back: what is stamped later than now is from before."""
        if self._session is not None:
            self._session.synchronizer.forget_after(self.get_clock().now().nanoseconds)
        self.get_logger().warning(f"time went back by {-jump.delta.nanoseconds / SECOND_NS:.1f} s, starting afresh")

    def _diagnose(self) -> None:
        assert self._session is not None
        now = time.monotonic()
        status = self._session.diagnose(now - self._diagnosed_at)
        self._diagnosed_at = now
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _warm_network(settings: Settings, rig: RigConfig) -> Detector:
    detector = load_network(settings, rig)
    detector.warm_up()
    return detector


def main() -> int:
    """Entry point of the executable `detector`."""
    stopping = _event_of_signals()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = DetectorNode()
        if node.autostart and not node.start():
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stopping.is_set():
            executor.spin_once(timeout_sec=_SIGNAL_LATENCY_S)
        if not node.close():
            # A thread inside the network cannot be ended, and the interpreter would crash taking it down.
            sys.stderr.flush()
            os._exit(0)
        return 0
    except ParameterException as error:
        print(f"detector: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def _event_of_signals() -> threading.Event:
    """Set by SIGINT or SIGTERM; a second one ends the process at once.

    rclpy's own handlers shut the context down, after which the last sets could not be reported any more.
    """
    event = threading.Event()

    def stop(number: int, _frame: object) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return event


if __name__ == "__main__":
    sys.exit(main())
