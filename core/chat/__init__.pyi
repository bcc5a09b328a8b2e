from .messages import ROLES as ROLES
from .messages import require_messages as require_messages
from .messages import require_text as require_text
from .tokenizer import TOKENIZER_FILES as TOKENIZER_FILES
from .tokenizer import ChatTokenizer as ChatTokenizer
