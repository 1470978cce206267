# Made from ../_async/__init__.py by tools/unasync.py. Change that file, then run: python tools/unasync.py
