"""Accounts as used by users and attackers, over HTTP on a real platform: passwords, sessions, tokens, starts."""

import ast
import html
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.cookies import SimpleCookie

import httpx
import pytest

from tests.support.people import wait_until
from tests.support.platform import ADMIN_PASSWORD, Platform, running_platform
from tests.support.tls import tls_proxy

OWN = "a-password-of-my-own"


@pytest.fixture
def visitor(platform):
    """Yield a browser without cookies."""
    with httpx.Client(base_url=platform.hub_url, follow_redirects=True, timeout=30) as client:
        yield client


def one_time(platform, name, *, there=False):
    """Return a one-time password made on the command line."""
    done = platform.run("user", "password" if there else "add", name)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def works(platform, token):
    return platform.hub("GET", "/user", token=token).status_code == 200


# Permission to set passwords


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Yield a platform on which mallory may administer users without being an admin, and rosa's server can't start."""
    root = tmp_path_factory.mktemp("help-desk") / "data"
    root.mkdir(mode=0o700)
    (root / "jupyterhub_config.py").write_text(
        "c.JupyterHub.load_roles = [\n"
        '    {"name": "desk", "scopes": ["admin:users", "tokens!user"], "users": ["mallory"]},\n'
        '    {"name": "operations", "scopes": ["admin:servers"], "groups": ["operators"]},\n'
        '    {"name": "reception", "scopes": ["list:users", "read:servers!group=operators"], "users": ["clara"]},\n'
        "]\n"
        'c.JupyterHub.load_groups = {"operators": {"users": ["oscar"]}}\n'
        'c.Authenticator.allowed_users = {"mallory"}\n'
        "def no_server(spawner):\n"
        '    if spawner.user.name == "rosa":\n'
        """        spawner.cmd = ["/bin/sh", "-c", "echo 'no <server> today' >&2; exit 3"]\n"""
        "c.Spawner.pre_spawn_hook = no_server\n"
    )
    with running_platform(root) as platform:
        answer = platform.hub("POST", "/llmos/users/mallory/password", body={"password": OWN, "one_time": False})
        assert answer.status_code == 200, answer.text
        yield platform


_PODS_THAT_TAKE_LONG = """
import asyncio
from unittest import mock
import kubespawner.spawner
kubespawner.spawner.load_config = lambda **_: None
kubespawner.spawner.shared_client = lambda *_: mock.AsyncMock()
from llmos_spawners.kubernetes import LLMOSKubeSpawner
class Pods(LLMOSKubeSpawner):
    async def _start_watched(self):
        await asyncio.Event().wait()  # there is no node
    async def poll(self):
        return 0
    async def stop(self, now=False):
        pass
c.JupyterHub.spawner_class = Pods
c.JupyterHub.concurrent_spawn_limit = 2
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}  # as the chart has it
c.LLMOSKubeSpawner.start_timeout = 3
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory):
    """Yield a platform whose servers are pods that never start; its Hub may be killed."""
    root = tmp_path_factory.mktemp("pods") / "data"
    root.mkdir(mode=0o700)
    (root / "jupyterhub_config.py").write_text(_PODS_THAT_TAKE_LONG)
    with running_platform(root) as platform:
        yield platform


def test_who_administers_users_does_not_become_an_admin(own):
    own.add_user("victim")
    token = own.token("mallory")
    body = {"password": "taken-over-by-me", "one_time": False}
    taken = own.hub("POST", "/llmos/users/admin/password", token=token, body=body)
    made = own.hub("POST", "/llmos/users/eve/password", token=token, body={**body, "create": True, "admin": True})
    assert (taken.status_code, made.status_code) == (403, 403)
    assert own.hub("GET", "/users/eve").status_code == 404
    with own.browser("admin", ADMIN_PASSWORD):
        pass
    # the permitted requests still work
    assert own.hub("POST", "/llmos/users/victim/password", token=token, body=body).status_code == 200
    made = own.hub("POST", "/llmos/users/eve/password", token=token, body={**body, "create": True})
    assert (made.status_code, made.json()["admin"]) == (201, False)


