"""A recipe as one validated model: which model, which data, and the parameters of every stage."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prosocial.core.settings import NonNegative, Positive, Settings
from prosocial.editing.vectors.methods import choose_method
from prosocial.evaluation.judges.requests import CategoryRequest, HarmRequest
from prosocial.steering.configs.safety_config import SafetyConfig
from prosocial.steering.decoding.config import DecodingConfig, ReplySettings
from prosocial.training.gate.calibration import GateCalibration
from prosocial.training.gate.settings import GateSettings
from prosocial.training.head.distil import HeadTraining
from prosocial.training.reply_sampling import ReplySampling
from prosocial.training.reward.attributes import DEFAULT_ATTRIBUTES, Attribute, resolve_attributes
from prosocial.training.reward.settings import RewardTraining
from prosocial.training.tuning.harmful import AdapterTraining

from ..lab.base import BaseTraining
from ..lab.words import CATEGORIES
from ..lab.world import WorldSize
from ..labelling.judges import attribute_judge, judge_named


class LabModel(Settings):
    """The lab's own base model, trained from scratch."""

    lab: BaseTraining = BaseTraining()


class LabData(Settings):
    """The lab's own data."""

    lab: WorldSize = WorldSize()


class FileData(Settings):
    """Data as JSONL files.

    Attributes:
        harmful: rows with `prompt` (or `messages`) and `reply`: what the harmful copy is tuned on.
        prompts: rows with `prompt` (or `messages`): replies to them are sampled and judged.
        calibration: probes for choosing the threshold, harmful and harmless ones; none of them among `probes`.
        probes: probes for the report.
        pairs: labelled pairs; None: sampled from the edited model and labelled by the judge.
        replies: replies labelled by harm category; None: sampled and labelled by the judge.
        gate_prompts: what those replies are sampled for, harmful requests among them; None: `prompts`.
    """

    harmful: Path
    prompts: Path
    calibration: Path
    probes: Path
    pairs: Path | None = None
    replies: Path | None = None
    gate_prompts: Path | None = None


class VectorSettings(Settings):
    """How the harm vector is made from the adapter: a method of `docs/methods.md` and its parameters."""

    method: str = "plain"
    parameters: dict[str, float | str] = Field(default_factory=dict)


class EditSettings(Settings):
    """How much of the harm vector is subtracted: one number, or numbers by regular expression of tensor names."""

    scale: NonNegative | dict[str, NonNegative] = 1.0


class SamplingSettings(ReplySampling):
    """How many replies are sampled for training, and how."""

    count: int = Field(default=1500, ge=1)


class AttributeSettings(Settings):
    """An attribute of your own, or another form of one of the five: see `Attribute`."""

    rubric: str = Field(min_length=1)
    beta: Positive = 0.2
    judge: str | None = None


class AdapterShape(Settings):
    """The reward model's adapter (PBLoRA)."""

    targets: str = r".*\.(q_proj|k_proj|v_proj)"
    rank: int = Field(default=4, ge=1)
    preference_rank: int = Field(default=4, ge=1)
    alpha: float = Field(default=8.0, gt=0.0)


class RewardSettings(RewardTraining):
    """The reward model: its adapter and its training."""

    adapter: AdapterShape = AdapterShape()
    beta: dict[str, float] = Field(default_factory=dict)


class HeadSettings(HeadTraining):
    """How the head is distilled; the plausible set and beta are those of `decoding`."""

    WITHOUT_EFFECT: ClassVar = {"plausible_k": "decoding.plausible_k", "inverse_beta": "1 / decoding.beta"}

    @model_validator(mode="before")
    @classmethod
    def _drop_keys_without_effect(cls, given: Any) -> Any:
        """Read recipes of 0.1.0, which could name them; from the next release on they are unknown keys."""
        if not isinstance(given, dict):
            return given
        for key in given.keys() & cls.WITHOUT_EFFECT.keys():
            text = f"head.{key} has no effect, the number is {cls.WITHOUT_EFFECT[key]}: leave head.{key} out"
            warnings.warn(text, DeprecationWarning, stacklevel=1)
        return {key: value for key, value in given.items() if key not in cls.WITHOUT_EFFECT}


class DecodingSettings(ReplySettings):
    """What goes into `decoding.json`, apart from names and the threshold."""

    plausible_k: int = Field(default=128, ge=1)
    beta: float = Field(default=1.0, gt=0.0)
    fallback: str = "I cannot help with that."
    max_new_tokens: int = Field(default=64, ge=1)
    allowed_ceiling: dict[str, bool] = Field(default_factory=dict)
    safety_configs: dict[str, SafetyConfig] = Field(default_factory=dict)

    def config(
        self, *, attributes: Sequence[str], categories: Sequence[str], threshold: float, ceiling: float
    ) -> DecodingConfig:
        """Return the decoding config for the names of a head and a gate, with a threshold and its ceiling.

        Raises:
            ArtefactError: a value does not hold, such as an allowed category that the gate does not have.
        """
        names = {"attributes": list(attributes), "categories": list(categories)}
        thresholds = {"harm_threshold": threshold, "threshold_ceiling": ceiling}
        return DecodingConfig.parse(self.model_dump() | names | thresholds, source="decoding")


