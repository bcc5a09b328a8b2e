"""The entry point for inspect_ai, which registers the provider `prosocial`; it is imported on first use."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="prosocial")  # type: ignore[untyped-decorator]  # mypy does not follow inspect_ai
def prosocial() -> type[ModelAPI]:
    """Return the model API of bundles, for model names `prosocial/FOLDER`."""
    from .provider import BundleAPI

    return BundleAPI
