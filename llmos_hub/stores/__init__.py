"""The stores of resources: the protocol, and its implementations on Valkey or Redis and in a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos_hub.settings import ProcessSettings
    from llmos_hub.stores.base import Store

__all__ = ["open_store", "open_store_for"]


def open_store(url: str, encryption_key: str = "") -> Store:
    """Return the store at an address; it connects on the first call.

    Parameters
    ----------
    url
        ``unix://:PASSWORD@/path/valkey.sock`` or ``redis://:PASSWORD@host:6379/0``.
    encryption_key
        The Fernet key that encrypts write-only fields, or several, the newest first; empty in a
        process that must not read them: it sees those fields as empty and can't write them.

    Raises
    ------
    UsageError
        The URL or a key can't be read.
    """
    # imported here, so that a process which only names the types doesn't load the client library
    from llmos_hub.stores.redis.sealing import Sealer
    from llmos_hub.stores.redis.store import RedisStore
    from llmos_hub.valkey.database import Database

    return RedisStore(Database(url), Sealer(encryption_key))


def open_store_for(settings: ProcessSettings, *, secrets: bool = True, everywhere: bool = False) -> Store:
    """Return the store that a process of the platform is configured to use; it connects on the first call.

    In a cluster it shows only resources in the release's own namespaces: another release may serve the others.

    Parameters
    ----------
    settings
        ``store`` selects the store; ``redis_url`` and ``encryption_key`` give access to the database.
    secrets
        Whether the process may read Credentials; if False, the key in its settings is ignored. (In a cluster the
        process's service account decides that.)
    everywhere
        Whether to show resources in other namespaces, too; the caller then has to tell them apart.

    Raises
    ------
    UsageError
        The URL or a key can't be read.
    """
    key = settings.encryption_key if secrets else ""
    database = open_store(settings.redis_url, key) if settings.redis_url else None
    if settings.store == "redis":
        assert database is not None, "settings without an address are refused"
        return database
    from llmos_hub.kubernetes.connection import KubernetesAPI
    from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
    from llmos_hub.stores.kubernetes.release import ReleaseStore
    from llmos_hub.stores.kubernetes.store import KubernetesStore
    from llmos_hub.stores.routed import RoutedStore

    api = KubernetesAPI()
    cluster: Store = KubernetesStore(api)
    if not everywhere:
        cluster = ReleaseStore(cluster, ReleaseNamespaces(api, settings.release))
    return RoutedStore(cluster, database)
