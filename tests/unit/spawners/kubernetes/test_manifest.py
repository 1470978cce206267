"""LLMOSKubeSpawner without a cluster: the objects that it makes from a site's configuration and a user's choices."""

import datetime as dt
from types import SimpleNamespace

import pytest
from kubernetes_asyncio.client import ApiException
from llmos_spawners.kubernetes import LLMOSKubeSpawner
from llmos_spawners.kubernetes import spawner as module
from llmos_spawners.profiles.choices import BadOptions
from llmos_spawners.profiles.config import default_sizes
from tornado import web
from traitlets import TraitError
from traitlets.config import Config

from llmos.names import KEY_OWNER, KEY_OWNER_CREATED, KEY_PREPARED

BORN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC).replace(tzinfo=None)
BORN_TEXT = "2026-01-02T03:04:05Z"


class FakeAPI:
    """A stub of a cluster: namespaces, claims and Secrets."""

    def __init__(self):
        self.namespaces, self.secrets, self.claims, self.forbidden = {}, {}, [], set()
        self.calls = []

    def _check(self, call):
        self.calls.append(call)
        if call in self.forbidden:
            raise ApiException(status=403, reason="Forbidden")

    async def read_namespace(self, name, **_):
        self._check("read_namespace")
        if name not in self.namespaces:
            raise ApiException(status=404, reason="NotFound")
        return self.namespaces[name]

    async def create_namespace(self, body, **_):
        self._check("create_namespace")
        meta = body["metadata"]
        self.add_namespace(meta["name"], meta["annotations"])
        return self.namespaces[meta["name"]]

    def add_namespace(self, name, annotations, phase="Active"):
        self.namespaces[name] = SimpleNamespace(
            metadata=SimpleNamespace(annotations=annotations), status=SimpleNamespace(phase=phase)
        )

    async def list_namespaced_persistent_volume_claim(self, namespace, **_):
        self._check("list_claims")
        return SimpleNamespace(items=[SimpleNamespace(metadata=SimpleNamespace(name=name)) for name in self.claims])

    async def create_namespaced_secret(self, namespace, body, **_):
        if body["metadata"]["name"] in self.secrets:
            raise ApiException(status=409, reason="AlreadyExists")
        self.secrets[body["metadata"]["name"]] = body

    async def replace_namespaced_secret(self, name, namespace, body, **_):
        assert name in self.secrets
        self.secrets[name] = body

    async def delete_namespaced_secret(self, name, namespace, **_):
        if self.secrets.pop(name, None) is None:
            raise ApiException(status=404, reason="NotFound")


@pytest.fixture
def cluster(monkeypatch):
    api = FakeAPI()
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda *_: api)
    return api


@pytest.fixture
def make(cluster):
    def make(name="ada", server="", options=None, **config):
        settings = Config()
        for key, value in config.items():
            setattr(settings.LLMOSKubeSpawner, key, value)
        hub = SimpleNamespace(
            public_host="", base_url="/hub/", api_url="http://hub:8081/hub/api", url="http://hub:8081"
        )
        user = SimpleNamespace(name=name, id=1, url=f"/user/{name}", escaped_name=name)
        user.orm_user = SimpleNamespace(created=BORN, api_tokens=[])
        orm = SimpleNamespace(name=server, server=None, user_options=None, state=None)
        spawner = LLMOSKubeSpawner(
            hub=hub,
            user=user,
            orm_spawner=orm,
            config=settings,
            api_token="hub-token",
            oauth_client_id="client",
            user_options=options or {},
        )
        spawner._token = "invoke-token"
        return spawner

    return make


async def manifest(spawner):
    await spawner.load_user_options()
    return await spawner.get_pod_manifest()


@pytest.mark.parametrize(
    ("name", "namespace"), [("ada", "user-ada"), ("Ada.L@example.org", "user-ada-l-example-org--c224d202e0a08d17")]
)
async def test_each_person_has_the_namespace_that_the_rest_of_the_platform_means(make, name, namespace):
    from llmos.names import user_namespace

    assert make(name).namespace == namespace == user_namespace(name)


async def test_a_namespace_says_whose_it_is_whatever_the_name(make):
    made = make("{braces}", instance="prod").make_namespace()["metadata"]
    assert made["annotations"] == {KEY_OWNER: "{braces}", KEY_OWNER_CREATED: BORN_TEXT}
    assert made["labels"]["app.kubernetes.io/instance"] == "prod"
    assert made["labels"]["llmos.ai/owner-kind"] == "user"


