"""Help texts shared by the options that take a judge."""

OWN = "module:Class or path/to/file.py:Class"
FORMS = f"refusal, lab, classifier:MODEL[=LABELS], endpoint:MODEL@URL, {OWN}."
