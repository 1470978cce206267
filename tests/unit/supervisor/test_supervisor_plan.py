"""The plan: order, commands and environments of the programs, and secrets that must not be visible."""

from pathlib import Path

from llmos_hub.engine_keys import engine_key, engine_secret
from llmos_hub.names import DataDir
from llmos_hub.supervisor.plan import INTERNAL_PORTS, Binaries, UpOptions, make_plan
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.supervisor import adoptable, base_environment

SECRETS = Secrets()
PORTS = {name: 20000 + number for number, name in enumerate(INTERNAL_PORTS)}
BINARIES = Binaries(
    "/venv/bin/python", "/node", "/chp", ("/valkey-server", "-"), "requirepass pw\n", "unix://:pw@/v.sock"
)


def plan(**options):
    return make_plan(UpOptions(DataDir(Path("/data")), **options), SECRETS, PORTS, BINARIES, "mark")


def test_everything_that_needs_the_store_waits_for_it():
    programs = {program.name: program for program in plan()}
    assert list(programs) == ["valkey", "proxy", "api", "gateway", "controllers", "hub"]
    assert {name for name, program in programs.items() if program.after == ("valkey",)} == {
        "api",
        "gateway",
        "controllers",
    }


def test_no_secret_is_an_argument():
    values = [value for name, value in vars(SECRETS).items()]
    for program in plan():
        assert not [value for value in values if any(value in word for word in program.argv)]


def test_each_part_gets_its_own_secrets_only():
    programs = {program.name: " ".join(program.environment.values()) for program in plan()}
    assert SECRETS.encryption_key in programs["api"]
    assert SECRETS.encryption_key in programs["controllers"]
    assert [name for name in ("gateway", "proxy", "hub", "valkey") if SECRETS.encryption_key in programs[name]] == []
    assert SECRETS.supervisor_token not in programs["api"] + programs["gateway"] + programs["controllers"]
    assert SECRETS.proxy_token not in programs["api"] + programs["gateway"] + programs["controllers"]


def test_engines_keys_are_made_by_controllers_and_gateway_alone():
    secrets = {program.name: program.environment.get("LLMOS_ENGINE_SECRET") for program in plan()}
    assert secrets["controllers"] == secrets["gateway"] == engine_secret(SECRETS.encryption_key)
    assert [secrets[name] for name in ("api", "hub", "proxy", "valkey")] == [None] * 4
    assert engine_key(secrets["gateway"], "u1") != engine_key(secrets["gateway"], "u2")
    assert engine_key("", "u1") == ""


def test_an_external_store_has_no_process_and_nobody_waits_for_it():
    options = UpOptions(DataDir(Path("/data")), redis_url="redis://:pw@db:6379/0")
    programs = make_plan(options, SECRETS, PORTS, Binaries("/venv/bin/python", "/node", "/chp"), "mark")
    assert "valkey" not in [program.name for program in programs]
    assert all(program.after == () for program in programs)
    api = next(program for program in programs if program.name == "api")
    assert api.environment["LLMOS_REDIS_URL"] == "redis://:pw@db:6379/0"


def test_addresses_for_this_machine_when_listening_on_all():
    options = UpOptions(DataDir(Path("/data")), host="0.0.0.0", port=8100)
    assert options.hub_url == "http://127.0.0.1:8100"
    assert UpOptions(DataDir(Path("/data")), host="::").hub_url == "http://[::1]:8000"


def test_only_what_would_be_started_the_same_is_adopted():
    class Recorded:
        def __init__(self, fingerprint):
            self.fingerprint = fingerprint

    first, other = plan(), plan(gateway_port=8011)
    records = {program.name: Recorded(program.fingerprint) for program in first}
    assert set(adoptable(first, records)) == set(records)
    # the gateway's address has changed, which API, controllers and Hub also show to users
    assert set(adoptable(other, records)) == {"valkey", "proxy"}


def test_what_was_set_for_another_platform_does_not_leak_in():
    environ = {"PATH": "/bin", "JUPYTERHUB_API_TOKEN": "x", "LLMOS_INSTANCE": "y", "HF_TOKEN": "z"}
    assert base_environment(environ) == {"PATH": "/bin", "HF_TOKEN": "z"}


def test_settings_of_the_parts_reach_them():
    settings = {
        "LLMOS_GATEWAY_ALLOWED_ORIGINS": "https://app.example.org",
        "LLMOS_MODELS_MIRROR": "http://mirror/models",
        "LLMOS_SETTING_API_MAX_STREAMS_PER_USER": "7",
    }
    assert base_environment({**settings, "LLMOS_URL": "http://another"}) == settings


def test_what_a_starter_has_set_for_other_pythons_and_nodes_reaches_no_part():
    leaks = {
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/x",
        "VIRTUAL_ENV": "/x",
        "NODE_OPTIONS": "--require /x",
        "JUPYTER_PATH": "/x",
    }
    kept = {"PIP_INDEX_URL": "https://mirror.example/simple", "NODE_EXTRA_CA_CERTS": "/etc/ours.pem", "PATH": "/bin"}
    assert base_environment({**leaks, **kept}) == kept


def test_the_parts_reach_each_other_past_a_proxy():
    environ = base_environment({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": ".corp"})
    assert environ["NO_PROXY"] == environ["no_proxy"] == ".corp,localhost,127.0.0.1,::1"
