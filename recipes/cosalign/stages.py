"""CoSAlign's data stages: prompts, clusters, safety configs, candidate replies, labels and preference pairs."""

from typing import Any

from prosocial.core.files import read_jsonl, write_jsonl
from prosocial.editing.checkpoints import resolve_model
from prosocial.evaluation.judges.requests import LabelRequest

from ..labelling.judges import judge_inputs, judge_named
from ..labelling.labellers import Labeller
from ..workflow.stage import Outside, Source, Stage, StageContext, Upstream
from .schema import CosalignRecipe, PromptFiles

GIVEN = "given-replies"


def prompts_stage(recipe: CosalignRecipe) -> Stage:
    """Return the stage that selects and labels the training prompts."""
    data: dict[str, Source] = {
        "prompts": Upstream("data", "gate_prompts.jsonl"),
        "evaluation-0": Upstream("data", "probes.jsonl"),
    }
    if isinstance(recipe.data, PromptFiles):
        data = {"prompts": Outside(recipe.data.prompts)}
        data |= {f"evaluation-{at}": Outside(path) for at, path in enumerate(recipe.data.evaluation)}
    return Stage(
        name="prompts",
        title="select prompts that are in no evaluation set",
        run=_select_prompts,
        inputs=data | judge_inputs([recipe.judge]),
        parameters=_judge(recipe)
        | {"contamination": recipe.contamination.model_dump(mode="json"), "pool": list(recipe.pool)}
        | {"prompts": recipe.prompts.model_dump(mode="json")},
        seed=recipe.seed,
    )


def data_stages(recipe: CosalignRecipe, base: Source) -> list[Stage]:
    """Return the stages taxonomy, configs, candidates, labels and preferences."""
    prompts, configs, pool = Upstream("prompts"), Upstream("configs"), list(recipe.pool)
    others = {
        source.model: Outside(resolve_model(source.model)) for source in recipe.candidates if source.model != "base"
    }
    if isinstance(recipe.data, PromptFiles) and recipe.data.replies is not None:
        others[GIVEN] = Outside(recipe.data.replies)
    return [
        Stage(
            name="taxonomy",
            title="cluster the prompts",
            run=_cluster,
            inputs={"prompts": prompts},
            parameters=recipe.taxonomy.model_dump(mode="json"),
            seed=recipe.seed,
        ),
        Stage(
            name="configs",
            title="draw safety configs",
            run=_draw,
            inputs={"prompts": prompts},
            parameters={"pool": pool, "definitions": recipe.definitions}
            | {"wording": recipe.wording.model_dump(mode="json"), "configs": recipe.configs.model_dump(mode="json")},
            seed=recipe.seed,
        ),
        Stage(
            name="candidates",
            title="sample replies under the configs",
            run=_sample,
            inputs={"prompts": prompts, "configs": configs, "base": base} | others,
            parameters={"candidates": [source.model_dump(mode="json") for source in recipe.candidates]}
            | {"dtype": recipe.dtype},
            seed=recipe.seed,
            dual_use=True,
        ),
        Stage(
            name="labels",
            title="label the replies",
            run=_label,
            inputs={"prompts": prompts, "candidates": Upstream("candidates"), **judge_inputs([recipe.judge])},
            parameters=_judge(recipe),
            seed=recipe.seed,
            dual_use=True,
        ),
        Stage(
            name="preferences",
            title="pair replies by error score",
            run=_pair,
            inputs={"prompts": prompts, "configs": configs, "labels": Upstream("labels")},
            parameters={"pool": pool, "error": recipe.error.model_dump(mode="json")},
            seed=recipe.seed,
            dual_use=True,
        ),
    ]


def _judge(recipe: CosalignRecipe) -> dict[str, Any]:
    return {"judge": recipe.judge, "definitions": recipe.definitions}


def _labeller(context: StageContext) -> Labeller:
    labeller: Labeller = judge_named(context.parameters["judge"], LabelRequest(context.parameters["definitions"]))
    return labeller


def _select_prompts(context: StageContext) -> str:
    from prosocial.evaluation.probes.loading import load_probes

    from .contamination import ContaminationSettings
    from .prompts import (
        PromptSettings,
        choose_prompts,
        distinct_prompts,
        drop_contaminated,
        label_prompts,
        read_prompts,
        request_text,
    )
    from .rows import count_summary, write_counts

    parameters, inputs = context.parameters, context.inputs
    given = read_prompts(inputs["prompts"])
    sets = [path for name, path in inputs.items() if name.startswith("evaluation-")]
    evaluation = [probe.text for path in sets for probe in load_probes(path)]
    distinct = distinct_prompts(given)
    clean, duplicates = drop_contaminated(distinct, evaluation, ContaminationSettings(**parameters["contamination"]))
    write_jsonl(
        context.out / "duplicates.jsonl",
        [
            {"prompt": request_text(distinct[one.index]), "evaluation": evaluation[one.other]}
            | {"kind": one.kind, "similarity": round(one.similarity, 3)}
            for one in duplicates
        ],
    )
    context.progress.start(len(clean), "label the prompts")
    labelled = label_prompts(
        clean, _labeller(context), out=context.scratch / "labelled.jsonl", on_row=context.progress.advance
    )
    chosen, left_out = choose_prompts(labelled, parameters["pool"], PromptSettings(**parameters["prompts"]))
    counts = {"given": len(given), "distinct": len(distinct), "evaluation_prompts": len(evaluation)}
    counts |= {f"{kind}_duplicates": sum(one.kind == kind for one in duplicates) for kind in ("exact", "near")}
    counts |= dict(left_out) | {"chosen": len(chosen)}
    write_jsonl(context.out / "prompts.jsonl", chosen)
    write_counts(context.out, counts)
    return count_summary(counts)


