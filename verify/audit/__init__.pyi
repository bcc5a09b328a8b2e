from .audit_document import AuditReport as AuditReport
from .auditing import audit_model as audit_model
from .terminal import print_audit as print_audit
