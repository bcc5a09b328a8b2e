from .bundle_parity import verify_bundle as verify_bundle
from .parity.engines import ParityEngine as ParityEngine
from .parity.gates import ParityGates as ParityGates
from .parity.gates import Verdict as Verdict
from .parity.measure import measure_parity as measure_parity
from .parity.report import ParityReport as ParityReport
