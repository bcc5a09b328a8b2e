"""Checks that onnxruntime-genai and our runtime give the same greedy replies, by default and under every preset.

    python benchmarks/genai_agreement.py BUNDLE [--probes probes.jsonl] [--limit 100] [--environment DIR]

onnxruntime-genai runs in its own environment without this package, which is created in DIR unless it exists. If our
runtime made no rollback, the tokens must be the same; if it did, no token was safe, and onnxruntime-genai must have
stopped at that token.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import ROOT, environment

from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.export import Bundle
from prosocial.export.presets import PRESET_FOLDER, SUFFIX
from prosocial.steering.decoding.controls import Steering, with_safety_text
from prosocial.steering.decoding.reply import Reply
from prosocial.verify.bundle_parity import default_probes

CLIENT = ROOT / "tests" / "export" / "genai_client.py"


def cases_of(bundle: Bundle, probes: list[Probe], config: str | None) -> list[tuple[dict[str, Any], Reply]]:
    """Return the requests under a safety config and our runtime's replies."""
    assert bundle.config is not None
    request, limit = Steering(safety_config=config), bundle.config.max_new_tokens
    preset = None if config is None else str(bundle.folder / PRESET_FOLDER / f"{config}{SUFFIX}")
    spoken = [with_safety_text(bundle.config, request, probe.messages) for probe in probes]
    ids = [
        bundle.tokenizer.encode_chat(messages, prefill=probe.prefill)
        for messages, probe in zip(spoken, probes, strict=True)
    ]
    replies = bundle.generate(
        [probe.messages for probe in probes], steering=request, prefill=[probe.prefill for probe in probes]
    )
    return [
        ({"ids": one, "max_new_tokens": limit, "preset": preset}, ours) for one, ours in zip(ids, replies, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--probes", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--environment", type=Path)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    if bundle.config is None:
        parser.error(f"{given.bundle} should be a steered bundle: a plain one has no presets")
    probes = read_probes(given.probes) if given.probes else default_probes()
    probes = probes[:: max(1, len(probes) // given.limit)]
    with tempfile.TemporaryDirectory() as place:
        python, n_wrong = environment(given.environment or Path(place) / "environment", "onnxruntime-genai"), 0
        for config in (None, *sorted(bundle.config.safety_configs)):
            cases = cases_of(bundle, probes, config)
            command, asked = [python, CLIENT, bundle.folder], json.dumps([request for request, _ in cases])
            done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
            pairs = [(tokens, ours) for tokens, (_, ours) in zip(json.loads(done.stdout), cases, strict=True)]
            free = [tokens == list(ours.token_ids) for tokens, ours in pairs if not ours.events]
            stuck = [len(tokens) == ours.events[0].step for tokens, ours in pairs if ours.events]
            n_wrong += free.count(False) + stuck.count(False)
            print(
                f"{config or 'default'}: {sum(free)} of {len(free)} replies the same, "
                f"{sum(stuck)} of {len(stuck)} stopped where nothing was safe"
            )
    sys.exit(n_wrong > 0)


if __name__ == "__main__":
    main()
