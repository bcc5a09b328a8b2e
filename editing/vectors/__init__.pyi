from .description import VectorDescription as VectorDescription
from .folder import VectorFolder as VectorFolder
from .input_moments import InputMoments as InputMoments
from .input_moments import collect_input_moments as collect_input_moments
from .making.adapter_source import vector_from_adapter as vector_from_adapter
from .making.checkpoint_source import vector_from_checkpoints as vector_from_checkpoints
from .making.parents import vector_from_runs as vector_from_runs
from .vector import HarmVector as HarmVector
