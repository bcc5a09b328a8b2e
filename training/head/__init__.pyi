from .distance import head_distance as head_distance
from .distil import DistilTraining as DistilTraining
from .from_reward import DistilledHead as DistilledHead
from .states import collect_states as collect_states
