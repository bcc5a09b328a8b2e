from .replies import LabelledReply as LabelledReply
from .replies import label_reply as label_reply
from .replies import read_replies as read_replies
from .replies import write_replies as write_replies
from .states import collect_gate_states as collect_gate_states
from .training import GateTraining as GateTraining
from .training import train_gate as train_gate
