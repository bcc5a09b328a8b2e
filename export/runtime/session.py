"""An exported graph in ONNX Runtime: session, key/value cache, and engine for the decoding loop (torch-free)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.core.cores import usable_cores
from prosocial.core.errors import ArtefactError, InputError, MissingExtraError
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import ControlArrays
from prosocial.steering.decoding.engine import Decision
from prosocial.steering.decoding.prefix import PrefixCache, shared_prefix

CPU = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"
HAVE_MEMORY = ("cuda", "dml")  # providers on whose device the cache is kept; that of others is the CPU's
LOGITS_TO_KEEP = "logits_to_keep"  # graph input: number of last positions that get logits; 0 (default) for all
ALLOWED_OPTIONS = ("intra_op_num_threads", "inter_op_num_threads", "log_severity_level")
ERRORS_ONLY = 3
LARGE_BYTES = 1 << 12
MISSING_OPERATOR = ("is not a registered function/op", "No Op registered", "Could not find an implementation")
CACHE_DTYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def import_runtime() -> Any:
    """Import onnxruntime.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    return onnxruntime


def provider_named(name: str) -> str:
    """Return ONNX Runtime's own name of an execution provider, such as CUDAExecutionProvider for `cuda`.

    Args:
        name: its own name, or that in lower case without the last two words.

    Raises:
        InputError: the installed onnxruntime has no such provider.
        MissingExtraError: onnxruntime is not installed.

    Examples:
        >>> provider_named("cpu")
        'CPUExecutionProvider'
    """
    installed = {each.removesuffix(SUFFIX).lower(): each for each in import_runtime().get_available_providers()}
    short = name.removesuffix(SUFFIX).lower()
    if short not in installed:
        raise InputError(
            f"a provider should be one that the installed onnxruntime has ({', '.join(installed)}), the value is "
            f"{name!r:.60}: choose one of these, or install an onnxruntime with it (cuda: pip install 'prosocial[gpu]')"
        )
    return str(installed[short])


