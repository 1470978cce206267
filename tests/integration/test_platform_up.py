"""`llmos up` and the processes it supervises: start, log-in, servers, tokens, death of each part, stop.

The tests that kill a part share a platform, which is whole again after each; the others share another one.
"""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from llmos_spawners.profiles.choices import workstation

import llmos
from llmos.proc import machine_memory
from llmos_hub.names import DataDir
from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.supervisor.state import StateFiles
from tests.support.platform import ADMIN_PASSWORD, Platform, command_of, running_platform, wait_until

PARTS = ["valkey", "proxy", "api", "gateway", "controllers", "hub"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Yield a platform whose parts may be killed, if they are back at the end of the test.

    Its environment names a proxy that nothing needs: all that it asks is on this machine.
    """
    nowhere = dict.fromkeys(("HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = {"LLMOS_ADMIN_PASSWORD": ADMIN_PASSWORD, **nowhere, "NO_PROXY": ".corp"}
    with running_platform(tmp_path_factory.mktemp("own") / "data", environment=environment) as started:
        yield started


def works(token, platform):
    return platform.hub("GET", "/user", token=token).status_code == 200


# Before anything is started


def test_a_taken_port_is_named_with_its_owner_and_nothing_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = Platform(tmp_path / "data", port=port)
        done = found.run("up", "--port", str(port), "--gateway-port", str(found.gateway_port))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"Port {port} is taken by python" in done.stderr
    assert f"(pid {os.getpid()}," in done.stderr
    assert f"--port {port + 100}" in done.stderr
    assert f"--data-dir {found.root}" in done.stderr  # the suggested command starts the same platform
    assert StateFiles(DataDir(found.root)).admin == ""  # the next start may still name another admin
    assert found.clean_up() == []


def test_a_data_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = Platform(tmp_path / "file" / "data").run("up")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "can't be written" in done.stderr
    assert "--data-dir" in done.stderr


def test_a_redis_that_is_not_there_is_one_line_without_its_password(tmp_path):
    found = Platform(tmp_path / "data")
    done = found.run("up", "--port", str(found.port), "--redis-url", "redis://:s3cret@127.0.0.1:1/0")
    assert done.returncode == 1
    assert "127.0.0.1:1/0 does not answer: Connection refused" in done.stderr
    assert "s3cret" not in done.stderr
    assert found.clean_up() == []


def test_a_second_up_on_the_same_data_directory_names_the_first(platform):
    done = platform.run("up", "--port", "1")
    assert done.returncode == 1
    assert f"already runs on {platform.root} (pid {platform.process.pid})" in done.stderr
    assert "llmos down" in done.stderr
    assert platform.status()["running"]


# A running platform


def test_status_says_what_runs_since_when_with_how_much_memory(platform):
    found = platform.status()
    assert found["running"]
    assert found["version"] == llmos.__version__
    assert [process["name"] for process in found["processes"]] == PARTS
    assert {process["state"] for process in found["processes"]} == {"Ready"}
    assert all(process["memory"] > 0 and process["seconds"] >= 0 for process in found["processes"])
    parts = [*found["processes"], found["supervisor"]]  # without what other tests have started meanwhile
    assert sum(part["memory"] for part in parts) < 450 * 1024**2
    assert found["supervisor"]["memory"] < 35 * 1024**2
    text = platform.run("status").stdout
    assert f"LLMOS {llmos.__version__} at" in text
    assert platform.hub_url in text
    assert re.search(r"^gateway +Ready +\S+ \S+ +\d+ MiB +0 ", text, re.MULTILINE)


def test_what_is_private_is_private(platform):
    assert stat.S_IMODE(platform.root.stat().st_mode) == 0o700
    names = ("secrets.json", "client.json", "hub/jupyterhub.sqlite", "logs/hub.log")
    for path in [*(platform.root / name for name in names)]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    secrets = list(platform.secrets.values())
    for handle in platform.marked():
        argv = Path(f"/proc/{handle.pid}/cmdline").read_bytes().decode()
        assert not [secret for secret in secrets if secret in argv]


def test_an_admin_logs_in_with_the_password_that_was_given(platform):
    assert "one-time password" not in platform.output
    with platform.browser("admin", ADMIN_PASSWORD) as browser:
        assert browser.get("/hub/admin").status_code == 200
        assert "change-password" in browser.get("/hub/home").text


def test_nobody_signs_up_and_wrong_passwords_are_refused(platform):
    with httpx.Client(base_url=platform.hub_url, follow_redirects=True, timeout=30) as client:
        assert client.get("/hub/signup").status_code == 404
        answer = platform.log_in(client, "stranger", "stranger")
        assert "Invalid username or password" in answer.text
        assert client.post("/hub/login", data={"username": "admin", "password": ADMIN_PASSWORD}).status_code == 403


def test_a_new_person_comes_in_with_a_one_time_password_and_chooses_one(platform):
    done = platform.run("user", "add", "newcomer")
    assert done.returncode == 0, done.stderr
    password = done.stdout.strip().splitlines()[-1]
    with httpx.Client(base_url=platform.hub_url, follow_redirects=True, timeout=30) as client:
        page = platform.log_in(client, "newcomer", password)
        assert page.url.path == "/hub/change-password"
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]
        form = {"_xsrf": xsrf, "new_password": "short", "new_password_again": "short"}
        refused = client.post(str(page.url), data=form)
        assert refused.status_code == 400
        assert "8 characters" in refused.text
        form |= {"new_password": "a-password-of-my-own", "new_password_again": "a-password-of-my-own"}
        assert client.post(str(page.url), data=form).url.path == "/hub/spawn"
    with platform.browser("newcomer", "a-password-of-my-own") as client:
        assert client.get("/hub/home").url.path == "/hub/home"
    again = platform.run("user", "add", "newcomer")
    assert again.returncode == 1
    assert "llmos user password newcomer" in again.stderr


def test_a_token_for_nobody_is_refused_in_words(platform):
    done = platform.run("token", "--user", "nobody")
    assert done.returncode == 1
    assert done.stderr == 'There is no user "nobody". Make one: llmos user add nobody\n'


def test_doctor_says_the_version_and_looks_at_the_ports_of_what_runs(platform):
    words = platform.run("doctor").stdout
    assert f"LLMOS            {llmos.__version__}" in words
    assert re.search(rf"ok +Port {platform.port} +ours", words)
    assert re.search(rf"ok +Port {platform.gateway_port} +ours", words)


def test_only_an_admin_sets_passwords(platform):
    platform.add_user("mallory")
    body = {"password": "taken-over-by-me", "one_time": False}
    for token in (platform.token("mallory"), platform.secrets["llmos_token"], platform.secrets["llm_token"]):
        answer = platform.hub("POST", "/llmos/users/admin/password", token=token, body=body)
        assert answer.status_code in (403, 404)
    with platform.browser("admin", ADMIN_PASSWORD):
        pass


def test_a_token_from_the_command_line_has_the_scopes_it_says(platform):
    whole = platform.run("token", "--note", "laptop", "--expires", "1h").stdout.strip()
    narrow = platform.run("token", "--invoke-only").stdout.strip()
    scopes = set(platform.hub("GET", "/user", token=whole).json()["scopes"])
    assert {"custom:llmos:manage", "custom:llmos:invoke"} <= scopes
    assert "admin:users" not in scopes
    narrow_scopes = set(platform.hub("GET", "/user", token=narrow).json()["scopes"])
    assert "custom:llmos:invoke" in narrow_scopes
    assert "custom:llmos:manage" not in narrow_scopes
    refused = platform.run("token", "--user", "nobody-of-that-name")
    assert refused.returncode == 1
    assert "nobody-of-that-name" in refused.stderr


def test_a_server_has_a_home_addresses_and_narrow_tokens_and_they_end_with_it(platform):
    platform.add_user("lin")
    token = platform.token("lin")
    url = platform.start_server("lin", token)
    environ = platform.server_environment("lin")
    assert environ["HOME"] == str(platform.root / "homes" / "lin")
    assert stat.S_IMODE((platform.root / "homes" / "lin").stat().st_mode) == 0o700
    assert environ["OPENAI_BASE_URL"] == f"{platform.gateway_url}/v1"
    assert environ["LLMOS_URL"] == platform.api_url
    assert not [key for key in environ if "CONFIGPROXY" in key or key == "LLMOS_TOKENS"]
    assert not [secret for secret in platform.secrets.values() if secret in environ.values() and len(secret) > 16]

    invoke = platform.hub("GET", "/user", token=environ["OPENAI_API_KEY"]).json()
    assert {scope for scope in invoke["scopes"] if not scope.startswith("read:users")} == {"custom:llmos:invoke"}
    assert platform.hub("POST", "/users/lin/tokens", token=environ["OPENAI_API_KEY"]).status_code == 403
    own = platform.hub("GET", "/user", token=environ["JUPYTERHUB_API_TOKEN"]).json()["scopes"]
    assert "custom:llmos:manage" in own
    assert "custom:llmos:invoke" not in own

    answer = httpx.post(
        f"{url}api/kernels", headers={"Authorization": f"Bearer {token}"}, json={"name": "python3"}, timeout=30
    )
    assert answer.status_code == 201, answer.text
    platform.stop_server("lin", token)
    assert not works(environ["OPENAI_API_KEY"], platform)
    assert not works(environ["JUPYTERHUB_API_TOKEN"], platform)
    assert works(token, platform)


def test_a_proxy_is_not_asked_for_the_platforms_own_addresses(own):
    token = own.token("admin")
    own.start_server("admin", token)
    environ = own.server_environment("admin")
    assert environ["HTTP_PROXY"] == "http://127.0.0.1:9"  # other hosts are still reached through it
    assert ".corp" in environ["NO_PROXY"].split(",")
    code = "import openai; print(openai.OpenAI(max_retries=0).models.list().object)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "list", done.stderr
    own.stop_server("admin", token)


def test_named_servers_have_tokens_of_their_own(platform):
    platform.add_user("kim")
    token = platform.token("kim")
    platform.start_server("kim", token)
    platform.start_server("kim", token, "lab", {"size": "medium"})
    plain, lab = platform.server_environment("kim"), platform.server_environment("kim", "lab")
    assert lab["MEM_LIMIT"] == str(workstation(machine_memory().total).choose({"size": "medium"}).size.memory)
    assert plain["HOME"] == lab["HOME"]
    platform.stop_server("kim", token, "lab")
    assert not works(lab["OPENAI_API_KEY"], platform)
    assert works(plain["OPENAI_API_KEY"], platform)
    platform.stop_server("kim", token)


def test_the_form_is_there_and_unknown_options_are_refused(platform):
    platform.add_user("noor")
    with platform.browser("noor", "noor-has-a-password") as browser:
        assert 'id="size-medium"' in browser.get("/hub/spawn").text
    token = platform.token("noor")
    for body in ({"size": "huge"}, {"image": "x"}):
        answer = platform.hub("POST", "/users/noor/server", token=token, body=body)
        assert answer.status_code == 400
    assert platform.hub("GET", "/users/noor", token=token).json()["servers"] == {}


def test_a_server_that_takes_more_memory_than_its_size_is_stopped_in_words(platform):
    platform.add_user("max")
    token = platform.token("max")
    platform.start_server("max", token, options={"size": "small"})
    with platform.browser("max", "max-has-a-password") as browser:
        with platform.kernel(browser, "max") as kernel, contextlib.suppress(Exception):
            kernel.run("held = b'x' * 1_400_000_000", timeout=30)  # ends with the kernel
        wait_until(
            lambda: platform.hub("GET", "/users/max", token=token).json()["servers"] == {}, 30, "the server is stopped"
        )
        page = browser.get("/hub/spawn").text
    assert "Your last server was stopped: it used 1." in page
    assert "of 1.0 GiB of memory" in page
    assert "choose a larger size" in page
    assert "Your last server was stopped" in (platform.root / "logs" / "servers" / "max.log").read_text()
    url = platform.start_server("max", token, options={"size": "medium"})  # the next server is not stopped
    assert httpx.get(f"{url}api", headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code == 200
    platform.stop_server("max", token)


def test_a_name_that_would_lead_out_of_the_homes_does_not(platform):
    name = "..%2fx"
    token = None
    body = {"password": "a-long-password", "create": True}
    answer = platform.hub("POST", f"/llmos/users/{name}/password", body=body)
    if answer.status_code == 201:
        token = platform.token("../x")
        platform.start_server("../x", token)
        home = Path(platform.server_environment("../x")["HOME"])
        platform.stop_server("../x", token)
        assert home.parent == platform.root / "homes"
    assert not (platform.root / "x").exists()


# Killed processes


def test_tokens_are_dead_after_a_stop_also_across_a_restart_of_the_hub(own):
    own.add_user("ada")
    token = own.token("ada")
    own.start_server("ada", token)
    environ = own.server_environment("ada")
    before = own.kill("hub")
    own.wait_replaced("hub", before)
    wait_until(lambda: own.hub("GET", "/users/ada", token=token).json()["servers"], 30, "the new Hub knows the server")
    assert works(environ["OPENAI_API_KEY"], own)
    own.stop_server("ada", token)
    assert not works(environ["OPENAI_API_KEY"], own)
    assert not works(environ["JUPYTERHUB_API_TOKEN"], own)


def test_tokens_of_a_server_that_died_by_itself_end_too(own):
    own.add_user("bea")
    token = own.token("bea")
    url = own.start_server("bea", token)
    environ = own.server_environment("bea")
    httpx.post(f"{url}api/shutdown", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    # the Hub polls its servers every five seconds
    wait_until(lambda: not works(environ["OPENAI_API_KEY"], own), 30, "its token is dead")
    assert not works(environ["JUPYTERHUB_API_TOKEN"], own)


def test_whatever_is_killed_comes_back_and_is_said(own):
    own.add_user("cleo")
    token = own.token("cleo")
    url = own.start_server("cleo", token)
    headers = {"Authorization": f"Bearer {token}"}
    restarts = [process["restarts"] for process in own.status()["processes"]]
    for name in PARTS:
        before = own.kill(name)
        own.wait_replaced(name, before)
        wait_until(lambda n=name: f"{n} is back after" in own.output, 30, f"{name} is said to be back")
        assert f"{name} stopped (killed by signal 9); starting again" in own.output

    def routed():
        try:
            return httpx.get(f"{url}api", headers=headers, timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(routed, 30, "the server is reached through the new proxy")
    assert [process["restarts"] for process in own.status()["processes"]] == [count + 1 for count in restarts]


def test_while_a_part_is_away_programs_get_an_error_that_they_can_read(own):
    with llmos.Client(url=own.api_url, token=own.client["token"]) as client:
        old = own.kill("api")
        refused = httpx.get(f"{own.api_url}/apis", timeout=10)
        assert refused.status_code == 503
        status = refused.json()
        assert (status["kind"], status["details"]["code"], status["code"]) == ("Status", "unavailable", 503)
        assert client.whoami().name == "admin"  # it waits for the next one
        own.wait_replaced("api", old)
    old = own.kill("gateway")
    refused = httpx.get(f"{own.hub_url}/services/llm/v1/models", timeout=10)
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "server_error"
    own.wait_replaced("gateway", old)


def test_a_proxy_without_routes_gives_programs_an_error_that_they_can_read(own):
    def body_of_404(path):
        return httpx.get(f"{own.hub_url}/hub/llmos/error/404", params={"url": path}, timeout=30)

    assert body_of_404("/services/llmos/apis").json()["details"]["code"] == "unavailable"
    assert body_of_404("/services/llm/v1/models").json()["error"]["code"] == "unavailable"
    assert body_of_404("/user/ada/").headers["content-type"].startswith("text/html")


def test_with_any_authenticator_and_routes_programs_get_an_error_that_they_can_read(tmp_path):
    root = tmp_path / "data"
    root.mkdir(mode=0o700)
    (root / "jupyterhub_config.py").write_text(
        'c.JupyterHub.authenticator_class = "dummy"\nc.JupyterHub.extra_handlers = []\nc.Authenticator.admin_users = {"admin"}\n'
    )
    with running_platform(root) as platform:
        for part, path, shape in (
            ("api", "/services/llmos/apis", lambda answer: answer["kind"] == "Status" and answer["code"] == 503),
            ("gateway", "/services/llm/v1/models", lambda answer: answer["error"]["type"] == "server_error"),
        ):
            old = platform.kill(part)
            refused = httpx.get(platform.hub_url + path, timeout=10)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/json"), refused.text[
                :200
            ]
            assert shape(refused.json())
            platform.wait_replaced(part, old)


def test_a_new_supervisor_adopts_all_that_runs(own):
    own.add_user("dora")
    token = own.token("dora")
    own.start_server("dora", token)
    before = {name: own.handle(name) for name in PARTS}
    own.kill("supervisor")
    dead = own.run("status")
    assert dead.returncode == 1
    assert "supervisor" in dead.stdout
    assert "dead" in dead.stdout
    assert works(token, own)
    own.start()
    assert {name: own.handle(name) for name in PARTS} == before
    assert own.hub("GET", "/users/dora", token=token).json()["servers"][""]["ready"]
    # adopted, so they are watched
    old = own.kill("gateway")
    own.wait_replaced("gateway", old)


def test_down_stops_what_a_dead_supervisor_left(own):
    own.add_user("elsa")
    own.start_server("elsa", own.token("elsa"))
    own.kill("supervisor")
    left = own.marked()
    assert len(left) >= len(PARTS) + 1
    done = own.run("down")
    assert done.returncode == 0, done.stderr
    assert not [handle for handle in left if handle.alive]
    assert own.marked() == []


def first_password(own):
    """Return the password that nobody has chosen; it is said at each start until another is chosen."""
    password = re.search(r"log in as grace, one-time password {2}(\S+)", own.output)[1]
    kept = own.root / "admin-password"
    assert kept.read_text().strip() == password
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not (own.root / "hub" / "first-password").exists()
    assert ("as root" if os.geteuid() == 0 else "as your own user") in own.output
    return password


def use_first_password(own, password, *, choose):
    with httpx.Client(base_url=own.hub_url, follow_redirects=True, timeout=30) as browser:
        page = own.log_in(browser, "grace", password)
        assert page.url.path == "/hub/change-password"
        if choose:
            own.choose_password(browser, page, ADMIN_PASSWORD)


def assert_said(own, password, *, chosen):
    if not chosen:
        assert f"one-time password  {password}" in own.output
        return
    assert password not in own.output
    assert re.search(r"log in as grace +\(forgot the password\? \S*llmos user password grace\)", own.output)
    assert not (own.root / "admin-password").exists()


def test_a_stop_leaves_no_process_and_the_next_start_finds_all_and_says_a_password_until_it_is_used(tmp_path):
    with running_platform(tmp_path / "data", environment={"LLMOS_ADMIN_USER": "grace"}) as own:
        password = first_password(own)
        own.add_user("ada")
        token = own.token("ada")
        with own.sdk() as client:
            client.serve("demo://tiny", name="tiny", timeout=60)
        ports = json.loads((own.root / "platform.json").read_text())["ports"]
        for how in ("SIGINT", "SIGTERM", "down"):
            own.start_server("ada", token)
            environ = own.server_environment("ada")
            # a process that a user starts in a terminal and forgets
            forgotten = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"], env=environ, start_new_session=True
            )
            handles = [*own.marked(), ProcessHandle.of(forgotten.pid)]
            commands = " ".join(map(command_of, handles))
            assert "llamacpp_server" in commands
            assert "singleuser" in commands
            if how == "down":
                assert own.run("down", timeout=120).returncode == 0
            else:
                use_first_password(own, password, choose=how == "SIGTERM")
                own.process.send_signal(getattr(signal, how))
            assert own.process.wait(60) == 0
            forgotten.wait(10)
            assert not [handle for handle in handles if handle.alive]
            assert own.marked() == []
            assert re.search(
                r"Stopped. Start again with: \S*llmos up --data-dir \S+ --port \d+ --gateway-port \d+\s*$", own.output
            )
            assert own.run("status").returncode == 1
            if how != "down":
                own.start()
                assert json.loads((own.root / "platform.json").read_text())["ports"] == ports
                assert works(token, own)
                assert not works(environ["OPENAI_API_KEY"], own)
                assert not works(environ["JUPYTERHUB_API_TOKEN"], own)
                with own.sdk() as client:
                    *_, last = client.modelservices.progress("tiny", timeout=60)
                    assert last.ready
                    assert last.resource.spec.model == "demo://tiny"
                    assert [replica.restarts for replica in last.resource.status.replica_statuses] == [0]
                    assert "Crashed" not in [event.reason for event in client.modelservices.events("tiny")]
                assert_said(own, password, chosen=how == "SIGTERM")


def test_a_stop_while_it_starts(tmp_path):
    own = Platform(tmp_path / "data")
    own.spawn()
    try:
        wait_until((own.run_dir / "processes" / "proxy.json").exists, 30, "the first process")
        time.sleep(0.2)
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(60) == 0
        assert own.marked() == []
        assert "LLMOS is ready" not in own.output
    finally:
        own.stop()
