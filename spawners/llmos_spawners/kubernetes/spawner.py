"""A subclass of KubeSpawner for notebook servers as pods, in a namespace per user.

KubeSpawner creates, watches and deletes pods. This class adds the same choices and environment as on a workstation; the
namespace that the controllers prepare; tokens in a Secret instead of in the pod, and their revocation; and messages about
what a start waits for or why it is refused. It supports JupyterHub 5.5 and 6.

The Hub's service account needs permission to create and get namespaces; to list and watch pods and events in all
namespaces; and in users' namespaces, bound there by the controllers, to create and delete pods, to create, get and list
persistentvolumeclaims, and to create, update and delete secrets (not to read them).
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from kubernetes_asyncio.client import ApiException
from traitlets import List, Unicode, default

from llmos.kubernetes_messages import is_uncounted
from llmos.names import KEY_INSTANCE, KEY_KIND, KEY_NAME
from llmos.resources.quantities import format_bytes, parse_quantity
from llmos.trust import ENV_CA_CERTIFICATES
from llmos_spawners.base import PlatformSpawner, own_default
from llmos_spawners.environment import mint_invoke_token, past_proxies
from llmos_spawners.kubernetes.choosing import ChoosingKubeSpawner
from llmos_spawners.kubernetes.namespace import UNREACHABLE
from llmos_spawners.kubernetes.pods import phase_of
from llmos_spawners.kubernetes.quotas import explain_refusal
from llmos_spawners.profiles.choices import BadOptions
from llmos_spawners.refusals import refusal, too_slow
from llmos_spawners.start_phases import Phase

__all__ = ["LLMOSKubeSpawner"]

SERVICE_ACCOUNT: Final = "llmos"
"""The service account of servers' pods: it has no permissions, and the registry's pull secrets."""
SECRET_VARIABLES: Final = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "OPENAI_API_KEY")

_Create = Callable[["LLMOSKubeSpawner", Any, float], Awaitable[bool]]

_LOOKS_BEFORE_GIVING_UP: Final = 3
"""Consecutive checks, one a second, with a hopeless phase; the kubelet may pass through such a state briefly."""


def _repeated(create: _Create) -> _Create:
    """Let KubeSpawner repeat a request of `create` that didn't reach the cluster, or came before it counted a quota."""

    @functools.wraps(create)
    async def attempt(self: LLMOSKubeSpawner, manifest: Any, request_timeout: float) -> bool:
        try:
            return await create(self, manifest, request_timeout)
        except UNREACHABLE:
            return False
        except ApiException as error:
            if error.status == 403 and is_uncounted(str(error.body)):
                return False
            raise

    return attempt


