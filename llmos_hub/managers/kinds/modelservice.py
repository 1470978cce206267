"""The rules for ModelServices: unique model names in a namespace, and a prompt cache that tells nobody of others."""

from __future__ import annotations

from collections.abc import Sequence

from llmos.errors import AlreadyExists, Cause, Forbidden
from llmos.resources import ModelService
from llmos_hub.engines.custom import check_listens
from llmos_hub.managers.rules import KindRules
from llmos_hub.managers.settings import PlatformSettings

__all__ = ["KIND", "ModelServiceRules", "make_rules"]

KIND = ModelService


def make_rules(settings: PlatformSettings) -> KindRules[ModelService]:
    """Return the rules, which depend on no setting."""
    del settings
    return ModelServiceRules()


class ModelServiceRules(KindRules[ModelService]):
    """The rules for ModelServices; a name that clients request belongs to one ModelService of a namespace."""

    def asks_others(self, new: ModelService, old: ModelService | None) -> bool:
        """Return True if its model names change."""
        return old is None or old.model_names != new.model_names

    def admit(self, new: ModelService, old: ModelService | None, others: Sequence[ModelService]) -> None:
        """Refuse names that another ModelService has, and a command that doesn't get an address to listen on.

        Raises
        ------
        Invalid
            The command has neither ``{port}`` nor ``{socket}``. A stored command that doesn't change is not checked.
        AlreadyExists
            A name is taken; there is a cause for each such name.
        """
        if new.spec.engine == "custom" and (old is None or _command(old) != _command(new)):
            check_listens(new.spec)
        taken = {name: other.metadata.name for other in others for name in other.model_names}
        causes = [
            Cause(_field_of(new, name), f'"{name}" is a name of {taken[name]} already')
            for name in new.model_names
            if name in taken
        ]
        if causes:
            raise AlreadyExists(
                "; ".join(str(c) for c in causes) + ". Clients could not tell them apart: choose another name.",
                causes=causes,
            )

    def restrict(self, new: ModelService, old: ModelService | None) -> None:
        """Refuse a shared prompt cache, by which users of a model could find out what others ask it.

        Raises
        ------
        Forbidden
            The cache would become shared.
        """
        if new.spec.prompt_cache != "shared" or (old is not None and old.spec.prompt_cache == "shared"):
            return
        raise Forbidden(
            f"spec.promptCache: only admins may set it to shared in {new.metadata.namespace}: who uses the model could find "
            "out what others ask it. Leave it out.",
            causes=[Cause("spec.promptCache", "shared is for admins to set")],
        )


def _command(service: ModelService) -> tuple[object, ...]:
    return service.spec.engine, service.spec.args, service.spec.env


def _field_of(resource: ModelService, name: str) -> str:
    if name == resource.metadata.name:
        return "metadata.name"
    if name == resource.spec.served_model_name:
        return "spec.servedModelName"
    return f"spec.aliases[{resource.spec.aliases.index(name)}]"
