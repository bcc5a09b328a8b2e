from .agreement import check_agreement as check_agreement
from .trace import trace_graph as trace_graph
