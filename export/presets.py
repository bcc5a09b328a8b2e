"""Presets for clients of the raw graph: one adapter file per named safety config (torch-free).

onnxruntime-genai silently ignores `set_model_input` for an input that has a default, but it applies an adapter, as
every client of ONNX Runtime does (`RunOptions.add_active_adapter`). A preset contains the values of the four control
inputs; the ceilings, which are constants of the graph, limit them like any other input. It does not contain the safety
config's text, which the client must put into the system prompt.
"""

from pathlib import Path

from prosocial.core.files import storage_errors
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering, control_arrays

from .runtime.session import import_runtime

PRESET_FOLDER = "presets"
SUFFIX = ".onnx_adapter"


def write_presets(folder: Path, config: DecodingConfig) -> list[Path]:
    """Write `presets/NAME.onnx_adapter` for each safety config into a bundle and return the paths.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        StorageError: a file cannot be written.
    """
    runtime = import_runtime()
    written = []
    for name in sorted(config.safety_configs):
        controls = control_arrays(config, [Steering(safety_config=name)]).as_inputs()
        adapter = runtime.AdapterFormat()
        adapter.set_adapter_version(1)
        adapter.set_model_version(1)
        adapter.set_parameters({at: runtime.OrtValue.ortvalue_from_numpy(value) for at, value in controls.items()})
        path = folder / PRESET_FOLDER / f"{name}{SUFFIX}"
        with storage_errors(folder):
            path.parent.mkdir(exist_ok=True)
            adapter.export_adapter(str(path))
        written.append(path)
    return written
