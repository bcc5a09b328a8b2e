from .authorised import AuthorisedConfig as AuthorisedConfig
from .category_registry import COSA as COSA
from .category_registry import CategoryRegistry as CategoryRegistry
from .refusal import Reason as Reason
from .refusal import RefusedConfig as RefusedConfig
from .safety_config import NamedConfig as NamedConfig
from .safety_config import SafetyConfig as SafetyConfig