def load_graph(
    graph: bytes, weights: Mapping[str, NDArray[Any]], *, settings: Any = None, providers: Sequence[str] = (CPU,)
) -> Any:
    """Return a session of ONNX Runtime for a graph whose external weights are given, so that it opens no file.

    The session reads the arrays where they are, and the returned object keeps them for as long as it lives.

    Args:
        graph: bytes of the model.
        weights: values of the initializers that the graph keeps in other files, by name.
        settings: ONNX Runtime's `SessionOptions`; None for its defaults, with errors only in its log.
        providers: execution providers, by ONNX Runtime's own names.
    """
    runtime = import_runtime()
    if settings is None:
        settings = runtime.SessionOptions()
        settings.log_severity_level = ERRORS_ONLY
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # bytes may look like its own format too
    values = [runtime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
    if values:
        settings.add_external_initializers(list(weights), values)
    for name, value in zip(weights, values, strict=True):
        if value.tensor_size_in_bytes() >= LARGE_BYTES:
            settings.add_initializer(name, value)  # used in place; without it, the session keeps a copy
    session = runtime.InferenceSession(graph, settings, providers=list(providers))
    session.kept = (values, dict(weights), settings)  # memory that the session reads; it would crash without
    return session


def session_options(given: Mapping[str, Any], *, threads: int | None = None) -> dict[str, int]:
    """Return the session options to set: a bundle's options, overridden by the caller's.

    Without a number of threads in either, there is one thread per core that the process may use.

    Args:
        given: options of the bundle.
        threads: threads per operator; None for the bundle's.

    Raises:
        ArtefactError: the bundle sets an option that is not allowed (such as one that loads a library), or a value is
            out of range.
    """
    ours = {"log_id", "provider_options"}  # every bundle has these for onnxruntime-genai; they have no effect here
    refused = sorted(set(given) - set(ALLOWED_OPTIONS) - ours)
    if refused or given.get("provider_options"):
        names = ", ".join(refused) or "provider_options"
        raise ArtefactError(f"session options of a bundle should be among {', '.join(ALLOWED_OPTIONS)}, found {names}")
    options = {"log_severity_level": ERRORS_ONLY} | {key: given[key] for key in ALLOWED_OPTIONS if key in given}
    if not all(isinstance(value, int) and 0 <= value <= 1024 for value in options.values()):
        raise ArtefactError(f"session options should be whole numbers from 0 to 1024, found {options}")
    return (
        {"intra_op_num_threads": usable_cores()}
        | options
        | ({} if threads is None else {"intra_op_num_threads": threads})
    )


class GraphSession:
    """Runs a graph with its key/value cache.

    Args:
        path: path of `model.onnx`, for messages if `graph` is given.
        shares_cache: True if past and present are one preallocated buffer (profile `ort`), False if the cache grows
            with each run (profile `portable`).
        provider: execution provider, as for `provider_named`; what it lacks runs on the CPU.
        options: result of `session_options`.
        graph: bytes of the graph, checked before; None to let ONNX Runtime open `path`, which is for graphs that this
            process has just written.
        weights: with `graph`, the values of its initializers in other files, by name.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ArtefactError: the graph cannot be loaded, or its inputs and outputs differ from a bundle's.
        InputError: the installed onnxruntime lacks the provider.
    """

    def __init__(
        self,
        path: Path,
        *,
        shares_cache: bool,
        provider: str = "cpu",
        options: Mapping[str, int] | None = None,
        graph: bytes | None = None,
        weights: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        runtime = import_runtime()
        names = list(dict.fromkeys([provider_named(provider), CPU]))
        settings = runtime.SessionOptions()
        for name, value in (options or session_options({})).items():
            setattr(settings, name, value)
        try:
            if graph is None:
                self.session = runtime.InferenceSession(str(path), settings, providers=names)
            else:
                self.session = load_graph(graph, weights or {}, settings=settings, providers=names)
        except Exception as error:  # the errors of onnxruntime have no common base class below Exception
            raise ArtefactError(_load_failure(path, str(error), runtime.__version__)) from error
        kind = names[0].removesuffix(SUFFIX).lower()
        self.runtime, self.device, self.shares_cache = runtime, kind if kind in HAVE_MEMORY else "cpu", shares_cache
        inputs = {value.name: value for value in self.session.get_inputs()}
        shapes = {name: value.shape for name, value in inputs.items()}
        self.past_names = [name for name in shapes if name.startswith("past_key_values.")]
        outputs = {value.name: value.shape for value in self.session.get_outputs()}
        self.present_names = [name for name in outputs if name.startswith("present.")]
        self.result_names = [name for name in outputs if not name.startswith("present.")]
        self._result_shapes = {
            name: (outputs[name][2:], np.int64 if name == "safe_set_size" else np.float32) for name in self.result_names
        }
        self.control_names = {value.name for value in self.session.get_overridable_initializers()} - {LOGITS_TO_KEEP}
        if not self.past_names or len(self.past_names) != len(self.present_names) or "logits" not in outputs:
            raise ArtefactError(
                f"{path} should have logits, past and present keys and values, found {sorted(outputs)}: export again"
            )
        if LOGITS_TO_KEEP not in {value.name for value in self.session.get_overridable_initializers()}:
            raise ArtefactError(f"{path} should have the input {LOGITS_TO_KEEP}, found none: export it again")
        _, self.n_kv_heads, _, self.head_size = shapes[self.past_names[0]]
        self._cache_dtype = _cache_dtype(path, inputs[self.past_names[0]].type)
        self.vocabulary_size: int = outputs["logits"][-1]

    def new_cache(self, n_rows: int, capacity: int) -> list[Any]:
        """Return an empty cache for `n_rows` rows of at most `capacity` tokens."""
        return self._empty(n_rows, capacity if self.shares_cache else 0)

    def keep(self, cache: list[Any], rows: NDArray[np.intp]) -> list[Any]:
        """Return the cache of these rows, in this order."""
        return [self._on_device(np.ascontiguousarray(value.numpy()[rows])) for value in cache]

    def start(self, cache: list[Any], n_tokens: int, capacity: int) -> list[Any]:
        """Return a copy of a cache with its first `n_tokens` positions and room for `capacity`."""
        begun = []
        for value in cache:
            known = value.numpy()[:, :, :n_tokens]
            room = np.zeros((*known.shape[:2], max(capacity - n_tokens, 0) if self.shares_cache else 0, self.head_size))
            begun.append(self._on_device(np.concatenate([known, room.astype(self._cache_dtype)], axis=2)))
        return begun

    def join(self, caches: Sequence[list[Any]]) -> list[Any]:
        """Return the concatenation of several caches along the batch axis."""
        return [
            self._on_device(np.concatenate([value.numpy() for value in values])) for values in zip(*caches, strict=True)
        ]

    def run(
        self, ids: NDArray[np.int64], n_past: int, cache: list[Any], controls: ControlArrays | None, n_kept: int = 0
    ) -> tuple[dict[str, NDArray[Any]], list[Any]]:
        """Run the graph on new tokens [B, S] that follow `n_past` cached ones.

        Args:
            ids: [B, S], ids of the new tokens.
            n_past: number of cached tokens.
            cache: the key/value cache.
            controls: controls of the B rows (or one for all); None for the graph's defaults.
            n_kept: number of last positions to return outputs for; 0 for all.

        Returns:
            The outputs by name, each [B, min(n_kept, S), ...], and the extended cache.
        """
        n_rows, n_new = ids.shape
        n_results = min(n_kept, n_new) or n_new
        feed: dict[str, NDArray[Any]] = {
            "input_ids": np.ascontiguousarray(ids),
            "attention_mask": np.ones((n_rows, n_past + n_new), np.int64),
            "position_ids": np.ascontiguousarray(np.broadcast_to(np.arange(n_past, n_past + n_new), ids.shape)),
            LOGITS_TO_KEEP: np.array([n_kept]),
            **(controls.as_inputs() if controls is not None and self.control_names else {}),
        }
        results = {
            name: np.empty((n_rows, n_results, *tail), dtype) for name, (tail, dtype) in self._result_shapes.items()
        }
        present = cache if self.shares_cache else self._empty(n_rows, n_past + n_new)
        names = [*feed, *self.past_names], [*results, *self.present_names]
        feeds = [*map(self.runtime.OrtValue.ortvalue_from_numpy, feed.values()), *cache]
        fetches = [*map(self.runtime.OrtValue.ortvalue_from_numpy, results.values()), *present]
        self._run(names, feeds, fetches, n_results=len(results))
        return results, present

    def _run(self, names: tuple[list[str], list[str]], feeds: list[Any], fetches: list[Any], *, n_results: int) -> None:
        """Run with preallocated outputs; IOBinding, the usual way to do this, does not support default inputs."""
        vectors = []
        for values in (feeds, fetches):
            vector = self.runtime.capi.onnxruntime_pybind11_state.OrtValueVector()
            for value in values:
                vector.push_back(value._get_c_value())
            vectors.append(vector)
        devices = [self._c_device("cpu")] * n_results + [self._c_device(self.device)] * (len(fetches) - n_results)
        self.session.run_with_ortvaluevector(
            self.runtime.RunOptions(), names[0], vectors[0], names[1], vectors[1], devices
        )

    def _c_device(self, kind: str) -> Any:
        return self.runtime.OrtDevice.make(kind, 0)._get_c_device()

    def _empty(self, n_rows: int, length: int) -> list[Any]:
        shape = (n_rows, self.n_kv_heads, length, self.head_size)
        return [self._on_device(np.zeros(shape, self._cache_dtype)) for _ in self.past_names]

    def _on_device(self, array: NDArray[np.floating[Any]]) -> Any:
        return self.runtime.OrtValue.ortvalue_from_numpy(array, self.device, 0)


def _load_failure(path: Path, message: str, version: str) -> str:
    reason = " ".join(message.split())
    if any(words in reason for words in MISSING_OPERATOR):
        return (
            f"{path} should use only operators of onnxruntime, version {version} lacks one: {reason:.500}; install a "
            "newer onnxruntime, or export with --profile portable"
        )
    return f"{path} should load in ONNX Runtime {version}: {reason:.500}; fetch or export the bundle again"


def _cache_dtype(path: Path, name: str) -> type[np.floating[Any]]:
    if name not in CACHE_DTYPES:
        raise ArtefactError(f"{path} should cache keys and values as {' or '.join(CACHE_DTYPES)}, found {name}")
    return CACHE_DTYPES[name]


class GraphEngine:
    """A graph as an engine of the decoding loop.

    Args:
        session: the session of the graph.
        config: the decoding config; None for a plain graph.
        context_length: maximum number of tokens in a sequence; None if there is no limit.
        prefix: cache of the last prompt, kept between calls; None to keep nothing.
    """

    def __init__(
        self,
        session: GraphSession,
        config: DecodingConfig | None,
        context_length: int | None,
        *,
        prefix: PrefixCache | None = None,
    ) -> None:
        self.session, self.config, self.context_length, self._prefix = session, config, context_length, prefix
        self.vocabulary_size = session.vocabulary_size

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "GraphStream":
        """Run prompts [B, S] of equal length; no row may grow beyond `capacity` tokens."""
        return GraphStream(self.session, ids, controls, capacity, self._prefix)


class GraphStream:
    """A batch of sequences with its key/value cache in ONNX Runtime."""

    def __init__(
        self,
        session: GraphSession,
        ids: NDArray[np.int64],
        controls: ControlArrays | None,
        capacity: int,
        prefix: PrefixCache | None = None,
    ) -> None:
        self._session, self._controls = session, controls
        n_known, known = prefix.take(ids) if prefix else (0, [])
        n_shared = max(shared_prefix(ids), n_known)
        if n_known:
            self._cache, self._length = session.start(known, n_known, capacity), n_known
        else:
            self._cache, self._length = session.new_cache(1 if n_shared else len(ids), capacity), 0
        self.decision = self._decide_shared(ids, n_shared) if n_shared else self._decide(ids)
        if prefix is not None:
            first = session.keep(self._cache, np.zeros(1, np.intp))
            prefix.keep(ids[0].copy(), session.start(first, ids.shape[1], ids.shape[1]))

    def step(self, tokens: NDArray[np.int64]) -> None:
        """Append one token [B] per row and compute the next decision."""
        self.decision = self._decide(tokens[:, None])

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep only these rows, in this order."""
        self._cache = self._session.keep(self._cache, rows)
        self._controls = self._controls.rows(rows) if self._controls else None

    def _decide_shared(self, ids: NDArray[np.int64], n_shared: int) -> Decision:
        """Run the common prefix of all rows once, from the end of the cached part, then the rest of each row."""
        session, rest, prefix = self._session, ids[:, n_shared:], self._cache
        if self._length < n_shared:
            _, prefix = session.run(ids[:1, self._length : n_shared], self._length, prefix, None, 1)
        self._length = n_shared
        if not session.shares_cache or rest.shape[1] == 1:
            self._cache = session.keep(prefix, np.zeros(len(ids), np.intp))
            return self._decide(rest)
        decisions, caches = [], []  # with a past, GroupQueryAttention takes several tokens of one row only
        for row in range(len(ids)):
            own = self._controls.rows([row]) if self._controls else None
            results, cache = session.run(rest[[row]], n_shared, session.keep(prefix, np.zeros(1, np.intp)), own, 1)
            decisions.append(_decision(results))
            caches.append(cache)
        self._cache, self._length = session.join(caches), ids.shape[1]
        return Decision(
            np.concatenate([one.logits for one in decisions]),
            np.concatenate([one.risk for one in decisions]),
            np.concatenate([one.safe_set_size for one in decisions]),
        )

    def _decide(self, ids: NDArray[np.int64]) -> Decision:
        results, self._cache = self._session.run(ids, self._length, self._cache, self._controls, 1)
        self._length += ids.shape[1]
        return _decision(results)


def _decision(results: Mapping[str, NDArray[Any]]) -> Decision:
    """Return the decision of the last position."""
    logits = results["logits"][:, -1]
    if "risk" not in results:
        n_rows, size = logits.shape
        return Decision(logits, np.zeros((n_rows, 0), np.float32), np.full(n_rows, size, np.int64))
    return Decision(logits, results["risk"][:, -1], results["safe_set_size"][:, -1])