def _cluster(context: StageContext) -> str:
    from prosocial.core.chat_endpoint import ChatEndpoint

    from .embedding import tfidf_embedding
    from .naming import name_by_hand, name_by_model
    from .prompts import request_text
    from .rows import count_summary, write_counts
    from .schema import TaxonomyNames
    from .taxonomy import NOISE, find_clusters

    settings = TaxonomyNames(**context.parameters)
    texts = [request_text(row) for row in read_jsonl(context.inputs["prompts"] / "prompts.jsonl")]
    embed = tfidf_embedding(dimensions=settings.dimensions, seed=context.seed)
    clusters, n_unreadable = find_clusters(texts, embed, settings), 0
    if settings.namer is not None:
        clusters, n_unreadable = name_by_model(clusters, ChatEndpoint.named(settings.namer))
    clusters = name_by_hand(clusters, settings.names) if settings.names else clusters
    noise = sum(len(cluster.members) for cluster in clusters if cluster.label == NOISE)
    counts = {"prompts": len(texts), "clusters": sum(cluster.label != NOISE for cluster in clusters)}
    counts |= {"in_no_cluster": noise, "named": sum(bool(cluster.name) for cluster in clusters)}
    write_jsonl(context.out / "clusters.jsonl", [cluster.to_json() for cluster in clusters])
    write_counts(context.out, counts | {"unreadable": n_unreadable})
    return count_summary(counts)


def _draw(context: StageContext) -> str:
    from .config_text import ConfigWording
    from .configs import DrawSettings, draw_configs
    from .rows import count_summary, write_counts

    parameters = context.parameters
    rows = [
        row
        for prompt in read_jsonl(context.inputs["prompts"] / "prompts.jsonl")
        for row in draw_configs(
            prompt,
            DrawSettings(**parameters["configs"]),
            pool=parameters["pool"],
            definitions=parameters["definitions"],
            wording=ConfigWording(**parameters["wording"]),
            seed=context.seed,
        )
    ]
    counts = {purpose: sum(row["purpose"] == purpose for row in rows) for purpose in ("reply", "pair")}
    counts |= {"different_masks": len({tuple(row["allowed"]) for row in rows})}
    write_jsonl(context.out / "configs.jsonl", rows)
    write_counts(context.out, counts)
    return count_summary(counts)


def _sample(context: StageContext) -> str:
    from .candidates import CandidateSource, candidate_requests, given_candidates, sample_candidates
    from .rows import count_summary, write_counts

    prompts, configs = (read_jsonl(context.inputs[part] / f"{part}.jsonl") for part in ("prompts", "configs"))
    rows, counts = given_candidates(context.inputs.get(GIVEN), prompts)
    for number, given in enumerate(context.parameters["candidates"]):
        source = CandidateSource(**given)
        requests = candidate_requests(source, prompts, configs)
        context.progress.start(len(requests), f"sample {len(requests)} replies of {source.model}")
        sampled = sample_candidates(
            context.inputs[source.model],
            requests,
            source,
            placement=context.placement,
            seed=context.seed + number,
            out=context.scratch / f"candidates-{number}.jsonl",
            on_replies=context.progress.advance,
        )
        rows += [row | {"source": number} for row in sampled]
        counts[f"of_source_{number}"] = len(sampled)
    write_jsonl(context.out / "candidates.jsonl", rows)
    write_counts(context.out, counts)
    return count_summary(counts)


def _label(context: StageContext) -> str:
    from .reply_labels import label_candidates
    from .rows import count_summary, write_counts

    prompts = read_jsonl(context.inputs["prompts"] / "prompts.jsonl")
    candidates = read_jsonl(context.inputs["candidates"] / "candidates.jsonl")
    context.progress.start(len({(row["prompt"], row["reply"]) for row in candidates}), "label the replies")
    labelled, counts = label_candidates(
        candidates,
        prompts,
        _labeller(context),
        out=context.scratch / "labels.jsonl",
        on_row=context.progress.advance,
    )
    write_jsonl(context.out / "labels.jsonl", labelled)
    write_counts(context.out, counts)
    return count_summary(counts)


def _pair(context: StageContext) -> str:
    from prosocial.core.errors import InputError

    from .error_score import ErrorWeights
    from .preferences import chosen_rows, make_preferences
    from .rows import count_summary, write_counts

    prompts, configs, labels = (
        read_jsonl(context.inputs[part] / f"{part}.jsonl") for part in ("prompts", "configs", "labels")
    )
    rows, counts = make_preferences(
        prompts,
        configs,
        labels,
        pool=context.parameters["pool"],
        weights=ErrorWeights(**context.parameters["error"]),
        seed=context.seed,
    )
    if not rows:
        raise InputError(
            f"the replies should give at least one pair, found none ({count_summary(counts)}): sample more replies"
        )
    chosen = chosen_rows(rows)
    write_jsonl(context.out / "preferences.jsonl", rows)
    write_jsonl(context.out / "chosen.jsonl", chosen)
    counts["chosen"] = len(chosen)
    write_counts(context.out, counts)
    return count_summary(counts)
