from .report_document import assemble as assemble
from .report_document import write_report as write_report
from .report_page import render_page as render_page
from .samples import choose_samples as choose_samples
from .samples import sample as sample
from .terminal import print_report as print_report
