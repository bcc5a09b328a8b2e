"""What switching safety configs costs: the same requests under the same signed configs, by config or interleaved.

    python benchmarks/config_switching.py BUNDLE [--configs 100] [--repeats 3] [--rounds 7]

Both orders answer each request once, so that they differ in nothing but how often the config changes. Rounds alternate
which comes first; nothing is cached between requests. Keep the machine quiet.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from prosocial.export import Bundle, Steering
from prosocial.export.configs import AuthorisedConfig, NamedConfig, TrustStore, sign_config
from prosocial.export.signing import SigningKey

PROMPT = "How do I say no to a friend?"
Request = tuple[int, AuthorisedConfig]


def signed_configs(bundle: Bundle, count: int, folder: Path) -> list[AuthorisedConfig]:
    """Return configs that were signed and authorised, each with its own text, threshold and preference."""
    decoding = bundle.config
    assert decoding is not None
    key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
    trust = TrustStore((key.public,), {})
    found = []
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
        found.append(bundle.authorise(out, trust=trust))
    return found


def seconds_per_token(bundle: Bundle, requests: Sequence[Request]) -> float:
    """Answer requests one by one; return wall time over tokens."""
    n_tokens, start = 0, time.perf_counter()
    for number, config in requests:
        steering = Steering(safety_config=config)
        messages = [{"role": "user", "content": PROMPT}]
        reply = bundle.generate([messages], steering=steering, row_keys=[str(number)], max_new_tokens=48)[0]
        n_tokens += len(reply.token_ids)
    return (time.perf_counter() - start) / n_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--configs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        configs = signed_configs(bundle, given.configs, Path(folder))
    kept = [(number, config) for config in configs for number in range(given.repeats)]
    switched = [(number, config) for number in range(given.repeats) for config in configs]
    seconds_per_token(bundle, kept[: given.repeats])  # warm
    orders = {"kept": kept, "switched": switched}
    rounds = []
    for at in range(given.rounds):
        names = sorted(orders, reverse=at % 2 == 1)
        rounds.append({name: seconds_per_token(bundle, orders[name]) for name in names})
    ratios = [each["switched"] / each["kept"] - 1 for each in rounds]
    summary = {
        "configs": given.configs,
        "requests_per_order": len(kept),
        "ms_per_token": round(1000 * statistics.median(each["kept"] for each in rounds), 4),
        "switching_adds": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
