from .document import assemble as assemble
from .document import write_report as write_report
from .page import render_page as render_page
from .samples import choose_samples as choose_samples
from .samples import sample as sample
from .terminal import print_report as print_report
