"""Import paths of 0.1.0 that moved in 0.2.0; the old paths work until 0.3.0 and give a DeprecationWarning."""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

# Old module path to new one. An entry for a package covers all modules in it; the longest matching entry applies.
MODULES = {
    "verify.cosa_score.rubrics": "evaluation.judges.cosa_rubrics",
    "editing.errors": "core.errors",
    "editing.files": "core.files",
    "editing.settings": "core.settings",
    "editing.protocols": "core.protocols",
    "editing.preferences": "core.preferences",
    "editing.noise": "core.noise",
    "editing.cores": "core.cores",
    "editing.chat": "core.chat",
    "editing.chat_endpoint": "core.chat_endpoint",
    "editing.resumable": "core.resumable",
    "editing.batches": "core.batches",
    "export.signing": "core.signing",
    "editing.fingerprint": "editing.checkpoints.fingerprint",
    "editing.vectors.adapter_source": "editing.vectors.making.adapter_source",
    "editing.vectors.base": "editing.vectors.making.base",
    "editing.vectors.build": "editing.vectors.making.build",
    "editing.vectors.checkpoint_source": "editing.vectors.making.checkpoint_source",
    "editing.vectors.direction": "editing.vectors.making.direction",
    "editing.vectors.parents": "editing.vectors.making.parents",
    "editing.vectors.runs": "editing.vectors.making.runs",
    "editing.vectors.shaping": "editing.vectors.making.shaping",
    "editing.vectors.vector_source": "editing.vectors.making.vector_source",
    "editing.vectors.writing": "editing.vectors.making.writing",
    "editing.head.module": "steering.head",
    "editing.gate.module": "steering.gate",
    "export.lexicographic": "steering.lexicographic",
    "export.backbone": "steering.backbone",
    "export.steered": "steering.steered_model",
    "export.torch_engine": "steering.torch_engine",
    "export.configs": "steering.configs",
    "export.configs.registry": "steering.configs.category_registry",
    "export.configs.authorisation": "steering.authorisation.authorisation",
    "export.configs.delegation": "steering.authorisation.delegation",
    "export.configs.statements": "steering.authorisation.statements",
    "export.configs.trust": "steering.authorisation.trust",
    "export.configs.audit_log": "steering.audit_log.log",
    "export.configs.log_events": "steering.audit_log.events",
    "export.decoding": "steering.decoding.config",
    "export.decoding_loop": "steering.decoding.loop",
    "export.steering": "steering.decoding.controls",
    "export.engine": "steering.decoding.engine",
    "export.draft": "steering.decoding.draft",
    "export.reply": "steering.decoding.reply",
    "export.reply_text": "steering.decoding.reply_text",
    "export.requests": "steering.decoding.requests",
    "export.sampling": "steering.decoding.sampling",
    "export.phrases": "steering.decoding.phrases",
    "export.prefix": "steering.decoding.prefix",
    "export.streaming": "steering.decoding.streaming",
    "editing.reward": "training.reward",
    "editing.head": "training.head",
    "editing.gate": "training.gate",
    "editing.tuning": "training.tuning",
    "export.manifest": "export.bundle_files.manifest",
    "export.card": "export.bundle_files.card",
    "export.precision": "export.bundle_files.precision",
    "export.genai": "export.bundle_files.genai_config",
    "export.session": "export.runtime.session",
    "export.bundle": "export.runtime.bundle",
    "export.guided": "evaluation.guided",
    "verify.probes": "evaluation.probes.probe",
    "verify.probe_sets": "evaluation.probes",
    "verify.outcomes": "evaluation.outcomes.outcome",
    "verify.redaction": "evaluation.outcomes.redaction",
    "verify.metrics": "evaluation.comparison.metrics",
    "verify.comparison": "evaluation.comparison.report",
    "verify.preferences": "evaluation.comparison.preferences",
    "verify.model_comparison": "evaluation.model_comparison",
    "verify.judges": "evaluation.judges",
    "verify.statistics": "evaluation.statistics",
    "verify.systems": "evaluation.sampling.systems",
    "verify.sampling": "evaluation.sampling",
    "verify.report": "evaluation.report",
    "verify.report.document": "evaluation.report.report_document",
    "verify.report.page": "evaluation.report.report_page",
    "verify.sweep": "evaluation.sweep",
    "verify.sweep.document": "evaluation.sweep.sweep_document",
    "verify.sweep.page": "evaluation.sweep.sweep_page",
    "verify.steering": "evaluation.steering_scores",
    "verify.steering.document": "evaluation.steering_scores.steering_scores_document",
    "verify.steering.page": "evaluation.steering_scores.steering_scores_page",
    "verify.cosa_score": "evaluation.cosa_score",
    "verify.cosa_score.document": "evaluation.cosa_score.cosa_score_document",
    "verify.cosa_score.page": "evaluation.cosa_score.cosa_score_page",
    "verify.audit.document": "verify.audit.audit_document",
    "verify.audit.page": "verify.audit.audit_page",
    "verify.parity.document": "verify.parity.parity_document",
    "verify.parity.page": "verify.parity.parity_page",
    "verify.gate": "evaluation.gate",
    "verify.inspect_ai": "evaluation.inspect_ai",
    "recipes.stage": "recipes.workflow.stage",
    "recipes.store": "recipes.workflow.store",
    "recipes.plan": "recipes.workflow.plan",
    "recipes.progress": "recipes.workflow.progress",
    "recipes.resources": "recipes.workflow.resources",
    "recipes.code_version": "recipes.workflow.code_version",
    "recipes.runner": "recipes.workflow.runner",
    "recipes.loading": "recipes.reading.loading",
    "recipes.overrides": "recipes.reading.overrides",
    "recipes.yaml_values": "core.yaml_values",
    "recipes.schema": "recipes.steering.schema",
    "recipes.reward_training": "recipes.steering.reward_training",
    "recipes.estimates": "recipes.steering.estimates",
    "recipes.stages": "recipes.steering",
    "recipes.stages.cosalign": "recipes.cosalign.stages",
    "recipes.stages.cosalign_tuning": "recipes.cosalign.tuning_stage",
}
# Old package to the public names that left it, each with the package that exports it now (`folder:Name` if renamed).
NAMES = {
    "evaluation.cosa_score": {
        "Verdict": "evaluation.cosa_score:CosaVerdict",
        "compliance_rubric": "evaluation.judges",
        "harm_set_rubric": "evaluation.judges",
    },
    "editing": {
        "ArtefactError": "core",
        "ChatTokenizer": "core",
        "CompactHead": "steering",
        "FingerprintError": "core",
        "GumbelNoise": "core",
        "HarmGate": "steering",
        "InputError": "core",
        "Judge": "core",
        "Judgement": "core",
        "Message": "core",
        "MissingExtraError": "core",
        "ProsocialError": "core",
        "StorageError": "core",
        "UnknownNameError": "core",
    },
    "export": {
        "DecodingConfig": "steering",
        "GateEvent": "steering",
        "PlainEngine": "steering",
        "Reply": "steering",
        "ReplyStream": "steering",
        "SafetyConfig": "steering",
        "Sampling": "steering",
        "SteeredEngine": "steering",
        "SteeredModel": "steering",
        "Steering": "steering",
        "assemble_steered": "steering",
        "generate": "steering",
        "preference_vector": "steering",
        "stream": "steering",
    },
    "steering.configs": {
        "AuditLog": "steering",
        "LogReport": "steering",
        "TrustStore": "steering",
        "authorise": "steering",
        "check_log": "steering",
        "sign_config": "steering",
    },
    "training.gate": {
        "HarmGate": "steering",
    },
    "training.head": {
        "CompactHead": "steering",
    },
    "verify": {
        "ComparisonReport": "evaluation",
        "Interval": "evaluation",
        "Outcome": "evaluation",
        "PreferenceEffect": "evaluation",
        "Probe": "evaluation",
        "RefusalJudge": "evaluation",
        "Verdict": "verify:ParityVerdict",
        "choose_samples": "evaluation",
        "compare": "evaluation",
        "judge_named": "evaluation",
        "judge_replies": "evaluation",
        "open_system": "evaluation",
        "preference_effects": "evaluation",
        "print_report": "evaluation",
        "read_probes": "evaluation",
        "register_judge": "evaluation",
        "write_probes": "evaluation",
        "write_report": "evaluation",
    },
    "verify.parity": {
        "Verdict": "verify.parity:ParityVerdict",
    },
}


