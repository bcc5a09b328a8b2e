from .distance import head_distance as head_distance
from .from_reward import DistilledHead as DistilledHead
from .settings import DistilTraining as DistilTraining
from .states import collect_states as collect_states
