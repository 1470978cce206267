"""The Python environments of notebooks: a shared one, and each user's own packages in front of it.

This package uses only the standard library and runs on any supported Python: set-up and the start of kernels use it,
and both must work when other packages don't.
"""
