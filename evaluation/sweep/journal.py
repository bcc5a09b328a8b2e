"""The journal of a sweep: an optuna study in a file, from which an interrupted sweep resumes with the same trials."""

import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from prosocial.core.appended_rows import cut_torn_line
from prosocial.core.errors import InputError

from .trials import Trial

JOURNAL_FILE = "journal.jsonl"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
N_DRAWS = 50
N_RANDOM = 10  # trials given or drawn at random before the sampler learns from them


class Journal:
    """An optuna study whose next trial depends only on the seed and the finished trials.

    Args:
        folder: folder of `journal.jsonl`, created if missing; no other process uses it.
        settings: settings that determine the trials; a journal with other settings is rejected.
        n_objectives: number of objectives, all minimised.
        seed: seed of the sampler.

    Raises:
        InputError: the folder has the journal of a sweep with other settings; the message names the first difference.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, Any], n_objectives: int, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL_FILE
        cut_torn_line(path)  # optuna rejects a file with an incomplete last line
        for left in folder.glob(f"{JOURNAL_FILE}.lock*"):  # a killed process leaves it, and optuna waits for it forever
            left.unlink()
        self._seed = seed
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name="sweep",
            directions=["minimize"] * n_objectives,
            load_if_exists=True,
        )
        self._check_settings(folder, dict(settings))
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    @property
    def trials(self) -> list[Trial]:
        """The finished trials, in order."""
        return [Trial.from_json(trial.user_attrs["trial"]) for trial in self._ended()]

    def ask(self, *, start: Mapping[str, Any] | None = None, near: int | None = None) -> optuna.Trial:
        """Start the next trial, with the parameters `start`, as a neighbour of trial `near`, or chosen by the sampler.

        The sampler chooses parameters that are missing in `start`.
        """
        number = len(self._ended())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
            self._study.sampler = optuna.samplers.TPESampler(
                seed=self._seed * 1_000_003 + number,
                n_startup_trials=N_RANDOM,
                multivariate=True,
                group=True,  # methods have parameters of their own
            )
            chosen = dict(start or {})
            if near is not None:
                chosen = self._new_neighbour(near, random.Random(f"{self._seed}:{number}"))
            if chosen:
                self._study.sampler = optuna.samplers.PartialFixedSampler(chosen, self._study.sampler)
        return self._study.ask()

    def tell(self, suggested: optuna.Trial, trial: Trial, violations: Mapping[str, float]) -> Trial:
        """Finish a trial and return it as stored; `violations` are above 0 for each limit that it exceeds, by name."""
        row = trial.to_json()
        suggested.set_user_attr("trial", row)
        for name, violation in violations.items():
            suggested.set_constraint(name, min(violation, 1e9))
        objectives: Sequence[float] | None = trial.objectives
        if objectives is None:
            self._study.tell(suggested, state=TrialState.PRUNED)
        else:
            self._study.tell(suggested, list(objectives))
        return Trial.from_json(row)

    def _new_neighbour(self, near: int, generator: random.Random) -> dict[str, Any]:
        """Return a neighbour that was not tried yet, if one is found in a few draws."""
        ended = self._ended()
        tried = [trial.params for trial in ended]
        drawn = (neighbour(ended[near], generator) for _ in range(N_DRAWS))
        return next((chosen for chosen in drawn if chosen not in tried), neighbour(ended[near], generator))

    def _ended(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=ENDED)

    def _check_settings(self, folder: Path, settings: dict[str, Any]) -> None:
        stored = self._study.user_attrs.get("settings")
        if stored is None:
            self._study.set_user_attr("settings", settings)
            return
        require_settings(folder, stored, settings)


def require_settings(folder: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError unless a sweep in a folder has these settings; the message names the first difference."""
    differing = sorted(key for key in stored.keys() | settings.keys() if stored.get(key) != settings.get(key))
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} should have a sweep with the same settings to resume, but {key} was {stored.get(key)!r:.80} "
            f"and is now {settings.get(key)!r:.80}: give another folder, or the same settings"
        )


def neighbour(trial: FrozenTrial, generator: random.Random) -> dict[str, Any]:
    """Return a trial's parameters with one or two numbers changed: by their step, or by a sixth."""
    chosen = dict(trial.params)
    numbers = [name for name, space in trial.distributions.items() if not isinstance(space, CategoricalDistribution)]
    for name in generator.sample(numbers, min(len(numbers), generator.choice((1, 2)))):
        chosen[name] = _moved(chosen[name], trial.distributions[name], generator.choice((-1, 1)))
    return chosen


def _moved(value: float, space: Any, sign: int) -> float:
    """Return a number a little higher or lower in its range; in the other direction at the end of the range."""
    stride = max(space.step or 0.0, abs(value) / 6) if isinstance(space, IntDistribution) else space.step
    stride = round(stride) if isinstance(space, IntDistribution) else stride or max(abs(value) / 6, 1e-6)
    moved = value + sign * stride
    return moved if space.low <= moved <= space.high else min(space.high, max(space.low, value - sign * stride))