async def test_tokens_are_references_and_their_values_in_the_secret(make):
    spawner = make(openai_base_url="http://gateway/v1", llmos_url="http://api", environment={"KEY": "k", "PLAIN": "p"})
    spawner.secret_variables = ["KEY"]
    pod = await manifest(spawner)
    env = {one.name: one for one in pod.spec.containers[0].env}
    for name in ("JUPYTERHUB_API_TOKEN", "OPENAI_API_KEY", "KEY"):
        assert env[name].value is None
        assert env[name].value_from["secretKeyRef"]["name"] == "jupyter-ada-environment"
    assert env["OPENAI_BASE_URL"].value == "http://gateway/v1"
    assert env["PLAIN"].value == "p"
    secret = spawner.make_environment_secret({"name": "jupyter-ada", "uid": "u1"})
    assert secret["stringData"]["OPENAI_API_KEY"] == "invoke-token"
    assert secret["stringData"]["KEY"] == "k"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u1"
    text = str(pod.to_dict())
    assert "invoke-token" not in text
    assert "hub-token" not in text


async def test_a_sites_own_authorities_reach_the_server(make):
    assert make(ca_certificates="-----BEGIN").get_env()["LLMOS_CA_CERTIFICATES"] == "-----BEGIN"
    assert "LLMOS_CA_CERTIFICATES" not in make().get_env()


async def test_past_a_web_proxy_the_platform_is_asked_directly(make):
    proxy = {"HTTPS_PROXY": "http://proxy.example.org:3128", "NO_PROXY": "example.org"}
    addresses = {"llmos_url": "http://llmos-api.llmos.svc/services/llmos", "openai_base_url": "http://models.test/v1"}
    env = make(environment=proxy, **addresses).get_env()
    assert env["NO_PROXY"] == env["no_proxy"]
    hosts = env["NO_PROXY"].split(",")
    assert hosts[0] == "example.org"
    assert {"models.test", "llmos-api.llmos.svc", ".svc", "localhost"} <= set(hosts)
    assert "NO_PROXY" not in make(**addresses).get_env()


async def test_a_pod_keeps_to_the_restricted_standard_and_has_no_account_token(make):
    pod = await manifest(make())
    container = pod.spec.containers[0]
    assert pod.spec.automount_service_account_token is False
    assert pod.spec.service_account_name == "llmos"
    assert pod.spec.security_context["runAsNonRoot"] is True
    assert pod.spec.security_context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.spec.security_context["fsGroup"] == 1000
    assert container.security_context["runAsUser"] == 1000
    assert container.security_context["allowPrivilegeEscalation"] is False
    assert container.security_context["capabilities"] == {"drop": ["ALL"]}
    assert pod.metadata.labels["llmos.ai/kind"] == "Server"
    assert "llmos.ai/part" not in pod.metadata.labels


async def test_named_servers_share_the_home_and_so_the_node(make):
    pod = await manifest(make(server="lab"))
    assert pod.metadata.labels["llmos.ai/name"] == "lab"
    (volume,) = pod.spec.volumes
    assert volume.persistent_volume_claim == {"claimName": "home"}
    (term,) = pod.spec.affinity.pod_affinity.required_during_scheduling_ignored_during_execution
    assert term.label_selector == {"matchLabels": {"llmos.ai/kind": "Server"}}
    shared = await manifest(make(server="lab", storage_access_modes=["ReadWriteMany"]))
    assert shared.spec.affinity is None


