# Made from ../_async/__init__.py by `make generate`; don't edit it.
