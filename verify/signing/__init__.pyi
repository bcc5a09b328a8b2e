from .chain import ChainReport as ChainReport
from .chain import check_chain as check_chain
from .sealing import sign_folder as sign_folder
from .terminal import print_chain as print_chain
