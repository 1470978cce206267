"""The Python that notebooks run: the environment behind it, a person's own packages before it.

Standard library only, and importable by whatever Python there is: set-up and the start of kernels use it, which
have to work when packages don't.
"""
