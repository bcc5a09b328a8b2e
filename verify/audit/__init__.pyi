from .auditing import audit_model as audit_model
from .document import AuditReport as AuditReport
from .terminal import print_audit as print_audit
