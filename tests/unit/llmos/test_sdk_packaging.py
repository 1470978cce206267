"""The package's dependencies and imports for programs that only use the SDK."""

from __future__ import annotations

import json
import subprocess
import sys

from tools import unasync

BARE = """
import sys
from importlib.metadata import packages_distributions
ALLOWED = {"httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "certifi", "pydantic", "pydantic_core",
           "annotated_types", "typing_extensions", "typing_inspection", "yaml", "_yaml", "llmos"}
OTHERS = set(packages_distributions()) - ALLOWED
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(f"not installed: {name}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_the_synchronous_client_is_what_would_be_generated_now():
    assert unasync.files() == {path: path.read_text() for path in unasync.TARGET.glob("*.py")}, "run: make generate"


def test_nothing_but_httpx_pydantic_and_yaml_is_needed():
    code = (
        BARE
        + """
import pkgutil, importlib, llmos
for module in pkgutil.walk_packages(llmos.__path__, "llmos."):
    importlib.import_module(module.name)
assert not any(name.partition(".")[0] == "llmos_hub" for name in sys.modules)
from llmos.cli import main
assert main(["explain", "modelservice"]) == 0
try:
    llmos.Client("http://127.0.0.1:1/services/llmos", "t").openai()
except llmos.errors.Unsupported as error:
    assert "pip install openai" in str(error)
else:
    raise SystemExit("openai was there")
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "ModelService" in done.stdout


def test_importing_llmos_loads_nothing_heavy():
    code = "import sys, llmos; print([n for n in ('httpx', 'pydantic', 'yaml', 'openai') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_only_the_parser():
    code = "import json, sys; from llmos.cli import main; main(['--help']); json.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = json.loads(done.stderr)
    own = {name for name in loaded if name.partition(".")[0] == "llmos"}
    assert own == {"llmos", "llmos.cli", "llmos.cli.entry", "llmos.cli.parser", "llmos.errors"}
    assert not {"asyncio", "httpx", "pydantic", "ssl", "yaml"} & set(loaded)
    assert "usage: llmos VERB" in done.stdout