GPU = {
    "name": "a100",
    "title": "A100",
    "count": 2,
    "node_selector": {"gpu": "a100"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "runtime_class": "nvidia",
}
DATA = {
    "name": "data",
    "title": "Data",
    "mount": "/data",
    "volume": {"persistentVolumeClaim": {"claimName": "data"}},
}
SITE = {
    "sizes": [{"name": "tiny", "cpu": "500m", "memory": "512Mi", "memory_request": "256Mi"}],
    "images": [{"name": "py", "image": "reg/py:1"}, {"name": "r", "image": "reg/r:1"}],
    "gpus": [GPU],
    "shared_volumes": [DATA],
    "tolerations": [{"key": "users", "operator": "Exists"}],
}


async def test_a_choice_becomes_a_pod(make, cluster):
    cluster.claims = ["home", "llmos-models", "mine"]
    options = {"size": "tiny", "image": "r", "gpu": "a100", "volumes": ["data", "mine"]}
    pod = await manifest(make(options=options, **SITE))
    container = pod.spec.containers[0]
    assert container.image == "reg/r:1"
    assert container.resources.limits == {"cpu": 0.5, "memory": 512 * 2**20, "nvidia.com/gpu": "2"}
    assert container.resources.requests == {"cpu": 0.05, "memory": 256 * 2**20, "nvidia.com/gpu": "2"}
    assert pod.spec.node_selector == {"gpu": "a100"}
    assert [t.key for t in pod.spec.tolerations] == ["users", "gpu"]
    assert pod.spec.runtime_class_name == "nvidia"
    mounts = {mount.mount_path: mount.read_only for mount in container.volume_mounts}
    assert mounts == {"/home/llmos": None, "/data": True, "/home/llmos/volumes/mine": False}


async def test_without_sizes_of_ours_the_sites_limits_are_the_only_size(make, cluster):
    """A Hub that existed before LLMOS keeps its own limits, such as 600M from its chart."""
    cluster.claims = ["home"]
    site = {"mem_limit": "600M", "mem_guarantee": "200M", "cpu_limit": 0.5, "cpu_guarantee": 0.05}
    for options in ({}, {"size": "large"}):  # the second one is remembered from a start when there were sizes
        resources = (await manifest(make(options=options, **site))).spec.containers[0].resources
        assert resources.limits == {"cpu": 0.5, "memory": 600 * 2**20}
        assert resources.requests == {"cpu": 0.05, "memory": 200 * 2**20}
    assert await make(**site).render_options_form() == "", "nothing to choose"
    form = await make(gpus=[GPU], **site).render_options_form()
    assert 'name="gpu"' in form
    assert 'name="size"' not in form


async def test_a_site_without_limits_goes_on_without(make):
    resources = (await manifest(make())).spec.containers[0].resources
    assert not resources.limits
    assert not resources.requests


def test_a_hub_of_ours_offers_sizes(make):
    spawner = make(sizes=default_sizes())
    assert [size.name for size in spawner.profiles.sizes] == ["small", "medium", "large"]


async def test_nothing_of_one_choice_stays_in_the_next(make, cluster):
    spawner = make(options={"gpu": "a100", "image": "r", "volumes": ["data"]}, **SITE)
    await manifest(spawner)
    spawner.user_options = {}
    pod = await manifest(spawner)
    assert pod.spec.containers[0].image == "reg/py:1"
    assert pod.spec.node_selector in (None, {})
    assert "nvidia.com/gpu" not in pod.spec.containers[0].resources.limits
    assert len(pod.spec.volumes) == 1
    assert pod.spec.runtime_class_name is None


async def test_a_volume_that_is_not_the_persons_is_refused_with_those_that_are(make, cluster):
    cluster.claims = ["home", "mine"]
    with pytest.raises(BadOptions, match=r'there is no "other"\. There are: mine\.'):
        await make(options={"volumes": ["other"]}).load_user_options()


async def test_the_form_offers_what_the_site_has_and_the_persons_volumes(make, cluster):
    cluster.claims = ["home", "mine"]
    form = await make(**SITE).render_options_form()
    for word in ('value="tiny"', 'value="r"', 'value="a100"', 'value="data"', 'value="mine"'):
        assert word in form
    assert 'value="home"' not in form
    cluster.forbidden = {"list_claims"}
    assert 'value="mine"' not in await make(**SITE).render_options_form()


async def test_a_sites_own_profile_list_is_left_to_kubespawner(make):
    profiles = [{"display_name": "Big", "slug": "big", "kubespawner_override": {"mem_limit": "3G"}}]
    spawner = make(options={"profile": "big"}, profile_list=profiles)
    assert "Big" in spawner.options_form
    await spawner.load_user_options()
    assert spawner.mem_limit == 3 * 1024**3
    assert spawner.options_from_form({"profile": ["big"]}) == {"profile": "big"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"sizes": [{"name": "a", "cpu": 1, "memory": "2GiB"}]}, r'sizes\[0\]\.memory: "2GiB".*Did you mean "2Gi"'),
        ({"sizes": [{"name": "a", "cpu": 1}]}, r"sizes\[0\] \(a\) lacks memory"),
        ({"images": [{"name": "a", "image": "x", "tag": "1"}]}, r'images\[0\] has no "tag"'),
        ({"gpus": [{"name": "A 100"}]}, r"gpus\[0\]\.name"),
        ({"shared_volumes": [DATA, DATA]}, r'two of the name "data"'),
    ],
)
async def test_a_mistake_in_the_configuration_is_named(make, config, words):
    with pytest.raises(TraitError, match=words):
        make(**config)


# The namespace


