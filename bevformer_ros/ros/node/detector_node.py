"""The detector as a lifecycle node: configure reads the parameters, activate loads the network, deactivate frees it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future as Work
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.lifecycle import LifecycleState, Node, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import Trigger
from tf2_ros import TransformListener

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.compute_threads import in_passing_thread
from bevformer_ros.inference.gpu_loss import why_lost
from bevformer_ros.inference.memory import out_of_memory_errors, release_memory
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.resources import config_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.detector_loading import detector_for, device_of, require_loadable, score_thresholds
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.node import parameters
from bevformer_ros.ros.node.health_reporter import TICK_S, HealthReporter
from bevformer_ros.ros.node.library_log import LibraryLog
from bevformer_ros.ros.node.manager_bond import bond_with_manager
from bevformer_ros.ros.node.outputs import Outputs
from bevformer_ros.ros.node.session import DetectionSession
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.tf_buffer import LoopingBuffer, TfTransforms
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

# At the end of the process: longer than most sets take, shorter than launch waits before it kills.
_EXIT_PATIENCE_S = 1.5
# Transitions that take long; the others belong into the executor's thread, as the callbacks that they end.
_BESIDE = {Transition.TRANSITION_CONFIGURE: "configure", Transition.TRANSITION_ACTIVATE: "activate"}
_UNDERSTOOD = (ValueError, OSError, ParameterException, NameValidationException)


class DetectorNode(Node):
    """Camera topics in, boxes out. Spin it in the main thread: large messages cost four times as much in another.

    Configuring and activating run beside the executor, so that services answer while a network is loaded.

    given_up: the GPU is lost, and that has been said; the process has to end.
    """

    def __init__(self) -> None:
        super().__init__(topics.NODE_NAME)
        self._library_log = LibraryLog(self)
        self._rig: RigConfig | None = None
        self._declared_cameras: dict[str, Any] = {}
        self._session: DetectionSession | None = None
        self._loading_since_s: float | None = None
        self._device, self._gpu_lost, self.given_up = "cpu", "", False
        self._bond: Any = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="lifecycle")
        self._work: Work[Any] | None = None
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._answer_change_state
        # In the group of all others, an answer that is being waited for would keep them waiting.
        self._service_change_state.callback_group = ReentrantCallbackGroup()
        self._service_change_state.callback_group.add_entity(self._service_change_state)
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

    @property
    def gpu_lost(self) -> str:
        """Why the GPU does nothing for this process any longer; empty while it does."""
        return self._gpu_lost or ("" if self._session is None else self._session.gpu_lost)

    @property
    def detector(self) -> AnyDetector | None:
        return None if self._session is None else self._session.detector

    def start(self) -> Work[bool]:
        """Configure and activate; whether both succeeded (the reason is in the log)."""

        def both() -> bool:
            success = TransitionCallbackReturn.SUCCESS
            return self.trigger_configure() == success and self.trigger_activate() == success

        self._work = self._beside.submit(both)
        return self._work

    def close(self) -> bool:
        """For the end of the process: report what waits and let the worker finish, but not for long; whether it did."""
        if self._work is not None and not self._work.done():
            return False
        ended = self._session is None or self._session.close(_EXIT_PATIENCE_S)
        if ended:
            self._jump_handle.unregister()
            self._library_log.remove()
            self.destroy_node()
        return ended

    async def _answer_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        wanted = request.transition
        if self._work is not None and not self._work.done():
            self.get_logger().error("another transition is going on; ask again when it is over")
            response.success = False
            return response
        if wanted.id not in _BESIDE and wanted.label not in _BESIDE.values():
            return self._change_state(request, response)
        answer: Future[ChangeState.Response] = Future(executor=self.executor)
        self._work = self._beside.submit(self._change_state, request, response)
        self._work.add_done_callback(lambda work: answer.set_result(work.result()))
        return await answer

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("configure", self._configure, undo=self._clean_up)
        return super().on_configure(state) if result == TransitionCallbackReturn.SUCCESS else result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._attempt("activate", self._activate, undo=self._deactivate)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        result = super().on_activate(state)
        self._publish_labels()
        self._bond = bond_with_manager(self)
        return result

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
        outcome = self._outcome(what, action)
        if outcome is not TransitionCallbackReturn.SUCCESS and not self._gpu_lost:
            release_memory()  # now that no exception holds what the action had made
        if outcome is TransitionCallbackReturn.FAILURE:
            undo()
        return outcome

    def _outcome(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """FAILURE for what the user can mend, ERROR for the rest; rclpy would swallow both."""
        try:
            action()
        except _UNDERSTOOD as error:
            self.get_logger().error(f"cannot {what}: {error}")
        except out_of_memory_errors() as error:
            self.get_logger().error(
                f"cannot {what}: the GPU's memory does not suffice ({_first_line(error)}); take a smaller model, "
                "precision float16, another device, or end what else uses it"
            )
        except Exception as error:
            self._gpu_lost = why_lost(self._device)
            if self._gpu_lost:  # no second attempt of this process would help; the health tells the rest
                self.get_logger().error(f"cannot {what}: {_first_line(error)}")
                return TransitionCallbackReturn.FAILURE
            if isinstance(error, RuntimeError) and "CUDA" in str(error):
                text = f"{_first_line(error)}; check the GPU with nvidia-smi, or set device to cpu"
                self.get_logger().error(f"cannot {what}: {text}")
                return TransitionCallbackReturn.ERROR
            self.get_logger().error(f"cannot {what}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        else:
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        self._settings = parameters.read(self)
        rig = load_yaml(RigConfig, config_file("rigs", self._settings.rig))
        self._declared_cameras = parameters.declare_cameras(self, rig, self._declared_cameras)
        rig = replace(rig, cameras=parameters.read_cameras(self, rig))
        self._settings.synchronizer(rig)  # refuses what cannot work before anything is built
        self._settings.tracker_config()  # so do these
        require_loadable(self._settings)
        self._device = device_of(self._settings)
        self._rig = rig
        buffer = LoopingBuffer(Duration(nanoseconds=round(self._settings.transform_cache_s * SECOND_NS)))
        self._tf_listener = TransformListener(buffer, self)
        self._ego_motion = EgoMotion(TfTransforms(buffer), rig, self._settings.output_frame)
        self._outputs = Outputs(self, self._ego_motion.output_frame)
        self._reporter = HealthReporter(self, rig)
        self._reset_service = self.create_service(Trigger, topics.RESET, self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._health_timer = self.create_timer(TICK_S, self._report_health, clock=steady)

    def _activate(self) -> None:
        assert self._rig is not None
        settings, begun_s = self._settings, time.monotonic()
        self.get_logger().info(f"loading the network {settings.model} on {self._device}")
        self._loading_since_s = begun_s
        try:
            detector = in_passing_thread(partial(self._load, settings, self._rig))
        finally:
            self._loading_since_s = None
        session = DetectionSession(self, settings, self._rig, self._ego_motion, self._outputs, detector)
        try:
            session.open()
        except BaseException:
            session.close()
            raise
        self._session = session
        names = ", ".join(camera.name for camera in self._rig.cameras)
        least, most = session.score_thresholds.min(), session.score_thresholds.max()
        scores = f"{least:g}" if least == most else f"{least:g} to {most:g}, by class,"
        self.get_logger().info(
            f"detecting with {detector.config.name} in {detector.precision} on {self._device} after "
            f"{time.monotonic() - begun_s:.1f} s, boxes with a score of {scores} or more in "
            f"{self._ego_motion.output_frame}, cameras {names}"
        )

    def _load(self, settings: Settings, rig: RigConfig) -> AnyDetector:
        detector = detector_for(settings, rig)
        if detector.config.temporal.frames[-1] > 0:
            raise ValueError(f"{detector.config.name} uses future frames and cannot run live; replay a bag with it")
        self.get_logger().info("the network is loaded, warming it up")
        detector.warm_up(masked=any(camera.masks for camera in rig.cameras))
        return detector

    def _deactivate(self) -> None:
        if self._bond is not None:
            self._bond.shutdown()
            self._bond = None
        if self._session is None:
            return
        self._session.close()
        self._gpu_lost = self.gpu_lost
        self._session = None
        self._outputs.delete_markers(self.get_clock().now().nanoseconds)
        if not self._gpu_lost:
            release_memory()

    def _clean_up(self) -> None:
        if self._rig is None:
            return
        self._rig = None
        self._tf_listener.unregister()
        self._outputs.destroy()
        self.destroy_timer(self._health_timer)
        self._reporter.destroy()
        self.destroy_service(self._reset_service)

    def _on_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        return parameters.check(changed, configured=self._rig is not None)

    def _after_parameters(self, changed: list[Parameter]) -> None:
        if self._session is not None:
            self._session.score_thresholds = score_thresholds(parameters.read(self), self._session.detector)
            self._publish_labels()

    def _publish_labels(self) -> None:
        if self._session is not None:
            self._outputs.publish_labels(min(self._session.score_thresholds))

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

    def _report_health(self) -> None:
        lost = self.gpu_lost
        self._reporter.tick(self._session, self._loading_since_s, lost)
        self.given_up = bool(lost) and (self._work is None or self._work.done())


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