class LLMOSKubeSpawner(PlatformSpawner, ChoosingKubeSpawner):
    """A spawner of notebook servers as pods with a home, a token for models and the platform's addresses."""

    ca_certificates = Unicode(
        "",
        config=True,
        help="""
        Certificates of the site's own authorities in PEM, trusted in addition to the public ones in every server whose
        image starts ``llmos_spawners.singleuser``.
        """,
    )
    secret_variables = List(
        Unicode(),
        config=True,
        help="""
        Further variables whose values are stored in the server's Secret instead of its pod, in addition to the tokens
        for the Hub and for models: everybody who may read pods can see the values in them.
        """,
    )

    pod_affinity_required: Any
    _start_future: asyncio.Future[str] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._secret_values: dict[str, str] = {}
        # not a default, which the empty list in the chart of Zero to JupyterHub would override
        self.pod_affinity_required = [*self._sorted_dict_values(self.pod_affinity_required), *self._home_affinity()]

    # Defaults, which a site's configuration can override

    @default("pvc_name_template")
    def _default_pvc_name_template(self) -> str:
        return "home" if self.enable_user_namespaces else "home-{username}"

    _default_storage_pvc_ensure = own_default("storage_pvc_ensure", True)
    _default_storage_capacity = own_default("storage_capacity", "10Gi")
    # supported by every storage class
    _default_storage_access_modes = own_default("storage_access_modes", ["ReadWriteOnce"])
    # it is deleted with the namespace, which the controllers keep for a while
    _default_delete_pvc = own_default("delete_pvc", False)
    _default_volumes = own_default("volumes", [{"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}])
    _default_uid = own_default("uid", 1000)
    _default_gid = own_default("gid", 1000)
    _default_fs_gid = own_default("fs_gid", 1000)
    _default_pod_security_context = own_default(
        "pod_security_context",
        {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            # otherwise the kubelet changes the group of every file of a home at each start
            "fsGroupChangePolicy": "OnRootMismatch",
        },
    )
    _default_container_security_context = own_default("container_security_context", {"capabilities": {"drop": ["ALL"]}})
    _default_automount_service_account_token = own_default("automount_service_account_token", False)
    # a first image pull, or a node that an autoscaler adds
    _default_start_timeout = own_default("start_timeout", 600)

    @default("volume_mounts")
    def _default_volume_mounts(self) -> list[dict[str, Any]]:
        return [{"name": "home", "mountPath": self.home}]

    def _home_affinity(self) -> list[dict[str, Any]]:
        """Return the affinity that puts all of a user's servers on one node, if their home can't be mounted on two."""
        one_each = "servername" in self.pvc_name_template or "user_server" in self.pvc_name_template
        if not self.enable_user_namespaces or one_each or self.storage_access_modes != ["ReadWriteOnce"]:
            return []
        selector = {"matchLabels": {KEY_KIND: "Server"}}
        return [{"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]

    @default("service_account")
    def _default_service_account(self) -> str | None:
        return SERVICE_ACCOUNT if self.enable_user_namespaces and self.namespace_timeout else None

    # The pod and its Secret

    @property
    def environment_secret_name(self) -> str:
        """The Secret that holds the server's tokens."""
        return f"{self.pod_name}-environment"

    def get_env(self) -> dict[str, Any]:
        """Return the server's environment, with references to its Secret for secret values."""
        env: dict[str, Any] = super().get_env()
        platform = {**self.platform_environment(), ENV_CA_CERTIFICATES: self.ca_certificates}
        # the site's own values take precedence
        env.update({name: value for name, value in platform.items() if value and name not in self.environment})
        env = past_proxies(env, self.openai_base_url, self.llmos_url, env.get("JUPYTERHUB_API_URL", ""))
        names = [name for name in (*SECRET_VARIABLES, *self.secret_variables) if isinstance(env.get(name), str)]
        self._secret_values = {name: env[name] for name in names}
        for name in names:
            reference = {"name": self.environment_secret_name, "key": name}
            env[name] = {"name": name, "valueFrom": {"secretKeyRef": reference}}
        return env

    async def get_pod_manifest(self) -> Any:
        """Return the pod with labels for network policies, a readiness probe and a termination message."""
        pod = await super().get_pod_manifest()
        pod.metadata.labels.update(self._labels())
        container = pod.spec.containers[0]
        if container.termination_message_policy is None:
            # the status then has the last lines of the log, so the Hub needs no permission to read logs
            container.termination_message_policy = "FallbackToLogsOnError"
        if container.readiness_probe is None:
            # otherwise a server that dies while it starts was "ready" before, and the reason is not reported
            container.readiness_probe = {"tcpSocket": {"port": self.port}, "periodSeconds": 1, "failureThreshold": 600}
        return pod

    def _labels(self) -> dict[str, str]:
        # without llmos.ai/part, the label of the controllers' own workloads
        names = {KEY_KIND: "Server", KEY_NAME: self.name or "default"}
        return {**names, KEY_INSTANCE: self.instance}

    def make_environment_secret(self, owner: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the Secret; with a pod as `owner` it is deleted with the pod."""
        metadata: dict[str, Any] = {
            "name": self.environment_secret_name,
            "namespace": self.namespace,
            "labels": {**self._build_common_labels({}), **self._labels()},
            "annotations": self._build_common_annotations({}),
        }
        if owner:
            reference = {"apiVersion": "v1", "kind": "Pod", "name": owner["name"], "uid": owner["uid"]}
            metadata["ownerReferences"] = [reference]
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "stringData": dict(self._secret_values),
        }

    async def _write_secret(self, owner: dict[str, Any] | None = None) -> None:
        body, timeout = self.make_environment_secret(owner), self.k8s_api_request_timeout
        try:
            await self.api.create_namespaced_secret(self.namespace, body, _request_timeout=timeout)
        except ApiException as exc:
            if exc.status != 409:
                raise
            # left by a Hub that was killed, or created before the pod that becomes its owner
            name = self.environment_secret_name
            await self.api.replace_namespaced_secret(name, self.namespace, body, _request_timeout=timeout)

    async def forget_tokens(self) -> None:
        """Delete the server's Secret."""
        self._secret_values = {}
        try:
            await self.api.delete_namespaced_secret(
                self.environment_secret_name, self.namespace, _request_timeout=self.k8s_api_request_timeout
            )
        except ApiException as exc:
            if exc.status != 404:
                self.log.warning("The Secret of %s is left: %s", self._log_name, exc.reason)
        except UNREACHABLE as exc:
            self.log.warning("The Secret of %s is left; its tokens are revoked: %s", self._log_name, exc)

    # Starting

    async def run_pre_spawn_hook(self) -> None:
        """Reset the progress of an earlier start, then wait for a turn and run the site's hook."""
        self._step, self._start_future = Phase(5, "Beginning"), None
        await super().run_pre_spawn_hook()

    def start(self) -> asyncio.Future[str]:
        """Start the pod.

        Raises
        ------
        HTTPError
            The start is refused, can't succeed, or took longer than `start_timeout`; the message is for the user.
        """
        future = self._start_future = asyncio.ensure_future(self._start_in_words())
        return future

    async def _start_in_words(self) -> str:
        try:
            return await self._start_once()
        finally:
            self.leave_queue()

    async def _start_once(self) -> str:
        self._token = mint_invoke_token(self)
        try:
            url = await self._start_watched()
        except ApiException as exc:
            raise self._refusal(exc) from exc
        except BadOptions as exc:
            raise refusal(str(exc), reason="options") from exc
        except UNREACHABLE as exc:
            said = self._phase()
            raise refusal(f"The server didn't start. {said.message}.", reason="timeout", status=408) from exc
        try:
            await self._write_secret({"name": self.pod_name, "uid": self.pod_id})
        except (ApiException, *UNREACHABLE) as exc:
            self.log.warning("The Secret of %s has no owner: %s", self._log_name, exc)
        return url

    async def _start_watched(self) -> str:
        """Run KubeSpawner's start, and end it if waiting doesn't help or it takes too long.

        Raises
        ------
        HTTPError
            The start can't succeed, or took too long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(1, self.start_timeout - 2)  # before the Hub's own time limit
        starting = asyncio.ensure_future(super()._start())
        hopeless = 0
        try:
            while True:
                await asyncio.wait({starting}, timeout=1)
                if starting.done():
                    url: str = starting.result()
                    return url
                phase = self._phase()
                hopeless = hopeless + 1 if phase.hopeless else 0
                if hopeless >= _LOOKS_BEFORE_GIVING_UP:
                    raise refusal(phase.message, reason=phase.reason, status=424)
                if loop.time() > deadline:
                    raise too_slow(self.start_timeout, phase.message)
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting}, timeout=5)

    def _refusal(self, exc: ApiException) -> Exception:
        """Return an error with a message for the user if the API server refused, otherwise the same exception."""
        try:
            text = json.loads(exc.body or "")["message"]
        except (TypeError, ValueError, KeyError):
            text = str(exc.reason)
        if exc.status not in (403, 404, 422):
            return exc
        claim = text.startswith("persistentvolumeclaims")
        refused = explain_refusal(
            text,
            namespace=self.namespace,
            what="your home" if claim else "this server",
            running=() if claim else self._running(),
        )
        self.log.warning("%s is refused (%s): %s", self._log_name, refused.reason, text)
        return refusal(refused.message, reason=refused.reason, status=403)

    def _running(self) -> Sequence[tuple[str, str]]:
        """Return name and memory of the user's other servers, which use part of the quota."""
        found = []
        for pod in self.pod_reflector.pods.values() if self.pod_reflector else ():
            meta = pod["metadata"]
            if meta["namespace"] != self.namespace or meta["name"] == self.pod_name:
                continue
            limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
            try:
                size = format_bytes(float(parse_quantity(limits["memory"])))
            except (KeyError, ValueError):
                size = "no limit"
            found.append((meta.get("annotations", {}).get("hub.jupyter.org/servername") or "the default server", size))
        return sorted(found)

    @_repeated
    async def _make_create_pvc_request(self, pvc: Any, request_timeout: float) -> bool:
        self._step = Phase(
            12, f"Making the home, {self.storage_capacity}" if not self._pvc_exists else "Finding the home"
        )
        done: bool = await super()._make_create_pvc_request(pvc, request_timeout)
        return done

    @_repeated
    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        self._step = Phase(15, "Making the pod")
        await self._write_secret()
        done: bool = await super()._make_create_pod_request(pod, request_timeout)
        return done

    # Progress

    def _phase(self) -> Phase:
        """Return the phase of the start; before there is a pod, the last step."""
        if waiting := self.waiting:
            return Phase(5, waiting)
        pod = self.pod_reflector.pods.get(f"{self.namespace}/{self.pod_name}") if self.pod_reflector else None
        return phase_of(pod, self.events) or self._step

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the phases of the start for the progress page, and long ones repeatedly with their duration."""
        said, since, shown, progress = "", 0.0, 0.0, 0
        loop = asyncio.get_running_loop()
        while True:
            over = self._start_future is not None and self._start_future.done()
            phase, now = self._phase(), loop.time()
            progress = max(progress, phase.progress)
            if phase.message != said:
                said, since, shown = phase.message, now, now
                yield {"progress": progress, "message": said}
            elif now - shown >= self.slow_spawn_message_frequency > 0:
                shown = now
                yield {"progress": progress, "message": f"{said} ({now - since:.0f} s)"}
            if over:
                return
            await asyncio.sleep(0.5)
