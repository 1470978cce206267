"""Names that no new group gets: those of deleted groups, and those with invisible characters.

Members of a new group must not get what a former one of the same name left.

On a workstation a group's namespace is found by the group's name alone, and the Hub stores nothing that distinguishes a
group from a former one of the same name. So, as with users, the name cannot be used again until an admin hands over
what is left.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from jupyterhub import orm
from sqlalchemy import Column, DateTime, Unicode, event
from sqlalchemy.orm import Session
from tornado import web
from tornado.log import app_log
from traitlets.config import Application

from llmos.names import group_namespace
from llmos.resources import MAIN_KIND

__all__ = ["NAME_RULE", "FormerGroupRow", "forget_group", "keep_names_of_groups"]

NAME_RULE: Final = "A group's name has letters, digits and blanks, no line ends, slashes or invisible characters."

_EVENT: Final = "before_flush"


class FormerGroupRow(orm.Base):
    """A group that was deleted.

    Attributes
    ----------
    name
        Name of the group in the Hub.
    deleted
        Time of the deletion (UTC).
    """

    __tablename__ = "llmos_former_groups"
    name = Column(Unicode(255), primary_key=True)
    deleted = Column(DateTime)


def keep_names_of_groups() -> None:
    """Start to note each group that this process deletes, and to refuse new groups of these names; idempotent."""
    if not event.contains(Session, _EVENT, _before_flush):
        event.listen(Session, _EVENT, _before_flush)


def forget_group(db: Session, name: str) -> None:
    """Allow the name again, with all that is left under it; takes effect when the session is committed."""
    if (row := db.get(FormerGroupRow, name)) is not None:
        db.delete(row)


def _before_flush(session: Session, _context: Any, _instances: Any) -> None:
    """Note the groups that are about to be deleted, and refuse new ones with the name of a deleted one.

    Raises
    ------
    HTTPError
        400: a new group has the name of a deleted one, or one that would mislead readers of logs and lists.
    """
    # SQLAlchemy's event, not a handler: it covers everything that deletes or creates groups (API, log-in, configuration),
    # and the note is part of the same transaction
    deleted = {str(group.name) for group in session.deleted if isinstance(group, orm.Group)}
    for name in deleted:
        session.merge(FormerGroupRow(name=name, deleted=datetime.now(UTC).replace(tzinfo=None)))
    for group in [found for found in session.new if isinstance(found, orm.Group)]:
        if not group.name.isprintable():  # identity providers may have slashes
            _refuse(session, group, NAME_RULE)
            continue
        row = session.get(FormerGroupRow, group.name)
        if row is not None and group.name in _configured():
            app_log.warning(
                'The group "%s", deleted before, is in the configuration: it has its namespace again', group.name
            )
            session.delete(row)
        elif group.name in deleted or (row is not None and row not in session.deleted):
            _refuse(session, group, _what_is_left(str(group.name), row))


def _refuse(session: Session, group: orm.Group, text: str) -> None:
    """Refuse a group.

    At a log-in with an authenticator that manages groups, the user is logged in without this group instead.

    Raises
    ------
    HTTPError
        400: the group was requested over the API.
    """
    members = list(group.users)
    group.users = []  # else it stays in its members' lists of groups
    session.expunge(group)
    if members and getattr(getattr(_application(), "authenticator", None), "manage_groups", False):
        app_log.warning("%s is not put into a group: %s", ", ".join(str(user.name) for user in members), text)
        return
    raise web.HTTPError(400, text)


def _application() -> Application | None:
    return Application.instance() if Application.initialized() else None


def _configured() -> set[str]:
    """Return the groups that the Hub's configuration names."""
    app = _application()
    roles = getattr(app, "load_roles", ())
    return {*getattr(app, "load_groups", ()), *(name for role in roles for name in role.get("groups", ()))}


def _what_is_left(name: str, row: FormerGroupRow | None) -> str:
    namespace = group_namespace(name)
    since = f", deleted on {row.deleted:%Y-%m-%d}" if row is not None and row.deleted else ""
    return (
        f'There was a group "{name}" before{since}: what is in the namespace {namespace} is kept. Is it the same group? '
        f"Hand it over: llmos group add {name} --inherit. For another one first look (llmos get {MAIN_KIND.plural} -n "
        f"{namespace}, the same for credentials), delete what is left, then run the same command."
    )
