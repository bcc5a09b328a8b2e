"""Measures the cost of switching safety configs: the same requests, grouped by signed config or interleaved.

    python benchmarks/config_switching.py BUNDLE [--configs 100] [--repeats 5] [--rounds 3]

Both orders answer each request once, with the same tokens, so that they differ only in how often the config changes:
one keeps a config for a block of requests, the other changes it for each request. Blocks of the two orders alternate,
and their order is reversed from block to block, so that other load affects both alike. For each request, the fastest
round of each order counts. Reports processor time per token, which other processes hardly affect, and wall time, with
95 % bootstrap intervals over requests. Nothing is cached between requests.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from prosocial.core.signing import SigningKey
from prosocial.export import Bundle
from prosocial.steering.authorisation.authorisation import sign_config
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import AuthorisedConfig, NamedConfig
from prosocial.steering.decoding.controls import Steering

PROMPT = "How do I say no to a friend?"
Request = tuple[int, AuthorisedConfig]


def signed_configs(bundle: Bundle, count: int, folder: Path) -> list[AuthorisedConfig]:
    """Return signed and authorised configs, each with its own text, threshold and preference."""
    decoding = bundle.config
    assert decoding is not None
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    trust = TrustStore((key.public,), {})
    configs = []
    for number in range(count):
        config = NamedConfig(
            name=f"config-{number}",
            text=f"Rule {number:03d}: be kind.",
            allowed=[],
            threshold=decoding.threshold_ceiling * (0.5 + 0.5 * number / count),
            preference={name: 1.0 + (number + at) % 5 for at, name in enumerate(decoding.attributes)},
        )
        out = folder / f"{number}.json"
        sign_config(config, out, key=key, decoding=decoding, manifest=bundle.manifest, valid_days=1)
        configs.append(bundle.authorise(out, trust=trust))
    return configs


def time_block(bundle: Bundle, requests: Sequence[Request]) -> dict[str, NDArray[np.float64]]:
    """Answer requests one by one; return processor seconds, wall seconds and tokens of each, by its name."""
    measured = {}
    for number, config in requests:
        steering = Steering(safety_config=config)
        messages = [{"role": "user", "content": PROMPT}]
        processor, wall = time.process_time(), time.perf_counter()
        reply = bundle.generate([messages], steering=steering, row_keys=[str(number)], max_new_tokens=48)[0]
        times = time.process_time() - processor, time.perf_counter() - wall, len(reply.token_ids)
        measured[f"{config.config.name}/{number}"] = np.array(times)
    return measured


def blocks_of(configs: Sequence[AuthorisedConfig], repeats: int) -> dict[str, list[list[Request]]]:
    """Return the same requests in two orders, in blocks of `repeats`."""
    kept = [(number, config) for config in configs for number in range(repeats)]
    switched = [(number, config) for number in range(repeats) for config in configs]
    return {
        name: [order[at : at + repeats] for at in range(0, len(order), repeats)]
        for name, order in (("kept", kept), ("switched", switched))
    }


def added(kept: NDArray[np.float64], switched: NDArray[np.float64], column: int) -> dict[str, float]:
    """Return the relative increase of a column's seconds by switching, over requests [n, 3], with its interval."""

    def share(rows: NDArray[np.intp]) -> float:
        return float(switched[rows, column].sum() / kept[rows, column].sum() - 1)

    numbers = np.random.Generator(np.random.PCG64(0))
    drawn = [share(numbers.integers(len(kept), size=len(kept))) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"share": share(np.arange(len(kept))), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--configs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        configs = signed_configs(bundle, given.configs, Path(folder))
    blocks = blocks_of(configs, given.repeats)
    time_block(bundle, blocks["kept"][0])  # warm
    times: dict[str, dict[str, list[NDArray[np.float64]]]] = {name: {} for name in blocks}
    for turn in range(given.rounds):
        for at in range(len(blocks["kept"])):
            for name in sorted(blocks, reverse=(turn + at) % 2 == 1):
                for request, measured in time_block(bundle, blocks[name][at]).items():
                    times[name].setdefault(request, []).append(measured)
    requests = sorted(times["kept"])
    kept, switched = (np.array([np.min(times[name][each], 0) for each in requests]) for name in ("kept", "switched"))
    if (kept[:, 2] != switched[:, 2]).any():
        raise SystemExit("both orders should give the same number of tokens per reply, they differ")
    totals = kept.sum(0)
    summary = {
        "configs": given.configs,
        "requests": len(requests),
        "rounds": given.rounds,
        "tokens": int(totals[2]),
        "processor_ms_per_token": round(1000 * totals[0] / totals[2], 4),
        "switching_adds_to_processor_time": added(kept, switched, 0),
        "switching_adds_to_wall_time": added(kept, switched, 1),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
