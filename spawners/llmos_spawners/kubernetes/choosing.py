"""The choices at the start of a server as a pod: size, image, GPU and volumes, and their effect on the pod."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Final

from kubernetes_asyncio.client import ApiException
from traitlets import Bool, Dict, List, TraitError, Unicode, default, validate

from llmos.names import MODELS_CLAIM
from llmos_spawners.environment import chosen_options
from llmos_spawners.kubernetes.namespace import UNREACHABLE, NamespacedKubeSpawner
from llmos_spawners.profiles.choices import BadOptions, Profiles, StartChoices
from llmos_spawners.profiles.config import read_profiles
from llmos_spawners.profiles.form import render_form

__all__ = ["ChoosingKubeSpawner"]


# Traits that a selection changes; every start first resets them to the site's values.
_CHOSEN_TRAITS: Final = (
    *("image", "cpu_limit", "cpu_guarantee", "mem_limit", "mem_guarantee"),
    *("extra_resource_limits", "extra_resource_guarantees", "node_selector", "tolerations"),
    *("extra_pod_config", "volumes", "volume_mounts"),
)


class ChoosingKubeSpawner(NamespacedKubeSpawner):
    """A KubeSpawner with the same form and API options as on a workstation."""

    sizes = List(
        Dict(),
        config=True,
        help="""
        The sizes that users can choose: a list of ``{name, title, description, cpu, memory}``, with ``cpu_request`` and
        ``memory_request`` if the pod's requests are not to be a tenth of the cores and all of the memory. If empty, all
        servers have the site's own limits (``KubeSpawner.cpu_limit``, ``mem_limit``, ``cpu_guarantee``,
        ``mem_guarantee``) and there is nothing to choose.
        """,
    )
    images = List(
        Dict(),
        config=True,
        help="""
        The images that users can choose, the first of which is the default: a list of ``{name, title, image,
        description}``. If empty, all servers use ``KubeSpawner.image``.
        """,
    )
    gpus = List(
        Dict(),
        config=True,
        help="""
        The GPUs that users can choose: a list of ``{name, title, count, resource, node_selector, tolerations,
        runtime_class}``. The default is none, since a cluster without a device plugin would never start such a server.
        """,
    )
    shared_volumes = List(
        Dict(),
        config=True,
        help="""
        Volumes that users can mount in addition to their home: a list of ``{name, title, volume, mount, read_only,
        always}``, with ``volume`` as in a pod. They are read-only unless ``read_only`` is false, since they are shared.
        """,
    )
    own_volumes = Bool(
        True,
        config=True,
        help="""
        Let users mount the persistent volume claims of their own namespace at ``~/volumes/NAME``.
        """,
    )
    home = Unicode(
        "/home/llmos", config=True, help="Where the home is mounted: the home of the images' user, uid 1000."
    )

    # Types of KubeSpawner's traits
    extra_resource_limits: dict[str, str]
    extra_resource_guarantees: dict[str, str]
    node_selector: dict[str, str]
    tolerations: Any
    extra_pod_config: dict[str, Any]
    volumes: Any
    volume_mounts: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._site: dict[str, Any] = {}

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return {}  # not used: `load_user_options` applies the options, on all versions of KubeSpawner

    @default("options_form")
    def _default_options_form(self) -> Any:
        if self.profile_list:
            return super()._options_form_default()
        return type(self).render_options_form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        if self.profile_list:
            return super()._options_from_form_default()
        return self.profiles.from_form

    @validate("sizes", "images", "gpus", "shared_volumes")
    def _check_profiles(self, proposal: Any) -> Any:
        name = {"shared_volumes": "volumes"}.get(proposal.trait.name, proposal.trait.name)
        try:
            read_profiles(**{name: proposal.value})
        except ValueError as exc:
            raise TraitError(f"{type(self).__name__}: {exc}") from None
        return proposal.value

    # Choices

    @property
    def profiles(self) -> Profiles:
        """The available choices; the default sizes if the site has none."""
        return read_profiles(
            sizes=self.sizes,
            images=self.images,
            gpus=self.gpus,
            volumes=self.shared_volumes,
            own_claims=self.own_volumes and self.enable_user_namespaces,
        )

    async def render_options_form(self) -> str:
        """Return the form, including the user's own volumes; empty if there is nothing to choose."""
        claims = await self._claims() if self.profiles.own_claims else []
        profiles = self.profiles if self.sizes else replace(self.profiles, sizes=())
        if not (self.sizes or len(profiles.images) > 1 or profiles.gpus or profiles.volumes or claims):
            return ""  # without a form the Hub starts the server at once
        return render_form(profiles, chosen_options(self), claims)

    async def _claims(self) -> list[str]:
        """Return the claims in the user's namespace that a server can mount; none if it doesn't exist yet."""
        try:
            found = await self.api.list_namespaced_persistent_volume_claim(
                self.namespace, _request_timeout=self.k8s_api_request_timeout
            )
        except (ApiException, *UNREACHABLE) as exc:
            self.log.info("The volumes of %s can't be listed: %s", self.namespace, exc)
            return []
        names = (claim.metadata.name for claim in found.items)
        return sorted(name for name in names if name not in (self.pvc_name, MODELS_CLAIM))

    async def load_user_options(self) -> None:
        """Apply a start's options from the form or the API; with `profile_list`, as KubeSpawner does.

        Raises
        ------
        BadOptions
            An option or a value doesn't exist.
        """
        if self.profile_list:
            await super().load_user_options()
            return
        options = dict(self.user_options or {})
        if not self.sizes:
            options.pop("size", None)  # remembered from a start when the site had sizes
        selection = self.profiles.choose(options)
        if selection.claims and (missing := sorted(set(selection.claims) - set(there := await self._claims()))):
            raise BadOptions(f'volumes: there is no "{missing[0]}". There are: {", ".join(there) or "none"}.')
        self._apply_selection(selection)

    def _apply_selection(self, selection: StartChoices) -> None:
        self._site = self._site or {name: copy.deepcopy(getattr(self, name)) for name in _CHOSEN_TRAITS}
        for name, value in self._site.items():
            setattr(self, name, copy.deepcopy(value))
        size = selection.size
        if self.sizes:
            self.cpu_limit, self.mem_limit = size.cpu, size.memory
            self.cpu_guarantee = size.cpu / 10 if size.cpu_request is None else size.cpu_request
            self.mem_guarantee = size.memory if size.memory_request is None else size.memory_request
        if selection.image:
            self.image = selection.image.image
        if gpu := selection.gpu:
            self.extra_resource_limits = {**self.extra_resource_limits, gpu.resource: str(gpu.count)}
            self.extra_resource_guarantees = {**self.extra_resource_guarantees, gpu.resource: str(gpu.count)}
            self.node_selector = {**self.node_selector, **gpu.node_selector}
            self.tolerations = [*self._sorted_dict_values(self.tolerations), *gpu.tolerations]
            if gpu.runtime_class:
                self.extra_pod_config = {**self.extra_pod_config, "runtimeClassName": gpu.runtime_class}
        volumes, mounts = self._volumes_of(selection)
        self.volumes = [*self._sorted_dict_values(self.volumes), *volumes]
        self.volume_mounts = [*self._sorted_dict_values(self.volume_mounts), *mounts]

    def _volumes_of(self, selection: StartChoices) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        shared = [({**one.volume, "name": f"shared-{one.name}"}, one.mount, one.read_only) for one in selection.volumes]
        own = [
            (
                {"name": f"own-{index}", "persistentVolumeClaim": {"claimName": name}},
                f"{self.home}/volumes/{name}",
                False,
            )
            for index, name in enumerate(selection.claims)
        ]
        mounts = [{"name": v["name"], "mountPath": where, "readOnly": ro} for v, where, ro in (*shared, *own)]
        return [volume for volume, _, _ in (*shared, *own)], mounts
