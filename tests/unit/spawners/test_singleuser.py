"""Set-up of notebook servers before they start."""

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

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


WATCHED = """
import json, os, runpy, signal, sys, types
from pathlib import Path
def serve():
    if not os.environ.get("JUPYTERHUB_DISABLE_USER_CONFIG"):
        runpy.run_path(str(Path.home() / ".jupyter" / "jupyter_server_config.py"))
    print(json.dumps([os.environ.get("LLMOS_NOTE", ""), os.getpid() == int(os.environ.get("STARTED", 0))]), flush=True)
    sys.exit(5)
os.environ.setdefault("STARTED", str(os.getpid()))
sys.modules["jupyterhub.singleuser"] = types.SimpleNamespace(main=serve)
from jupyter_server.serverapp import ServerApp
ServerApp.init_httpserver = lambda app: None
from llmos_spawners.singleuser import main
main()
"""


def serve_with(configuration, home):
    file = home / ".jupyter" / "jupyter_server_config.py"
    file.parent.mkdir()
    file.write_text(configuration, encoding="utf-8")
    environment = {**os.environ, "HOME": str(home)}
    command = [sys.executable, "-c", WATCHED]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ("import os; os._exit(4)", "it ends the server"),
        ("import os; os._exit(0)", "it ends the server"),
        ("raise SystemExit(3)", "it ends the server"),
        ("import ctypes; ctypes.string_at(0)", "it ends the server"),
        ("import os; os.abort()", "it ends the server"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_whichever_way_a_configuration_ends_the_server_it_starts_again_without(configuration, why, tmp_path):
    done = serve_with(configuration, tmp_path)
    note, same_process = json.loads(done.stdout)  # once: the first start ended before
    assert why in note
    assert same_process
    assert done.returncode == 5


@pytest.mark.parametrize("ending", ["", "import os; os._exit(5)", "raise SystemExit(5)", "1 / 0"])
def test_a_server_that_listened_keeps_its_configuration_and_its_exit_status(ending, tmp_path):
    done = serve_with(
        f"from jupyter_server.serverapp import ServerApp; ServerApp.init_httpserver(None)\n{ending}", tmp_path
    )
    assert done.returncode == (1 if "0" in ending else 5)
    assert done.stdout == ("" if ending else '["", false]\n')


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_server_that_is_stopped_while_it_starts_does_not_start_again(name, tmp_path):
    """The signal comes from the Hub through the first process, or from elsewhere to the server itself."""
    for number, whom in enumerate(["os.getpid()", "int(os.environ['STARTED'])"]):
        home = tmp_path / str(number)
        home.mkdir()
        done = serve_with(f"import os, signal; os.kill({whom}, signal.{name}); signal.pause()", home)
        assert done.stdout == ""
        assert done.returncode in {128 + signal.Signals[name], -signal.Signals[name]}
        assert "without your own" not in done.stderr
