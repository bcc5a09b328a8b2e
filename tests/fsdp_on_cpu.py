"""Runs a command of prosocial under FSDP in gloo processes; accelerate itself takes FSDP for accelerators only.

Started by `accelerate launch --use_fsdp` with ACCELERATE_TORCH_DEVICE=cpu: the process group is that of several
accelerators, and their memory is the CPU's.
"""

import sys
from typing import Any

from accelerate.state import DistributedType, PartialState

from prosocial.cli.main import main


def _of_accelerators(*given: Any, **named: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState._prepare_backend = _of_accelerators
    sys.exit(main(sys.argv[1:]))