def test_who_administers_users_does_not_log_in_as_somebody_with_more_rights(own):
    token = own.token("mallory")
    body = {"password": "taken-over-by-me", "one_time": False}
    refused = own.hub("POST", "/llmos/users/oscar/password", token=token, body=body)
    assert (refused.status_code, "has rights that you don't have" in refused.json()["message"]) == (403, True), (
        refused.text
    )
    # fewer rights, or rights over some only, are no reason
    assert own.hub("POST", "/llmos/users/clara/password", token=token, body=body).status_code == 200
    # the account that runs the platform can
    assert own.hub("POST", "/llmos/users/oscar/password", body=body).status_code == 200


def test_who_administers_users_does_not_delete_an_admin(own):
    own.add_user("gone")
    token = own.token("mallory")
    refused = own.hub("DELETE", "/users/admin", token=token)
    assert (refused.status_code, own.hub("GET", "/users/admin").status_code) == (403, 200), refused.text
    assert works(own, own.client["token"])  # of `llmos` in a terminal, and the admin's
    # the permitted request still works
    assert own.hub("DELETE", "/users/gone", token=token).status_code == 204


def test_who_administers_users_gets_no_rights_by_a_name_in_the_configuration(own):
    own.add_user("bert")
    token = own.token("mallory")
    assert own.hub("DELETE", "/users/oscar", token=token).status_code == 204
    body = {"password": "taken-over-by-me", "one_time": False, "create": True, "inherit": True}
    attacks = [
        ("POST", "/llmos/users/oscar/password", body),
        ("POST", "/users/oscar", None),
        ("POST", "/users/Oscar", None),
        ("POST", "/users", {"usernames": ["oscar"]}),
        ("PATCH", "/users/bert", {"name": "oscar"}),
    ]
    for method, path, content in attacks:
        answer = own.hub(method, path, token=token, body=content)
        assert (answer.status_code, method, path) == (403, method, path), answer.text
        assert "by the configuration (JupyterHub.load_roles)" in answer.json()["message"]
    # rights over some only are no reason
    assert own.hub("DELETE", "/users/clara", token=token).status_code == 204
    assert own.hub("POST", "/llmos/users/clara/password", token=token, body=body).status_code == 201
    # the account that runs the platform can
    assert own.hub("POST", "/llmos/users/oscar/password", body=body).status_code == 201


def test_who_administers_users_does_not_become_an_admin_by_an_admins_name(own):
    own.add_user("bob")
    token = own.token("mallory")
    assert own.hub("DELETE", "/users/admin").status_code == 204
    body = {"password": "taken-over-by-me", "one_time": False}
    attacks = [
        ("POST", "/llmos/users/admin/password", {**body, "create": True, "inherit": True}),
        ("POST", "/llmos/users/ADMIN/password", {**body, "create": True, "inherit": True}),
        ("POST", "/users/admin", None),
        ("POST", "/users", {"usernames": ["admin"]}),
        ("PATCH", "/users/bob", {"name": "admin"}),
        ("PATCH", "/users/bob", {"name": "ADMIN"}),
    ]
    for method, path, content in attacks:
        answer = own.hub(method, path, token=token, body=content)
        assert (answer.status_code, method, path) == (403, method, path), answer.text
        assert own.hub("GET", "/users/admin").status_code == 404
    # the permitted requests still work
    assert own.hub("PATCH", "/users/bob", token=token, body={"name": "robert"}).status_code == 200
    assert own.hub("POST", "/users/Dora", token=token).json()["name"] == "dora"  # with which she can log in
    assert own.hub("POST", "/users", token=token, body={"usernames": ["carol"]}).status_code == 201
    assert own.hub("POST", "/users/dave", token=token).status_code == 201
    # the account that runs the platform can create the admin again, and its own commands work as before
    made = own.run("user", "add", "admin", "--admin", "--inherit")
    assert (made.returncode, works(own, own.client["token"])) == (0, True), made.stderr
    body = {"password": ADMIN_PASSWORD, "one_time": False}
    made = own.hub("POST", "/llmos/users/admin/password", body=body)
    assert (made.status_code, made.json()["admin"]) == (200, True), made.text


