"""The rules for ModelServices: a command that can be reached, and a prompt cache that tells nobody of others."""

from __future__ import annotations

from llmos.errors import Cause, Forbidden
from llmos.resources import ModelService
from llmos_hub.engines.custom import check_listens
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.stores.base import Store

__all__ = ["KIND", "RULES", "ModelServiceRules"]


class ModelServiceRules(KindRules[ModelService]):
    """The rules for ModelServices."""

    async def admit(self, new: ModelService, old: ModelService | None, reader: Store) -> None:
        """Refuse a command that doesn't get an address to listen on.

        Raises
        ------
        Invalid
            The command has neither ``{port}`` nor ``{socket}``. A stored command that doesn't change is not checked.
        """
        del reader
        if new.spec.engine == "custom" and (old is None or _command(old) != _command(new)):
            check_listens(new.spec)

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


KIND, RULES = ModelService, ModelServiceRules


def _command(service: ModelService) -> tuple[object, ...]:
    return service.spec.engine, service.spec.args, service.spec.env
