from .messages import ROLES as ROLES
from .messages import require_messages as require_messages
from .tokenizer import TOKENIZER_FILES as TOKENIZER_FILES
from .tokenizer import ChatTokenizer as ChatTokenizer