async def test_a_missing_namespace_is_made_and_waited_for(make, cluster):
    spawner = make(namespace_timeout=5)

    original = cluster.create_namespace

    async def create(body, **kwargs):
        found = await original(body, **kwargs)
        bare = found.metadata.annotations
        cluster.add_namespace("user-ada", {**bare, KEY_PREPARED: "1"})  # as the controllers do a moment later
        return SimpleNamespace(metadata=SimpleNamespace(annotations=bare), status=found.status)

    cluster.create_namespace = create
    await spawner._ensure_namespace()
    assert cluster.calls.count("create_namespace") == 1
    assert cluster.calls.count("read_namespace") == 2


async def test_without_controllers_the_start_is_refused_and_says_so(make, cluster):
    with pytest.raises(web.HTTPError) as caught:
        await make(namespace_timeout=0.3)._ensure_namespace()
    assert "was not prepared within 0.3 s" in caught.value.jupyterhub_message
    assert caught.value.status_code == 503


async def test_a_hub_that_may_not_make_namespaces_waits_for_whoever_may(make, cluster):
    cluster.forbidden = {"create_namespace"}
    with pytest.raises(web.HTTPError, match="not prepared"):
        await make(namespace_timeout=0.3)._ensure_namespace()
    cluster.add_namespace("user-ada", {KEY_OWNER: "ada", KEY_OWNER_CREATED: BORN_TEXT, KEY_PREPARED: "1"})
    await make()._ensure_namespace()


async def test_a_site_without_controllers_uses_what_there_is(make, cluster):
    cluster.add_namespace("user-ada", {})
    spawner = make(namespace_timeout=0)
    await spawner._ensure_namespace()
    assert spawner.service_account is None


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({}, "belongs to somebody else"),
        ({KEY_OWNER: "grace"}, "belongs to grace"),
        ({KEY_OWNER: "ada", KEY_OWNER_CREATED: "2001-01-01T00:00:00Z"}, "belongs to an earlier person of that name"),
    ],
)
async def test_somebody_elses_namespace_is_never_used(make, cluster, annotations, words):
    cluster.add_namespace("user-ada", {**annotations, KEY_PREPARED: "1"})
    with pytest.raises(web.HTTPError) as caught:
        await make()._ensure_namespace()
    assert words in caught.value.jupyterhub_message
    assert caught.value.status_code == 403


async def test_a_namespace_on_its_way_out_is_not_used(make, cluster):
    cluster.add_namespace("user-ada", {KEY_OWNER: "ada", KEY_PREPARED: "1"}, phase="Terminating")
    with pytest.raises(web.HTTPError, match="is being deleted"):
        await make()._ensure_namespace()


# The Secret's life


async def test_a_secret_left_by_a_dead_hub_is_replaced_and_one_that_is_gone_is_no_trouble(make, cluster):
    spawner = make()
    spawner.get_env()
    await spawner._write_secret()
    spawner._token = "newer"
    spawner.get_env()
    await spawner._write_secret({"name": "jupyter-ada", "uid": "u2"})
    (secret,) = cluster.secrets.values()
    assert secret["stringData"]["OPENAI_API_KEY"] == "newer"
    assert secret["metadata"]["ownerReferences"]
    await spawner.forget_tokens()
    assert cluster.secrets == {}
    await spawner.forget_tokens()


async def test_after_a_stop_tokens_and_secret_are_gone_and_the_sites_hook_ran(make, cluster, monkeypatch):
    ended = []
    monkeypatch.setattr("llmos_spawners.base.revoke_tokens", ended.append)
    spawner = make(post_stop_hook=lambda spawner: ended.append("hook"))
    spawner.get_env()
    await spawner._write_secret()
    await spawner.run_post_stop_hook()
    assert ended == [spawner, "hook"]
    assert cluster.secrets == {}
    assert spawner._token == ""


# Starting


async def start(spawner, monkeypatch, inner):
    monkeypatch.setattr(module, "mint_invoke_token", lambda _: "minted")
    monkeypatch.setattr("kubespawner.spawner.KubeSpawner._start", inner)
    return await spawner.start()


async def test_a_quota_refusal_reaches_the_person(make, cluster, monkeypatch):
    body = (
        '{"message": "pods \\"x\\" is forbidden: exceeded quota: llmos, requested: limits.memory=2Gi, '
        'used: limits.memory=1Gi, limited: limits.memory=2Gi"}'
    )

    async def refused(self):
        error = ApiException(status=403, reason="Forbidden")
        error.body = body
        raise error

    with pytest.raises(web.HTTPError) as caught:
        await start(make(), monkeypatch, refused)
    assert "1.0 GiB of your 2.0 GiB of memory are left" in caught.value.jupyterhub_message
    assert caught.value.status_code == 403