def test_a_password_with_half_a_character_is_refused_before_anybody_is_made(platform):
    body = json.dumps({"password": "half-of-an-\ud83d-emoji", "create": True})
    headers = {"Authorization": f"Bearer {platform.admin_token}"}
    refused = httpx.post(f"{platform.hub_url}/hub/api/llmos/users/half/password", content=body, headers=headers)
    assert (refused.status_code, "half a character" in refused.json()["message"]) == (400, True), refused.text
    assert platform.hub("GET", "/users/half").status_code == 404


def test_a_name_that_cannot_be_is_refused_with_those_that_can(platform):
    refused = platform.run("user", "add", "a/b")
    assert refused.returncode != 0
    assert "'a/b' can't be a user's name. A name has 1 to 255 printable characters, without a slash" in refused.stderr


# One-time passwords


def test_a_one_time_password_opens_the_choice_of_another_and_nothing_else(platform, visitor):
    password = one_time(platform, "vera")
    page = platform.log_in(visitor, "vera", password)
    assert page.url.path == "/hub/change-password"
    assert "old_password" not in page.text  # it was entered a moment ago
    assert 'id="login"' not in page.text  # this is the log-in
    for path in ("/hub/home", "/hub/token", "/hub/spawn", "/user/vera/"):
        assert visitor.get(path).url.path == "/hub/login"
    auth = {"auth": {"username": "vera", "password": password}}
    assert visitor.post("/hub/api/users/vera/tokens", json=auth).status_code == 403
    assert visitor.get("/hub/api/user").status_code == 403
    page = visitor.get("/hub/change-password")
    assert platform.choose_password(visitor, page, "short").status_code == 400
    same = platform.choose_password(visitor, page, password)
    assert "is the old one" in same.text
    done = platform.choose_password(visitor, page, OWN)
    assert done.status_code in (200, 404), done.text  # the page for the start of a server
    assert visitor.get("/hub/home").url.path == "/hub/home"
    # neither the password nor the ticket works again
    with httpx.Client(base_url=platform.hub_url, follow_redirects=True, timeout=30) as other:
        assert platform.log_in(other, "vera", password).url.path == "/hub/login"
        assert "Current password" in visitor.get("/hub/change-password").text


def test_the_way_to_the_choice_is_closed_by_a_newer_password(platform, visitor):
    first = one_time(platform, "wanda")
    page = platform.log_in(visitor, "wanda", first)
    one_time(platform, "wanda", there=True)
    platform.choose_password(visitor, page, OWN)
    assert visitor.get("/hub/home").url.path == "/hub/login"


def test_a_new_password_ends_other_sessions_and_tokens_by_choice(platform):
    password = platform.add_user("xenia")
    token = platform.token("xenia")
    with platform.browser("xenia", password) as here, platform.browser("xenia", password) as elsewhere:
        page = here.get("/hub/change-password")
        assert platform.choose_password(here, page, OWN, old_password="wrong-wrong").status_code == 400
        assert "logged out everywhere else" in platform.choose_password(here, page, OWN, old_password=password).text
        assert here.get("/hub/home").url.path == "/hub/home"
        assert elsewhere.get("/hub/home").url.path == "/hub/login"
        assert works(platform, token)
        page = here.get("/hub/change-password")
        assert platform.choose_password(here, page, OWN + "2", old_password=OWN, end_tokens="yes").status_code == 200
        assert not works(platform, token)


def test_a_change_of_the_password_is_not_guessed_by_another_session_cookie_each_time(platform):
    password = platform.add_user("quinn")
    with platform.browser("quinn", password) as browser:
        log_in = next(cookie.value for cookie in browser.cookies.jar if cookie.name == "jupyterhub-hub-login")
    texts = []
    for number in range(7):
        cookies = {"jupyterhub-hub-login": log_in, "jupyterhub-session-id": f"made-up-{number}"}
        with httpx.Client(base_url=platform.hub_url, cookies=cookies, timeout=30) as forger:
            page = forger.get("/hub/change-password")
            texts.append(platform.choose_password(forger, page, OWN, old_password=f"guess{number}").text)
    assert "The current password is wrong" in texts[0], texts[0]
    assert "Too many wrong passwords" in texts[-1], texts[-1]


