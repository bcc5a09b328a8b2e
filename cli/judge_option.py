"""What every option that takes a judge says of its forms."""

OWN = "module:Class or path/to/file.py:Class"
FORMS = f"refusal, lab, classifier:MODEL[=LABELS], endpoint:MODEL@URL, {OWN}."