def announce_moves() -> None:
    """Install the import hook that redirects old paths to new ones."""
    sys.meta_path.insert(0, _MovedModules())


def new_path(old: str) -> str | None:
    """Return the new path of a module of 0.1.0; None if it has not moved.

    Examples:
        >>> new_path("prosocial.editing.errors")
        'prosocial.core.errors'
    """
    words = old.split(".")[1:]
    for n_words in range(len(words), 0, -1):
        home = MODULES.get(".".join(words[:n_words]))
        if home is not None:
            return ".".join(["prosocial", home, *words[n_words:]])
    return None


def with_moved_names(package: str, own: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a module `__getattr__` for a package that also resolves the public names that moved to another package.

    Args:
        package: import name of the package.
        own: `__getattr__` for the names that the package still exports.
    """
    moved = NAMES[package.removeprefix("prosocial.")]

    def public_name(name: str) -> Any:
        if name not in moved:
            return own(name)
        home, _, new_name = f"prosocial.{moved[name]}".partition(":")
        _warn(f"{package}.{name}", f"{home}.{new_name or name}")
        return getattr(import_module(home), new_name or name)

    return public_name


class _MovedModules(MetaPathFinder, Loader):
    """Imports modules by their old paths, before Python's own finders load the same file as a second module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a module spec for an old path, None for any other."""
        is_moved = fullname.startswith("prosocial.") and new_path(fullname) is not None
        return spec_from_loader(fullname, self) if is_moved else None

    def exec_module(self, module: ModuleType) -> None:
        """Import the module at the new path and register it under the old path too."""
        old = module.__name__
        new = str(new_path(old))
        _warn(old, new)
        sys.modules[old] = import_module(new)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; 0.3.0 removes the old path", DeprecationWarning, stacklevel=3)
