"""Find the file that a model reference means: a local file, or a version in the model registry."""

from pathlib import Path

_URI = "models:/"


def is_file(model: str) -> bool:
    """Return whether a reference is a path: an existing file, or text that ends in `.onnx` or has a slash."""
    return not model.startswith(_URI) and (Path(model).is_file() or model.endswith(".onnx") or "/" in model)


def find(model: str) -> Path:
    """Return the file of a model, downloaded from the registry if necessary.

    Args:
        model: a path, a registered name (its champion), `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        InputError: the registry has no such model.
        DamagedError: the registry's file is not the one that was registered.
    """
    if is_file(model):
        return Path(model)
    # Imported here: a local file needs no MLflow, which takes seconds to import.
    from hallmark.tasks.tracking.registry import model_registry

    return model_registry.fetch(model)
