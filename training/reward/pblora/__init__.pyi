from .layer import PBLoRALinear as PBLoRALinear
from .preference import preference_vector as preference_vector
from .tuner import PBLoRAConfig as PBLoRAConfig
from .tuner import PBLoRAModel as PBLoRAModel
from .tuner import use_preference as use_preference