async def test_what_takes_too_long_says_where_it_stood(make, cluster, monkeypatch):
    import asyncio

    async def hangs(self):
        await asyncio.sleep(60)

    spawner = make(start_timeout=3)
    with pytest.raises(web.HTTPError) as caught:
        await start(spawner, monkeypatch, hangs)
    assert "after 3 s it was here: Beginning" in caught.value.jupyterhub_message


async def test_an_error_of_the_cluster_stays_the_hubs_error(make, cluster, monkeypatch):
    async def broken(self):
        raise ApiException(status=500, reason="etcd is away")

    with pytest.raises(ApiException):
        await start(make(), monkeypatch, broken)


# On a Hub that existed before LLMOS


EARLIER = {
    "kubespawner_version": "7.0.0",
    "pod_name": "jupyter-ada",
    "namespace": "jhub",
    "dns_name": "jupyter-ada.jhub.svc.cluster.local",
    "pvc_name": "claim-ada",
}


def taken_over(make, state, *, runs):
    spawner = make()
    spawner.orm_spawner.server = object() if runs else None
    spawner.load_state(dict(state))
    return spawner


def place(spawner):
    return spawner.namespace, spawner.pvc_name, spawner.dns_name.split(".")[1], spawner._pvc_exists


HOME = ("user-ada", "home", "user-ada", False)


def test_a_server_that_another_spawner_started_is_followed_where_it_is_until_it_stops(make):
    spawner = taken_over(make, EARLIER, runs=True)
    assert place(spawner) == ("jhub", "claim-ada", "jhub", True)
    # nothing is added to its state, as the other spawner may have to read it again
    assert spawner.get_state().items() >= {key: EARLIER[key] for key in ("pod_name", "namespace", "pvc_name")}.items()
    assert "llmos" not in spawner.get_state()
    spawner.clear_state()
    assert place(spawner) == HOME


def test_the_next_start_is_in_the_persons_own_namespace_also_after_a_restart_of_the_hub(make):
    spawner = taken_over(make, EARLIER, runs=False)
    assert place(spawner) == HOME
    again = taken_over(make, spawner.get_state(), runs=False)
    assert place(again) == HOME


@pytest.mark.parametrize("stopped", [True, False])
def test_a_hub_that_llmos_has_left_finds_its_spawners_own_state(make, stopped):
    spawner = taken_over(make, EARLIER, runs=False)
    spawner._pvc_exists = True  # as after a start
    running = taken_over(make, spawner.get_state(), runs=True)
    assert place(running) == ("user-ada", "home", "user-ada", True)
    if stopped:
        running.clear_state()
    left = running.get_state()
    assert left.items() >= EARLIER.items()
    # LLMOS, installed again, reads its own state
    assert place(taken_over(make, left, runs=False)) == ("user-ada", "home", "user-ada", True)


def test_who_is_new_leaves_nothing_that_would_lead_another_spawner_into_their_namespace(make):
    assert set(taken_over(make, {}, runs=True).get_state()) == {"llmos"}


async def test_an_empty_list_of_affinities_does_not_part_servers_from_their_home(make):
    pod = await manifest(make(pod_affinity_required=[]))
    (term,) = pod.spec.affinity.pod_affinity.required_during_scheduling_ignored_during_execution
    assert term.topology_key == "kubernetes.io/hostname"
    one_each = make(pod_affinity_required=[], pvc_name_template="claim-{user_server}")
    assert (await manifest(one_each)).spec.affinity is None


async def test_what_is_made_before_a_new_quota_is_counted_is_repeated(make, cluster):
    spawner = make()
    pod = await manifest(spawner)
    refusals = [f"status unknown for quota: llmos, resources: {what}" for what in ("pods", "persistentvolumeclaims")]
    refusals.append("exceeded quota: llmos, requested: pods=1, used: pods=1, limited: pods=1")

    async def refuse(*_, **__):
        answer = ApiException(status=403, reason="Forbidden")
        answer.body = f'{{"message": "it is forbidden: {refusals.pop(0)}"}}'
        raise answer

    cluster.create_namespaced_pod = refuse
    cluster.create_namespaced_persistent_volume_claim = cluster.read_namespaced_persistent_volume_claim = refuse
    assert await spawner._make_create_pod_request(pod, 3) is False
    refusals.insert(1, "not found")  # KubeSpawner's look for an existing claim
    assert await spawner._make_create_pvc_request(spawner.get_pvc_manifest(), 3) is False
    with pytest.raises(ApiException, match="Forbidden"):
        await spawner._make_create_pod_request(pod, 3)
