from .method import Deltas as Deltas
from .method import Method as Method
from .method import Prepared as Prepared
from .registry import METHODS as METHODS
from .registry import choose_method as choose_method
