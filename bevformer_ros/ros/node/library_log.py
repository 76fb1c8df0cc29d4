"""The library's own log lines (its Python loggers) in the ROS log: on the console, in the file and on /rosout."""

from __future__ import annotations

import logging

from rclpy.node import Node

_LIBRARY = "bevformer_ros"


class LibraryLog(logging.Handler):
    """Hands on every record of the library with its severity, from when it is made until it is removed."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._log = node.get_logger()
        library = logging.getLogger(_LIBRARY)
        library.addHandler(self)
        library.setLevel(logging.DEBUG)  # which of them are shown is for ROS to decide

    def remove(self) -> None:
        library = logging.getLogger(_LIBRARY)
        library.removeHandler(self)
        library.setLevel(logging.NOTSET)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy allows each line of code one severity only.
        if record.levelno >= logging.CRITICAL:
            self._log.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._log.error(text)
        elif record.levelno >= logging.WARNING:
            self._log.warning(text)
        elif record.levelno >= logging.INFO:
            self._log.info(text)
        else:
            self._log.debug(text)