def test_an_admins_reset_ends_sessions_and_tokens_and_leaves_a_running_server_its_own(platform):
    password = platform.add_user("yara")
    token = platform.token("yara")
    disguised = platform.token("yara", note="Server at /user/yara/lab/")
    url = platform.start_server("yara", token)
    environ = platform.server_environment("yara")
    with platform.browser("yara", password) as browser:
        assert browser.get(url + "lab").status_code == 200
        assert browser.get(url + "api/contents").status_code == 200
        done = platform.run("user", "password", "yara")
        assert "1 server of yara runs on" in done.stderr
        assert browser.get("/hub/home").url.path == "/hub/login"
        # a server checks its sessions with the Hub every ten seconds
        wait_until(lambda: browser.get(url + "api/contents").status_code != 200, 30, "the server's session has ended")
    assert not works(platform, token)
    assert not works(platform, disguised)
    assert works(platform, environ["OPENAI_API_KEY"])
    assert works(platform, environ["JUPYTERHUB_API_TOKEN"])
    assert "run" not in platform.run("user", "password", "yara", "--stop-servers").stderr
    assert not works(platform, environ["JUPYTERHUB_API_TOKEN"])


def test_a_logged_in_person_changes_the_password_while_somebody_guesses(platform):
    password = platform.add_user("zoe")
    with platform.browser("zoe", password) as browser:
        with httpx.Client(base_url=platform.hub_url, timeout=30) as guesser:
            for _ in range(6):
                answer = platform.log_in(guesser, "zoe", "guessed-wrong")
            assert "Too many wrong passwords" in answer.text
        done = platform.choose_password(browser, browser.get("/hub/change-password"), OWN, old_password=password)
        assert done.status_code == 200, done.text


# The command line


def test_names_are_said_as_they_log_in(platform):
    done = platform.run("user", "add", "Ottoline")
    assert done.stdout.startswith(
        'ottoline is made (user). "Ottoline" logs in as ottoline: names are in small letters. '
    )
    assert platform.run("token", "--user", "Ottoline", "--invoke-only").returncode == 0
    for name in ("", "  "):
        done = platform.run("user", "add", name)
        assert (done.returncode, done.stderr) == (2, "A user needs a name: llmos user add ada\n")
    assert platform.run("user", "add", "line\nend").returncode == 1


def test_who_there_is_and_who_cannot_log_in(platform, visitor):
    assert platform.hub("POST", "/users", body={"usernames": ["added"]}).status_code == 201
    assert re.search(r"^added +- +none \(can't log in\) +0$", platform.run("user", "list").stdout, re.MULTILINE)
    assert "No password, or forgotten?" in visitor.get("/hub/login").text
    assert platform.hub("POST", "/llmos/users/added/password", body={}).json()["password"]
    found = {person["name"]: person["password"] for person in json.loads(platform.run("user", "list", "--json").stdout)}
    assert (found["added"], found["admin"]) == ("one-time", "own")
    assert platform.run("user", "delete", "added").returncode == 2  # it can't ask without a terminal
    assert platform.run("user", "delete", "added", "--yes").returncode == 0
    assert platform.hub("GET", "/users/added").status_code == 404
    again = platform.run("user", "delete", "added", "--yes")
    assert again.stderr == 'There is no user "added". Who there is: llmos user list\n'


def test_a_page_that_does_not_exist_says_so_and_leads_on(platform):
    answer = httpx.get(f"{platform.hub_url}/hub/signup", timeout=30)
    assert answer.status_code == 404
    assert "404 : Not Found" in answer.text
    assert 'href="/hub/home"' in answer.text


