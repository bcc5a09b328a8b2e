"""The pico worlds of these tests."""

from ..pico_models import llama_bundle as llama_bundle
from ..pico_models import llama_folder as llama_folder
from ..pico_models import pico as pico
from ..pico_models import plain_bundle as plain_bundle
from ..pico_models import portable_bundle as portable_bundle
