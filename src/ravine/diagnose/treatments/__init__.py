"""Remedies as changes of a freshly built program. None of them writes anything of the person's."""
