"""Set-up of notebook servers before they start."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import certifi

CERTIFI = certifi.where()
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
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)


def test_a_sites_own_authorities_are_trusted_by_the_server_and_its_kernels(tmp_path):
    script = """
import json, os, sys, types
sys.modules["jupyterhub.singleuser"] = types.SimpleNamespace(main=lambda: print(json.dumps(dict(os.environ))))
import llmos_spawners.singleuser
import llmos.trust
llmos_spawners.singleuser.trust_site.__globals__["_public"] = lambda environ: ["public"]
llmos_spawners.singleuser.main()
"""
    authority = Path(ssl.get_default_verify_paths().cafile or CERTIFI).read_text(encoding="utf-8").partition("END CERT")
    pem = authority[0][authority[0].index("-----BEGIN") :] + "END CERTIFICATE-----"
    environment = {**os.environ, "LLMOS_CA_CERTIFICATES": pem, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    seen = json.loads(done.stdout)
    assert Path(seen["SSL_CERT_FILE"]).read_text(encoding="utf-8") == f"public\n{pem}\n"
    assert "LLMOS_CA_CERTIFICATES" not in seen