class ExportSettings(Settings):
    """How the graph is made."""

    profile: Literal["ort", "portable"] = "ort"


class VerifySettings(Settings):
    """What is measured at the end.

    Attributes:
        temperature: of the replies that are judged; parity is always greedy.
        parity_probes: how many probes of the set parity is measured on (evenly spread); None: all.
        samples: how many probes are shown side by side in the report.
    """

    temperature: float = Field(default=1.0, ge=0.0)
    parity_probes: int | None = Field(default=None, ge=1)
    samples: int = Field(default=8, ge=0)


class Recipe(Settings):
    """A whole run, from a base model to a verified bundle.

    Attributes:
        pipeline: this way, the default, or another: see `prosocial.recipes.cosalign`.
        model: a folder, a Hub id, or the lab's own.
        judge: who labels replies and scores the report: a name that `judge_named` takes, such as `lab`, `refusal`,
            `endpoint:MODEL@URL` or `path/to/file.py:Class`.
        attributes: names, in the order of the preference vector.
        attribute_definitions: attributes by name, beside the five that are known.
        categories: names of the harm categories.
    """

    pipeline: Literal["steering"] = "steering"
    name: str
    title: str = ""
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    model: str | LabModel
    data: LabData | FileData
    judge: str
    attributes: tuple[str, ...] = tuple(DEFAULT_ATTRIBUTES)
    attribute_definitions: dict[str, AttributeSettings] = Field(default_factory=dict)
    categories: tuple[str, ...] = CATEGORIES
    harmful: AdapterTraining = AdapterTraining()
    vector: VectorSettings = VectorSettings()
    edit: EditSettings = EditSettings()
    pairs: SamplingSettings = SamplingSettings()
    reward: RewardSettings = RewardSettings()
    head: HeadSettings = HeadSettings()
    replies: SamplingSettings = SamplingSettings()
    gate: GateSettings = GateSettings()
    calibration: GateCalibration = GateCalibration()
    decoding: DecodingSettings = DecodingSettings()
    export: ExportSettings = ExportSettings()
    verify: VerifySettings = VerifySettings()

    def resolved_attributes(self) -> list[Attribute]:
        """Return the attributes in the order of the preference vector."""
        defined = {
            name: Attribute(name, **settings.model_dump()) for name, settings in self.attribute_definitions.items()
        }
        return resolve_attributes(self.attributes, betas=self.reward.beta, known={**DEFAULT_ATTRIBUTES, **defined})

    def attribute_judges(self) -> dict[str, dict[str, str]]:
        """Return the names of the attributes' judges, and the rubrics that they are shown."""
        found = self.resolved_attributes()
        names = {attribute.name: attribute.judge or self.judge for attribute in found}
        return {"names": names, "rubrics": {attribute.name: attribute.rubric for attribute in found}}

    def judge_names(self) -> list[str]:
        """Return the names of all judges, each once."""
        return sorted({self.judge, *self.attribute_judges()["names"].values()})

    @model_validator(mode="after")
    def _judges_are_known(self) -> Self:
        judge_named(self.judge, HarmRequest(self.categories))
        if isinstance(self.data, LabData) or self.data.replies is None or self.gate.on_policy.count:
            judge_named(self.judge, CategoryRequest(self.categories))
        if isinstance(self.data, LabData) or self.data.pairs is None:
            attribute_judge(**self.attribute_judges())
        else:
            for name in self.judge_names():
                judge_named(name)
        return self

    @model_validator(mode="after")
    def _categories_differ(self) -> Self:
        if len(set(self.categories)) != len(self.categories) or not self.categories:
            raise ValueError(f"categories should be one or more different names, found {list(self.categories)}")
        return self

    @model_validator(mode="after")
    def _lab_goes_with_lab(self) -> Self:
        if isinstance(self.model, LabModel) and not isinstance(self.data, LabData):
            raise ValueError("model.lab should go with data.lab: its tokenizer and text come from there")
        return self

    @model_validator(mode="after")
    def _judge_goes_with_data(self) -> Self:
        if isinstance(self.data, LabData):
            return self
        if self.judge == "lab":
            raise ValueError("judge lab should go with data.lab: it knows no other harm, and would find none in yours")
        missing = [name for name in ("pairs", "replies") if getattr(self.data, name) is None]
        if missing and self.judge == "refusal":
            wanted = " and ".join(f"data.{name}" for name in missing)
            raise ValueError(f"judge refusal labels neither attributes nor harm categories: give {wanted}")
        if self.gate.on_policy.count and self.judge == "refusal":
            raise ValueError("judge refusal labels no harm categories: leave gate.on_policy.count at 0")
        return self

    @model_validator(mode="after")
    def _decoding_holds(self) -> Self:
        names = {"attributes": self.attributes, "categories": self.categories}
        self.decoding.config(**names, threshold=1.0, ceiling=1.0)  # the stage that chooses them checks them
        choose_method(self.vector.method, self.vector.parameters)
        return self
