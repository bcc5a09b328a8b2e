"""The validated model of a CoSAlign recipe: base model, prompts, and the parameters of every stage."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from prosocial.core.settings import Seed, Settings
from prosocial.evaluation.judges.requests import LabelRequest
from prosocial.steering.configs.category_registry import COSA, NEVER_ALLOWED
from prosocial.training.tuning.settings import PreferenceTuning, Tuning

from ..labelling.judges import judge_named
from ..steering.schema import LabData, LabModel
from .candidates import CandidateSource
from .config_text import ConfigWording
from .configs import DrawSettings
from .contamination import ContaminationSettings
from .error_score import ErrorWeights
from .prompts import PromptSettings
from .taxonomy import TaxonomySettings


class PromptFiles(Settings):
    """Prompts from files.

    Attributes:
        prompts: JSONL rows with `prompt` or `messages`.
        evaluation: probe sets whose prompts are excluded from training: our JSONL, or tables of public sets.
        replies: JSONL rows with `prompt` or `messages`, and the `reply` of another model; None for no such file.
    """

    prompts: Path
    evaluation: tuple[Path, ...] = Field(min_length=1)
    replies: Path | None = None


class TaxonomyNames(TaxonomySettings):
    """How prompts are clustered and how the clusters are named.

    Attributes:
        names: names given by hand, by cluster number.
        namer: `MODEL@URL` of an endpoint that names the clusters; None to use no model.
    """

    names: dict[str, str] = Field(default_factory=dict)
    namer: str | None = None


class CosalignRecipe(Settings):
    """A CoSAlign run, from prompts to a model that follows safety configs.

    Attributes:
        pipeline: "cosalign".
        name: name of the recipe.
        title: title of the report; the name if empty.
        seed: seed of every stage.
        device: where models run: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for CUDA, then MPS, then the CPU.
        dtype: dtype of the models that are trained on and drawn from; `auto` for bfloat16 where the device computes in
            it, else float32.
        model: a folder, a Hub id, or the lab's base model.
        judge: labeller of prompts and replies: `lab`, `endpoint:MODEL@URL`, or a labeller of your own.
        definitions: definition of each harm category, by name; the config texts quote it.
        pool: categories that a training config may allow; the others are held out.
    """

    pipeline: Literal["cosalign"]
    name: str
    title: str = ""
    seed: Seed = 0
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    model: str | LabModel
    data: LabData | PromptFiles
    judge: str
    definitions: dict[str, str] = Field(default_factory=lambda: dict(COSA.definitions))
    pool: tuple[str, ...] = ("discrimination", "violence", "financial_crime", "privacy")
    contamination: ContaminationSettings = ContaminationSettings()
    taxonomy: TaxonomyNames = TaxonomyNames()
    prompts: PromptSettings = PromptSettings()
    wording: ConfigWording = ConfigWording()
    configs: DrawSettings = DrawSettings()
    candidates: tuple[CandidateSource, ...] = Field(default=(CandidateSource(),), min_length=1)
    error: ErrorWeights = ErrorWeights()
    sft: Tuning = Tuning()
    dpo: PreferenceTuning = PreferenceTuning()

    @model_validator(mode="after")
    def _judge_is_known(self) -> Self:
        judge_named(self.judge, LabelRequest(self.definitions))
        return self

    @model_validator(mode="after")
    def _pool_is_defined(self) -> Self:
        for name in self.pool:
            if name == NEVER_ALLOWED or name not in self.definitions:
                known = ", ".join(known for known in self.definitions if known != NEVER_ALLOWED)
                raise ValueError(f"pool should list defined categories that a config may allow ({known}), found {name}")
        if len(set(self.pool)) != len(self.pool) or not self.pool:
            raise ValueError(f"pool should be one or more distinct names, found {list(self.pool)}")
        return self

    @model_validator(mode="after")
    def _lab_goes_with_lab(self) -> Self:
        if isinstance(self.model, LabModel) and not isinstance(self.data, LabData):
            raise ValueError("model.lab should be used with data.lab, which its tokenizer is trained on: set data.lab")
        if (self.judge == "lab") != isinstance(self.data, LabData):
            raise ValueError(
                "data.lab should have the judge lab, and data files any other judge: change one of the two"
            )
        return self
