"""How many threads torch computes with, told for one thread of the process at a time. Nothing to tell without torch.

In the OpenMP runtime every thread that computes in parallel keeps a team. Once the teams together have more threads
than the machine has cores, their members go to sleep between any two operations: on two cores the demo's network takes
half as long again then. So one thread has the team, the others compute alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def compute_threads() -> int:
    """Of the calling thread."""
    torch = sys.modules.get("torch")
    return 1 if torch is None else int(torch.get_num_threads())


def compute_with(threads: int) -> None:
    """Holds for the calling thread."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()  # asked in a thread for the first time, torch takes over what any thread has set last
        torch.set_num_threads(threads)


def in_passing_thread(work: Callable[[], Result]) -> Result:
    """Wait for what is done in a thread of its own, whose team ends with it. Raises what the work raises."""
    with ThreadPoolExecutor(1, initializer=compute_with, initargs=(compute_threads(),)) as thread:
        return thread.submit(work).result()
