"""What inspect_ai finds by our entry point: the name `prosocial`. The provider is imported when a model asks for it."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="prosocial")  # type: ignore[untyped-decorator]  # mypy does not follow inspect_ai
def prosocial() -> type[ModelAPI]:
    """Return the provider of bundles: `prosocial/FOLDER` names one."""
    from .provider import BundleAPI

    return BundleAPI
