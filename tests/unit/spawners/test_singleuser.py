"""How notebook servers are set up before they start."""

import json
import os
import subprocess
import sys

ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"
SCRIPT = f"""
import json, sys, types
sys.modules["jupyterhub.singleuser"] = types.SimpleNamespace(main=lambda: None)
from llmos_spawners.singleuser import main
main()
from jupyterlab_server.config import get_page_config
print(json.dumps({ANNOUNCEMENTS!r} in get_page_config([])["disabledExtensions"]))
"""


def test_nobody_is_asked_about_news(tmp_path):
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)
