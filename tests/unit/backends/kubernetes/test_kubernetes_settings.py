"""The settings that the chart writes."""

from __future__ import annotations

import pytest

from llmos.errors import UsageError
from llmos_hub.backends.kubernetes.settings import ENV_KUBERNETES_SETTINGS, KubernetesSettings


def test_defaults_where_nothing_is_named() -> None:
    assert KubernetesSettings.from_environment({}) == KubernetesSettings()


def test_read_from_a_file(tmp_path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "release: mine\nimages:\n  vllm: {image: 'docker.io/vllm/vllm-openai:1', python: /usr/bin/python3}\n"
    )
    settings = KubernetesSettings.from_environment({ENV_KUBERNETES_SETTINGS: str(file)})
    assert settings.release == "mine"
    assert settings.image_for("vllm").python == "/usr/bin/python3"
    assert settings.image_for("other").image == "llmos-hub:0.1.0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("drian: 5", 'drian: there is no such field. Did you mean "drain"'),
        ("runAs: 0", "runAs"),
        ("egress: {cidrs: [everywhere]}", '"everywhere" is not a range of addresses'),
        ("- 1", "must be an object"),
        ("a: [", "can't be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text: str, words: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        KubernetesSettings.from_environment({ENV_KUBERNETES_SETTINGS: str(file)})
    assert words in str(raised.value)


def test_no_such_file(tmp_path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        KubernetesSettings.from_environment({ENV_KUBERNETES_SETTINGS: str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("llmos-hub:1", "r.example.org/x/llmos-hub:1"),
        ("vllm/vllm-openai:1", "r.example.org/x/vllm/vllm-openai:1"),
        ("docker.io/vllm/vllm-openai:1", "docker.io/vllm/vllm-openai:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("host:5000/a:1", "host:5000/a:1"),
    ],
)
def test_registry(image: str, name: str) -> None:
    assert KubernetesSettings(registry="r.example.org/x").image_name(image) == name
