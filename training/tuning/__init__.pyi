from .harmful import train_adapter as train_adapter
from .preference import EncodedPreference as EncodedPreference
from .preference_tuning import tune_on_preferences as tune_on_preferences
from .settings import AdapterTraining as AdapterTraining
from .settings import LoraShape as LoraShape
from .settings import PreferenceTuning as PreferenceTuning
from .settings import Tuning as Tuning
from .supervised import tune_on_replies as tune_on_replies
