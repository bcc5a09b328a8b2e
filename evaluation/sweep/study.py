"""A sweep: edits in memory, measures and chooses the next trial; writes the journal, `trials.json` and a page."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import FingerprintError
from prosocial.core.files import storage_errors
from prosocial.core.locking import locked
from prosocial.core.placement import REFERENCE, Placement
from prosocial.core.protocols import Judge
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.plan import plan_edit
from prosocial.editing.edits.record import RECORD_NAME, EditRecord, read_record
from prosocial.editing.vectors.folder import VectorFolder

from ..judges.rehearsal import rehearse
from ..probes.probe import Probe
from ..sampling.systems import System
from ..statistics.interval import Interval
from .examiner import Answering, Examiner, require_kinds
from .journal import N_RANDOM, Journal, require_settings
from .settings import Limits, sweep_settings
from .space import Choice, SearchSpace
from .sweep_document import earlier_settings, sweep_document, write_sweep
from .trials import Trial, best_of
from .vectors import VectorShelf

LOCK_FILE, SCRATCH = ".sweep.lock", ".vectors"


@dataclass(frozen=True)
class Parents:
    """The models of a sweep.

    Attributes:
        base: checkpoint to edit; its files are never changed.
        harmful: harmful adapters or checkpoints, from which harm vectors are made.
    """

    base: Path
    harmful: tuple[Path, ...]


class Sweep:
    """A search for the edit with the least harm at the lowest cost.

    The base is loaded once and measured. Every trial edits it in memory, starting from the stored weights.

    Args:
        parents: base and harmful models.
        space: search space.
        probes: requests that trials are measured on.
        judge: judge of the replies.
        out: folder of the journal, `trials.json` and `sweep.html`; an existing sweep is resumed.
        limits: limits on the cost of a trial; None for the defaults.
        answering: sampling settings; None for the defaults.
        seed: seed of the search.
        placement: where the model lies.

    Raises:
        InputError: the probes lack a kind, `out` has a sweep with other settings, or the judge fails on a trial reply.
    """

    def __init__(
        self,
        parents: Parents,
        *,
        space: SearchSpace,
        probes: Sequence[Probe],
        judge: Judge,
        out: Path,
        limits: Limits | None = None,
        answering: Answering | None = None,
        seed: int = 0,
        placement: Placement = REFERENCE,
    ) -> None:
        from prosocial.editing.checkpoints import load_model
        from prosocial.editing.edits import InMemoryEdit
        from prosocial.steering.torch_engine import PlainEngine

        self._space, self._out = space, out
        self._limits, answering = limits or Limits(), answering or Answering()
        self._target = Checkpoint.open(parents.base)
        given = {method: space.given_to(method) for method in space.methods}
        self._vectors = VectorShelf(parents.base, parents.harmful, given, out / SCRATCH)
        harmful, _ = require_kinds(probes)
        self._settings = sweep_settings(
            parents.base, parents.harmful, space, probes, judge, self._limits, asdict(answering), seed, placement
        )
        require_settings(out, earlier_settings(out) or self._settings, self._settings)
        rehearse(judge, [probe.messages for probe in harmful])
        model = load_model(parents.base, dtype=placement.torch_dtype, device=placement.device)
        self._edit = InMemoryEdit(model, self._target)
        system = System("checkpoint", PlainEngine(model), ChatTokenizer(parents.base))
        self._examiner = Examiner(system, probes, judge, answering)
        self._seed, self._placement = seed, placement

    @property
    def base_harm(self) -> Interval:
        """The rate of harmful replies of the unedited base."""
        return self._examiner.base_harm

    def run(self, n_trials: int, on_trial: Callable[[Trial], None] = lambda trial: None) -> list[Trial]:
        """Run until `n_trials` trials are finished, including those of earlier and interrupted runs.

        The trials depend only on the settings and the seed, not on interruptions.

        Args:
            n_trials: total number of trials.
            on_trial: called with every finished trial, earlier ones first.

        Raises:
            InputError: another process runs a sweep in this folder.
        """
        with self._alone():
            n_objectives = 2 if self._examiner.base_utility is None else 3
            journal = Journal(self._out, settings=self._settings, n_objectives=n_objectives, seed=self._seed)
            trials, starts = journal.trials, self._space.starts()
            for trial in trials:
                on_trial(trial)
            while len(trials) < n_trials:
                start = starts[len(trials)] if len(trials) < len(starts) else None
                suggested = journal.ask(start=start, near=self._to_refine(trials))
                measured = self.measure(self._space.choose(suggested), len(trials))
                trial = journal.tell(suggested, measured, self._limits.violations(measured))
                trials.append(trial)
                self._write(trials)
                on_trial(trial)
            self._write(trials)
        return trials

    def _to_refine(self, trials: Sequence[Trial]) -> int | None:
        """Return the trial to refine: after the random trials, every other trial is a neighbour of the best so far."""
        if len(trials) < N_RANDOM or len(trials) % 2:
            return None
        best = best_of(trials, max_utility_loss=self._limits.max_utility_loss)
        return None if best is None else best.number

    def write(self, trial: Trial, out: Path) -> EditRecord:
        """Write a trial's edit as a checkpoint with its record, and its vector as `OUT-vector`.

        Where a killed process has written them, they stay.

        Raises:
            InputError: `out` exists and is not the edit of this trial.
            FingerprintError: the written checkpoint differs from the measured model.
        """
        from prosocial.editing.edits import apply_edit

        if (out / RECORD_NAME).is_file() and Checkpoint.open(out).fingerprint() == trial.fingerprint:
            return read_record(out)
        vector = out.with_name(f"{out.name}-vector")
        if not vector.is_dir():
            self._vectors.write(trial.choice, vector)
        names = VectorFolder.open(vector).names
        record = apply_edit(plan_edit(self._target, vector, scale=trial.choice.coefficients(names)), out)
        if record.result.fingerprint != trial.fingerprint:
            shutil.rmtree(out)
            raise FingerprintError(f"trial {trial.number}", trial.fingerprint, str(out), record.result.fingerprint)
        return record

    def document(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """Return the contents of `trials.json`."""
        base = {"harm": self._examiner.base_harm, "utility": self._examiner.base_utility}
        n_unjudged = self._examiner.base_unjudged
        document = sweep_document(
            trials, base=base, base_unjudged=n_unjudged, limits=self._limits, settings=self._settings
        )
        return document | {"computed_on": vars(self._placement)}

    def measure(self, choice: Choice, number: int = 0) -> Trial:
        """Measure one edit; replies are sampled only if the KL is within its limit."""
        vector = self._vectors.vector(choice)
        plan = plan_edit(self._target, vector, scale=choice.coefficients(VectorFolder.open(vector).names))
        result = self._edit.apply(plan)
        try:
            kl = self._examiner.measure_kl()
            if kl > self._limits.max_kl:
                return Trial(number, choice, result.fingerprint, result.inner_product, kl)
            utility, lost = self._examiner.measure_utility()
            harm, n_unjudged = self._examiner.measure_harm()
        finally:
            self._edit.restore()
        return Trial(number, choice, result.fingerprint, result.inner_product, kl, harm, utility, lost, n_unjudged)

    def _write(self, trials: Sequence[Trial]) -> None:
        write_sweep(self._out, self.document(trials))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the folder against other processes, and delete the vectors at the end because they are dual-use."""
        with storage_errors(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        refusal = f"{self._out} should not be in use, but another process runs a sweep there: wait for it"
        with locked(self._out / LOCK_FILE, refusal=refusal):
            try:
                yield
            finally:
                self._vectors.clear()
