"""Running shards in this process, in several processes, or on a Ray cluster."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from prosocial.core.errors import InputError

from .shards import Shard, answer_shard
from .systems import ON_CPU, Hardware

Answered = tuple[Shard, list[dict[str, Any]]]


def answer_shards(
    shards: Sequence[Shard], *, hardware: Hardware = ON_CPU, workers: int = 1, ray: str | None = None
) -> Iterator[Answered]:
    """Yield each shard with its rows, in the order of completion.

    Args:
        shards: shards to run.
        hardware: what the models run on, the same in every process.
        workers: number of processes on this machine, each of which loads the models.
        ray: address of a Ray cluster, or `local` for one with `workers` processes on this machine. Its nodes need this
            package, and the models under the same paths.

    Raises:
        InputError: `workers` is below 1, or there is no cluster at the address.
        MissingExtraError: Ray is not installed.
    """
    if workers < 1:
        raise InputError(f"sampling should have at least one worker, found {workers}")
    if ray is not None:
        yield from _on_ray(shards, hardware, ray, workers)
    elif workers == 1:
        for shard in shards:
            yield shard, answer_shard(shard, hardware)
    else:
        yield from _in_processes(shards, hardware, workers)


def _in_processes(shards: Sequence[Shard], hardware: Hardware, workers: int) -> Iterator[Answered]:
    context = multiprocessing.get_context("spawn")  # a forked process could inherit the locks of another thread
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {pool.submit(answer_shard, shard, hardware): shard for shard in shards}
        for done in as_completed(running):
            yield running[done], done.result()


def _on_ray(shards: Sequence[Shard], hardware: Hardware, address: str, workers: int) -> Iterator[Answered]:
    import ray

    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"a Ray cluster should be running at {address}: {error}") from None
    try:
        remote = ray.remote(num_cpus=1)(answer_shard)
        running = {remote.remote(shard, hardware): shard for shard in shards}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), ray.get(done)
    finally:
        ray.shutdown()
