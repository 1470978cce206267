"""An external Valkey or Redis, by URL, in place of the embedded one."""

import llmos
from tests.support.platform import running_platform


def test_state_is_kept_in_the_redis_that_was_named(tmp_path, valkey_factory):
    server = valkey_factory
    with running_platform(tmp_path / "data", options=("--redis-url", server.url)) as platform:
        assert "valkey" not in platform.status()["processes"]
        assert "test:pass" not in platform.output
        with llmos.Client(url=platform.api_url, token=platform.client["token"]) as client:
            client.credentials.apply({"kind": "Credential", "metadata": {"name": "mine"}, "spec": {"data": {"A": "b"}}})
    with (
        running_platform(tmp_path / "data", options=("--redis-url", server.url)) as platform,
        llmos.Client(url=platform.api_url, token=platform.client["token"]) as client,
    ):
        assert client.credentials.get("mine").status.keys == ["A"]
