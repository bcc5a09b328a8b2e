from .envelope import BrokenSignature as BrokenSignature
from .keys import SigningKey as SigningKey
from .keys import TrustedKey as TrustedKey
