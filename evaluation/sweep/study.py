"""A sweep: edit in memory, measure, choose again; the journal, `trials.json` and the page tell of it."""

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
from prosocial.core.protocols import Judge
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.plan import plan_edit
from prosocial.editing.edits.record import EditRecord
from prosocial.editing.vectors.folder import VectorFolder

from ..probes.probe import Probe
from ..sampling.systems import System
from ..statistics.interval import Interval
from .examiner import Answering, Examiner
from .journal import N_RANDOM, Journal
from .settings import Limits, sweep_settings
from .space import Choice, SearchSpace
from .sweep_document import sweep_document, write_sweep
from .trials import Trial, best_of
from .vectors import VectorShelf

LOCK_FILE, SCRATCH = ".sweep.lock", ".vectors"


@dataclass(frozen=True)
class Parents:
    """What a sweep edits and subtracts.

    Attributes:
        base: the checkpoint to edit; its files are never written.
        harmful: the harmful adapters or checkpoints.
    """

    base: Path
    harmful: tuple[Path, ...]


class Sweep:
    """A search for the edit with the least harm at the least cost.

    The base is loaded once, in fp32, and measured. Every trial edits it in memory from the numbers in the files.

    Args:
        parents: base and harmful model.
        space: what may be chosen.
        probes, judge: what is asked, and who judges the replies.
        out: folder of the journal, `trials.json` and `sweep.html`; a sweep that is there already goes on.
        limits, answering, seed: as named.

    Raises:
        InputError: the probes lack a kind, or `out` holds a sweep of other settings.
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
    ) -> None:
        from prosocial.editing.checkpoints import load_model
        from prosocial.editing.edits import InMemoryEdit
        from prosocial.steering.torch_engine import PlainEngine

        self._space, self._out = space, out
        self._limits, answering = limits or Limits(), answering or Answering()
        self._target = Checkpoint.open(parents.base)
        given = {method: space.given_to(method) for method in space.methods}
        self._vectors = VectorShelf(parents.base, parents.harmful, given, out / SCRATCH)
        model = load_model(parents.base)
        self._edit = InMemoryEdit(model, self._target)
        system = System("checkpoint", PlainEngine(model), ChatTokenizer(parents.base))
        self._examiner = Examiner(system, probes, judge, answering)
        self._settings = sweep_settings(
            parents.base, parents.harmful, space, probes, judge, self._limits, asdict(answering), seed
        )
        self._seed = seed

    @property
    def base_harm(self) -> Interval:
        """Rate of harmful replies of the unedited base."""
        return self._examiner.base_harm

    def run(self, n_trials: int, on_trial: Callable[[Trial], None] = lambda trial: None) -> list[Trial]:
        """Run until `n_trials` have ended, those of earlier calls and of killed processes among them.

        The trials depend on the settings and the seed alone, not on how often the sweep was interrupted.

        Args:
            n_trials: how many trials there should be.
            on_trial: called with every trial that has ended, earlier ones first.

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
                asked = journal.ask(start=start, near=self._to_refine(trials))
                measured = self.measure(self._space.choose(asked), len(trials))
                trial = journal.tell(asked, measured, self._limits.violations(measured))
                trials.append(trial)
                self._write(trials)
                on_trial(trial)
            self._write(trials)
        return trials

    def _to_refine(self, trials: Sequence[Trial]) -> int | None:
        """Every other trial after the random ones is a neighbour of the best so far: the sampler goes for the front."""
        if len(trials) < N_RANDOM or len(trials) % 2:
            return None
        best = best_of(trials, max_utility_loss=self._limits.max_utility_loss)
        return None if best is None else best.number

    def write(self, trial: Trial, out: Path) -> EditRecord:
        """Write a trial's edit as a checkpoint with its record, and its vector beside it as `OUT-vector`.

        Raises:
            InputError: `out` exists.
            FingerprintError: the checkpoint is not the model that was measured, bit for bit.
        """
        from prosocial.editing.edits import apply_edit

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
        """Return what `trials.json` holds."""
        base = {"harm": self._examiner.base_harm, "utility": self._examiner.base_utility}
        n_unjudged = self._examiner.base_unjudged
        return sweep_document(trials, base=base, base_unjudged=n_unjudged, limits=self._limits, settings=self._settings)

    def measure(self, choice: Choice, number: int = 0) -> Trial:
        """Measure one edit; replies are drawn only where the KL leaves hope."""
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
        """Keep other processes out of the folder, and delete the vectors (dual-use) at the end."""
        with storage_errors(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        refusal = f"{self._out} should be free: another process runs a sweep there; wait for it"
        with locked(self._out / LOCK_FILE, refusal=refusal):
            try:
                yield
            finally:
                self._vectors.clear()
