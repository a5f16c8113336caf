"""A layers contract for import-linter: `package.*` means the modules of a package without its subpackages."""

from pathlib import Path

from importlinter.contracts import layers
from importlinter.domain import fields

ROOT = Path(__file__).parents[2]


class _LayerField(layers.LayerField):
    def parse(self, raw_data: str | list[str]) -> layers.Layer:
        parsed = super().parse(raw_data)
        modules = {module for layer in parsed.module_tails for module in _expand(layer)}
        return layers.Layer(modules, is_independent=parsed.is_independent)


class LayersOfModules(layers.LayersContract):
    """A layers contract in which a layer can be written as `package.*`."""

    layers = fields.ListField(subfield=_LayerField())


def _expand(layer: layers.ModuleTail) -> list[layers.ModuleTail]:
    if not layer.name.endswith(".*"):
        return [layer]
    package = layer.name.removesuffix(".*")
    folder = ROOT / package.removeprefix("hallmark.").replace(".", "/")
    return [layers.ModuleTail(f"{package}.{path.stem}") for path in folder.glob("*.py") if path.stem != "__init__"]
