from .conversion import convert_gguf as convert_gguf
from .header import GgufHeader as GgufHeader
from .header import read_gguf_header as read_gguf_header
from .record import ConversionRecord as ConversionRecord
