from .calibrating import calibrate_gate as calibrate_gate
from .calibration import measure_calibration as measure_calibration
from .reliability import Reliability as Reliability
from .reliability import measure_reliability as measure_reliability
from .threshold import LeakTest as LeakTest
from .threshold import choose_threshold as choose_threshold
from .threshold_choice import ThresholdChoice as ThresholdChoice
