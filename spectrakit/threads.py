"""Small matrices on one thread, blocks of stars on many, and how large a block is best."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def at_a_time(device: torch.device) -> int:
    """Spectra that go through an encoder in one pass: more leave the caches of a CPU; a GPU is not filled by few."""
    return 32 if device.type == "cpu" else 256


@contextmanager
def one_thread():
    """Matrices as small as a head's gain nothing from threads, and on a busy machine wait for them tens of times longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_parallel(work: Callable, *arguments: Iterable) -> list:
    """``[work(*a) for a in zip(*arguments)]``, the calls spread over the cores, each on one thread, without gradients."""
    def alone(*a):
        with torch.no_grad():
            return work(*a)
    with one_thread(), ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(alone, *arguments))
