"""The comparison of one bundle with its reference under every setting that the bundle names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from prosocial.core.chat import ChatTokenizer
from prosocial.evaluation.probes.probe import Probe
from prosocial.export.bundle_files.precision import Precision
from prosocial.export.bundle_files.verified import VerifiedFiles
from prosocial.export.presets import PRESET_FOLDER, SUFFIX
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig
from prosocial.steering.decoding.controls import Steering, control_arrays, with_safety_text

from .engines import StepOutputs
from .entry_points import entry_points, unexpected_tokens
from .gates import ParityGates, ParityVerdict
from .genai_client import ClientFailure, Request, genai_replies, is_installed
from .localisation import FirstDifference, first_difference
from .measure import Setting, join, largest_difference, measure_setting
from .measurement import Measurement
from .reference import Reference
from .remote import RemoteBundle, RemoteEngine

N_PROBES = 4  # for each setting other than the graph's defaults, and for the comparison of computation paths
MOST_TOKENS = 8
GRAPH_DEFAULTS = "graph defaults"
NOISE = {"fp32": 1e-5, "fp16": 2e-3, "int8": 2e-2, "int4": 2e-1}  # relative error expected from each precision


@dataclass(frozen=True)
class Comparison:
    """Measures a bundle that runs in a child process.

    Attributes:
        remote: the child process.
        trusted: the reference.
        name: name of the bundle's engine, for the report.
        folder: bundle folder.
        reference_folder: folder of the reference.
        precision: precision of the bundle's weights.
        max_new_tokens: maximum length of each reply, in tokens.
    """

    remote: RemoteBundle
    trusted: Reference
    name: str
    folder: Path
    reference_folder: Path
    precision: Precision
    max_new_tokens: int

    def measure(
        self, probes: Sequence[Probe], prompts: Mapping[str, list[int]], on_progress: Callable[[int], None]
    ) -> Measurement:
        """Measure under all settings; if the default gates fail, also locate the first difference."""
        config = DecodingConfig.read(self.folder) if self.trusted.margins is not None else None
        few = list(probes)[:: max(1, len(probes) // N_PROBES)][:N_PROBES]
        own = self._setting(GRAPH_DEFAULTS, None, prompts, self.max_new_tokens)
        measurements = [measure_setting(own, on_progress=on_progress)]
        for name, steering in settings(config).items():
            ids = self._prompts(few, steering, config)
            measurements.append(
                measure_setting(self._setting(name, steering, ids, min(self.max_new_tokens, MOST_TOKENS)))
            )
        chosen = {probe.id: prompts[probe.id] for probe in few}
        measured = replace(
            join(measurements),
            config_differences=self._config_differences(config),
            entry_points=self._entry_points(config, few),
            paths=self._paths(chosen),
        )
        if measured.judge(ParityGates.for_precision(self.precision)).verdict is ParityVerdict.FAIL:
            return replace(measured, first_difference=self._place(measured, _most_flips(measured, prompts)))
        return measured

    def _engine(self, steering: Steering | None) -> RemoteEngine:
        return RemoteEngine(
            self.remote, name=self.name, steering=steering, has_margins=self.trusted.margins is not None
        )

    def _setting(
        self, name: str, steering: Steering | None, prompts: Mapping[str, list[int]], max_new_tokens: int
    ) -> Setting:
        return Setting(name, self.trusted.under(steering), self._engine(steering), prompts, max_new_tokens)

    def _prompts(
        self, probes: Sequence[Probe], steering: Steering, config: DecodingConfig | None
    ) -> dict[str, list[int]]:
        tokenizer = ChatTokenizer(self.folder)
        texts = {
            probe.id: probe.messages if config is None else with_safety_text(config, steering, probe.messages)
            for probe in probes
        }
        return {probe.id: tokenizer.encode_chat(texts[probe.id], prefill=probe.prefill) for probe in probes}

    def _config_differences(self, config: DecodingConfig | None) -> tuple[str, ...]:
        if config is None:
            return ()
        ours = config.model_dump(mode="json")
        trusted_config = DecodingConfig.read(self.reference_folder)
        theirs = trusted_config.model_dump(mode="json")
        keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        return *(f"{DECODING_FILE}: {key}" for key in keys), *_other_defaults(self.folder, trusted_config)

    def _entry_points(self, config: DecodingConfig | None, probes: Sequence[Probe]) -> Mapping[str, tuple[str, ...]]:
        """Compare what other clients read; onnxruntime-genai runs only with settings that export would write."""
        found = entry_points(self.folder, self.reference_folder, self.trusted.engine.backbone)
        if is_installed() and not any(found.values()):
            found["genai_replies"] = self._genai_replies(config, probes)
        return found

    def _genai_replies(self, config: DecodingConfig | None, probes: Sequence[Probe]) -> tuple[str, ...]:
        """Return the prompts and presets on which onnxruntime-genai chooses other tokens than the bundle."""
        named: dict[str | None, Steering] = {None: Steering()}
        named |= {name: Steering(safety_config=name) for name in (config.safety_configs if config else ())}
        most = min(self.max_new_tokens, MOST_TOKENS)
        cases: list[tuple[str, Steering, Sequence[int], Request]] = []
        for name, steering in named.items():
            preset = name and str(self.folder.resolve() / PRESET_FOLDER / f"{name}{SUFFIX}")
            for probe, ids in self._prompts(probes, steering, config).items():
                request = {"ids": ids, "max_new_tokens": most, "preset": preset}
                cases.append((f"{probe} with {f'preset {name}' if name else 'the defaults'}", steering, ids, request))
        try:
            replies = genai_replies(self.folder, [request for *_, request in cases])
        except ClientFailure as failure:
            return (str(failure),)
        tie = 2 * (ParityGates.for_precision(self.precision).max_path_difference or 0.0)
        ends = set(ChatTokenizer(self.folder).end_ids)
        wrong = []
        for (what, steering, prompt, _), tokens in zip(cases, replies, strict=True):
            scored = self._engine(None if config is None else steering).score(prompt, tokens)
            if unexpected_tokens(tokens, scored.logits, ends=ends, most=most, tie=tie):
                wrong.append(what)
        return tuple(wrong)

    def _paths(self, prompts: Mapping[str, list[int]]) -> dict[str, float]:
        """Return how far the logits computed in a batch, and in one pass, are from those computed token by token."""
        engine, differences = self._engine(None), {"in a batch": 0.0, "in one pass": 0.0}
        for ids in prompts.values():
            rows = [ids, ids[::-1], [*ids[1:], ids[0]]]
            in_batch = engine.replies(rows, max_new_tokens=min(self.max_new_tokens, MOST_TOKENS))[0]
            reply = in_batch.tokens[:-1]
            alone = engine.score(ids, reply)
            for name, other in (("in a batch", in_batch.outputs), ("in one pass", engine.whole(ids, reply))):
                differences[name] = float(np.maximum(differences[name], largest_difference(alone, other)))
        return differences

    def _place(self, measured: Measurement, ids: list[int]) -> FirstDifference:
        """Locate the first difference: in the layers, in the cache, or in the decoding rule."""
        from .torch_points import torch_points

        settings = [*measured.config_differences, *chain.from_iterable(measured.entry_points.values())]
        if settings:
            return FirstDifference(settings[0], None, np.inf)
        expected = torch_points(self.trusted.engine.backbone, ids)
        noise = NOISE[self.precision]
        first = first_difference(expected, self._engine(None).points(ids), noise=noise)
        if first is not None:
            return first
        last = list(expected)[-1]
        off = max(measured.paths.values(), default=0.0)
        limit = ParityGates.for_precision(self.precision).max_path_difference
        if limit is not None and not off <= limit:
            return FirstDifference(f"cache: {max(measured.paths, key=measured.paths.__getitem__)}", last, off)
        return self._place_in_rule(ids, last)

    def _place_in_rule(self, ids: list[int], last: str) -> FirstDifference:
        """Return which part of the decoding rule differs, given that all hidden states agree."""
        limit = ParityGates().max_logit_difference or 0.0
        reply = self.trusted.under(None).replies([ids], max_new_tokens=MOST_TOKENS)[0].tokens[:-1]
        plain = Steering(reward_scale=0.0) if self.trusted.margins is not None else None
        ours, theirs = (each.score(ids, reply) for each in (self.trusted.under(plain), self._engine(plain)))
        logits = largest_difference(ours, theirs)
        if not logits <= limit:
            return FirstDifference("output embedding (logits without reward)", last, logits)
        risk = _token_risk(ours, theirs)
        if not risk <= limit:
            return FirstDifference("gate (risk of tokens)", last, risk)
        ours, theirs = (each.score(ids, reply) for each in (self.trusted.under(None), self._engine(None)))
        if (np.isfinite(ours.logits) != np.isfinite(theirs.logits)).any():
            return FirstDifference("threshold, categories or ceilings of the gate", "gate (risk of tokens)", np.inf)
        return FirstDifference("reward head or preference", "gate (risk of tokens)", np.inf)


def _other_defaults(folder: Path, config: DecodingConfig) -> list[str]:
    """Return the optional inputs of the graph whose default differs from the config.

    Other clients decode with these defaults. A threshold that is slightly wrong may change no decision on the probes,
    so the stored numbers themselves are compared.
    """
    import onnx

    files = VerifiedFiles.open(folder)
    stored = {each.name: each for each in onnx.load_model_from_string(files.graph).graph.initializer}
    weights = files.weights()
    wrong = []
    for name, expected in control_arrays(config, [Steering()]).as_inputs().items():
        inside = name in stored and name not in weights
        actual = onnx.numpy_helper.to_array(stored[name]) if inside else weights.get(name)
        if actual is None or not np.array_equal(actual.astype(np.float32).ravel(), expected.ravel()):
            wrong.append(f"default of {name} in the graph")
    return wrong


def _most_flips(measured: Measurement, prompts: Mapping[str, list[int]]) -> list[int]:
    """Return the prompt with the most flips among those compared under the graph's defaults."""
    return prompts[max(prompts, key=lambda name: len(measured.divergences[name].flips))]


def settings(config: DecodingConfig | None) -> dict[str, Steering]:
    """Return the settings to compare by name: each preference corner, the uniform preference, each safety config."""
    if config is None:
        return {}
    names = list(config.attributes)
    named = {"config defaults": Steering(), "uniform": Steering(preference=dict.fromkeys(names, 1.0))}
    named |= {f"{name}=1": Steering(preference={name: 1.0}) for name in names}
    return named | {f"config {name}": Steering(safety_config=name) for name in config.safety_configs}


def _token_risk(ours: StepOutputs, theirs: StepOutputs) -> float:
    if ours.margins is None or theirs.margins is None:
        return 0.0
    left, right = ours.margins().safety, theirs.margins().safety
    both = np.isfinite(left) & np.isfinite(right)
    return float(np.abs(np.where(both, left, 0) - np.where(both, right, 0)).max())