def test_a_name_made_again_inherits_nothing_until_an_admin_says_so(platform):
    platform.add_user("nell")
    token = platform.token("nell")
    secret = {"metadata": {"name": "hf"}, "spec": {"data": {"HF_TOKEN": "of-the-first-nell"}}}
    url = f"{platform.api_url}/apis/llmos.ai/v1alpha1/namespaces/user-nell/credentials"
    made = httpx.post(url, json=secret, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert made.status_code == 201, made.text
    (platform.root / "homes" / "nell").mkdir(parents=True)
    done = platform.run("user", "delete", "nell", "--yes")
    assert "stay" in done.stdout
    for body in ({"usernames": ["nell"]}, None):
        path = "/users" if body else "/users/nell"
        assert platform.hub("POST", path, body=body).status_code == 400
    done = platform.run("user", "add", "nell")
    assert done.returncode == 1
    assert "llmos user add nell --inherit" in done.stderr
    assert str(platform.root / "homes" / "nell") in done.stderr
    assert platform.hub("GET", "/users/nell").status_code == 404
    assert platform.run("user", "add", "nell", "--inherit").returncode == 0
    assert platform.run("user", "delete", "nell", "--yes").returncode == 0
    (platform.root / "homes" / "nell").rmdir()
    assert platform.run("user", "add", "nell").returncode == 1  # the namespace is still that of the former user


def test_a_renamed_person_gets_what_nobody_else_left(platform):
    platform.add_user("rita")
    of_rita = {"Authorization": f"Bearer {platform.token('rita')}"}
    url = f"{platform.api_url}/apis/llmos.ai/v1alpha1/namespaces/user-rita/credentials"
    secret = {"metadata": {"name": "hf"}, "spec": {"data": {"HF_TOKEN": "of-the-first-rita"}}}
    assert httpx.post(url, json=secret, headers=of_rita, timeout=30).status_code == 201
    assert platform.hub("PATCH", "/users/rita", body={"name": "margarita"}).status_code == 200
    # neither a new person nor a renamed one gets the name
    assert platform.hub("POST", "/llmos/users/rita/password", body={"create": True}).status_code == 409
    platform.add_user("rob")
    refused = platform.hub("PATCH", "/users/rob", body={"name": "rita"})
    assert (refused.status_code, "llmos user add rita --inherit" in refused.json()["message"]) == (409, True), (
        refused.text
    )
    # the same person gets it back
    assert platform.hub("PATCH", "/users/margarita", body={"name": "rita"}).status_code == 200
    assert platform.hub("POST", "/users", body={"usernames": ["margarita"]}).status_code == 400


_GROUPS_FROM_ELSEWHERE = """
from llmos_hub.accounts.authenticator import LLMOSAuthenticator
class Provider(LLMOSAuthenticator):
    async def authenticate(self, handler, data):
        name = await super().authenticate(handler, data)
        return name and {"name": name, "groups": ["vision"]}
c.JupyterHub.authenticator_class = Provider
c.Authenticator.manage_groups = True
"""


def test_a_group_made_again_inherits_nothing_until_an_admin_says_so(pods):
    def credential(user):
        path = "/apis/llmos.ai/v1alpha1/namespaces/group-vision/credentials/hf"
        headers = {"Authorization": f"Bearer {pods.token(user)}"}
        return httpx.get(pods.api_url + path, headers=headers, timeout=30).status_code

    def groups(user):
        return pods.hub("GET", f"/users/{user}").json()["groups"]

    def log_in(user):
        with pods.browser(user, f"{user}-has-a-password"):
            pass

    def restart_hub():
        pods.wait_replaced("hub", pods.kill("hub"))

    for name in ("fay", "gus"):
        pods.add_user(name)
    assert pods.hub("POST", "/groups/vision", body={"users": ["fay"]}).status_code == 201
    secret = {"metadata": {"name": "hf"}, "spec": {"data": {"HF_TOKEN": "of-the-first-group"}}}
    path = "/apis/llmos.ai/v1alpha1/namespaces/group-vision/credentials"
    headers = {"Authorization": f"Bearer {pods.token('fay')}"}
    made = httpx.post(pods.api_url + path, json=secret, headers=headers, timeout=30)
    assert made.status_code == 201, made.text
    assert pods.hub("DELETE", "/groups/vision").status_code == 204
    restart_hub()  # names of deleted groups are stored in the database
    for again, body in (("/groups/vision", {"users": ["gus"]}), ("/groups", {"groups": ["vision"]})):
        answer = pods.hub("POST", again, body=body)
        assert (answer.status_code, "--inherit" in answer.json()["message"]) == (400, True), answer.text
    done = pods.run("group", "add", "vision")
    assert (done.returncode, "llmos group add vision --inherit" in done.stderr) == (1, True)
    for name in ("vi\nsion", "vision\u202e", "../vision"):  # would mislead readers of logs and of lists
        done = pods.run("group", "add", name)
        assert (done.returncode, "A group's name" in done.stderr) == (1, True), (name, done.stderr)
    assert (groups("gus"), credential("gus")) == ([], 403)
    assert pods.run("group", "add", "vision", "--inherit").returncode == 0
    assert pods.hub("POST", "/groups/vision/users", body={"users": ["gus"]}).status_code == 200
    assert credential("gus") == 200
    assert pods.hub("DELETE", "/groups/vision").status_code == 204
    # also with an identity provider that sets the groups at each log-in
    (pods.root / "jupyterhub_config.py").write_text(_PODS_THAT_TAKE_LONG + _GROUPS_FROM_ELSEWHERE)
    restart_hub()
    log_in("gus")
    assert (groups("gus"), credential("gus")) == ([], 403)
    assert pods.run("group", "add", "vision", "--inherit").returncode == 0
    log_in("gus")
    assert (groups("gus"), credential("gus")) == (["vision"], 200)


def test_a_token_says_when_it_ends(platform):
    done = platform.run("token", "--invoke-only", "--expires", "30d")
    assert len(done.stdout.splitlines()) == 1
    assert re.search(r"calls models as admin, until \d{4}-\d\d-\d\d", done.stderr)
    listed = platform.hub("GET", "/users/admin/tokens").json()["api_tokens"]
    assert max(token["expires_at"] or "" for token in listed if token["note"] == "llmos token")
    assert "until it is deleted" in platform.run("token", "--invoke-only", "--expires", "never").stderr


def test_the_code_on_the_token_page_prints_names_of_models(platform):
    with platform.browser("admin", ADMIN_PASSWORD) as browser:
        page = browser.get("/hub/token").text
    code = html.unescape(re.search(r"<code>(from openai .*?)</code>", page, re.DOTALL)[1])
    key = platform.run("token", "--invoke-only").stdout.strip()
    environ = {**os.environ, "OPENAI_BASE_URL": f"{platform.gateway_url}/v1", "OPENAI_API_KEY": key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    names = ast.literal_eval(done.stdout or "None")
    assert isinstance(names, list), done
    assert all(isinstance(name, str) for name in names)


# TLS


def test_behind_tls_every_cookie_is_secure(platform, tmp_path):
    platform.add_user("tess")
    with ExitStack() as stack:
        url, trust = stack.enter_context(tls_proxy(platform.hub_url, tmp_path))
        with httpx.Client(base_url=url, verify=trust, timeout=30) as browser:
            page = browser.get("/hub/login")
            xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]
            form = {"username": "tess", "password": "tess-has-a-password", "_xsrf": xsrf}
            answer = browser.post("/hub/login", data=form)
            assert answer.status_code == 302, answer.text
            lines = [*page.headers.get_list("set-cookie"), *answer.headers.get_list("set-cookie")]
            cookies = [morsel for line in lines for morsel in SimpleCookie(line).values()]
            assert {"jupyterhub-hub-login", "jupyterhub-session-id", "_xsrf"} <= {morsel.key for morsel in cookies}
            assert not [morsel.key for morsel in cookies if not morsel["secure"]]
            assert browser.get("/hub/home").status_code == 200
    with platform.browser("tess", "tess-has-a-password") as plain:  # without TLS the log-in still works
        assert plain.get("/hub/home").url.path == "/hub/home"


# Starts


def test_a_link_starts_no_server(platform):
    platform.add_user("uma")
    with platform.browser("admin", ADMIN_PASSWORD) as admin:
        page = admin.get("/hub/spawn/uma?size=small")
        assert page.url.path == "/hub/spawn/uma"
        assert 'id="spawn_form"' in page.text
    with platform.browser("uma", "uma-has-a-password") as browser:
        page = browser.get("/hub/spawn?size=large")
        assert 'id="spawn_form"' in page.text
    assert platform.hub("GET", "/users/uma", token=platform.token("uma")).json()["servers"] == {}


def test_a_server_that_dies_at_once_says_so_at_once_with_its_last_lines(own):
    own.add_user("rosa")
    with own.browser("rosa", "rosa-has-a-password") as browser:
        own.hub("POST", "/users/rosa/server", token=own.token("rosa"))

        def failed():
            seen = browser.get("/hub/spawn-pending/rosa")
            return seen if "did not start" in seen.text else None

        page = wait_until(failed, 20, "the failure is told")  # the Hub itself would wait for 30 s
    assert "no &lt;server&gt; today" in page.text
    assert "with exit status 3" in page.text
    assert "Try again" in page.text
    assert "respond" not in page.text


def test_pods_that_are_started_together_wait_for_their_turn_and_their_page_says_so(pods):
    for name in ("ada", "bob", "cy"):
        pods.add_user(name)
    tokens = {name: pods.token(name) for name in ("ada", "bob", "cy")}

    def told(name):
        """Return all events of a start's progress page until the start is over."""
        path = f"{pods.hub_url}/hub/api/users/{name}/server/progress"
        headers = {"Authorization": f"Bearer {tokens[name]}"}
        with httpx.stream("GET", path, headers=headers, timeout=60) as lines:
            heard = [line for line in lines.iter_lines() if line.startswith("data:")]
        return [json.loads(line.removeprefix("data:")) for line in heard]

    for name in ("ada", "bob", "cy"):
        answer = pods.hub("POST", f"/users/{name}/server", token=tokens[name])
        assert answer.status_code == 202, answer.text
    heard = told("cy")
    messages = [event["message"] for event in heard]
    assert heard[-1]["failed"]
    # its time limit begins with its turn; otherwise it would end together with that of the two before
    assert [message for message in messages if message.startswith(("Waiting", "Beginning"))] == [
        "Waiting: others are starting at this moment. Yours starts by itself.",
        "Beginning",
    ]
    wait_until(
        lambda: not pods.hub("GET", "/users/cy", token=tokens["cy"]).json()["servers"],
        30,
        "nothing is starting any more",
    )


# The first password


def test_an_emptied_hub_database_begins_again_with_a_password_that_works(tmp_path):
    own = Platform(tmp_path / "data")
    try:
        own.start()
        assert "log in as admin, password as in LLMOS_ADMIN_PASSWORD" in own.output
        own.add_user("ada")
        own.start_server("ada", own.token("ada"))
        own.stop()
        own.start()
        assert "LLMOS_ADMIN_PASSWORD is not used" in own.output
        own.stop()
        own.environment = {}
        (own.root / "hub" / "jupyterhub.sqlite").write_bytes(b"")
        own.options = ("--recover", "people")
        own.start()
        password = re.search(r"log in as admin, one-time password {2}(\S+)", own.output)[1]
        assert "others are not. Homes and models are still there (ada)" in own.output
        with httpx.Client(base_url=own.hub_url, follow_redirects=True, timeout=30) as client:
            assert own.log_in(client, "admin", password).url.path == "/hub/change-password"
        refused = own.run("user", "add", "ada")
        assert "--inherit" in refused.stderr
    finally:
        own.stop()


def test_a_short_first_password_is_refused(tmp_path):
    own = Platform(tmp_path / "data", environment={"LLMOS_ADMIN_PASSWORD": "short"})
    done = own.run("up", "--port", str(own.port), "--gateway-port", str(own.gateway_port))
    assert (done.returncode, done.stderr) == (
        1,
        "LLMOS_ADMIN_PASSWORD: A password needs at least 8 characters.\n",
    )
    assert own.clean_up() == []


# A crowd


def test_a_class_that_starts_together_gets_its_servers(own):
    names = [f"pupil{number}" for number in range(8)]  # more than start at once
    for name in names:
        own.add_user(name)
    tokens = {name: own.token(name) for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda n: own.hub("POST", f"/users/{n}/server", token=tokens[n]), names))
    assert {answer.status_code for answer in answers} <= {201, 202}, [answer.text for answer in answers]

    def all_ready():
        found = [own.hub("GET", f"/users/{name}", token=tokens[name]).json()["servers"] for name in names]
        return all(servers and servers[""]["ready"] for servers in found)

    wait_until(all_ready, 180, "everybody's server is ready")
