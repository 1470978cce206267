"""Names of deleted and renamed users: another user of the same name must not get what the former one left.

On a workstation a user's home and namespace are found by the name alone. So the name cannot be used again until an admin
decides what happens to them.
"""

from __future__ import annotations

from pathlib import Path

from jupyterhub import orm
from sqlalchemy import Column, DateTime, Unicode
from sqlalchemy.orm import Session

from llmos.names import slug, user_namespace
from llmos.resources import MAIN_KIND

__all__ = ["FormerPersonRow", "forget", "remember", "what_is_left"]


class FormerPersonRow(orm.Base):
    """A user who was deleted or has another name now.

    Attributes
    ----------
    name
        Name of the user in the Hub.
    created
        Time at which the Hub created the user.
    """

    __tablename__ = "llmos_former_people"
    name = Column(Unicode(255), primary_key=True)
    created = Column(DateTime)


def remember(db: Session, name: str, user: orm.User) -> None:
    """Note the name that a user loses, who is being deleted or was renamed."""
    db.merge(FormerPersonRow(name=name, created=user.created))
    db.commit()


def forget(db: Session, name: str) -> None:
    """Allow the name again, with all that is left under it."""
    db.query(FormerPersonRow).filter(FormerPersonRow.name == name).delete()
    db.commit()


def what_is_left(db: Session, name: str, homes: Path, user: orm.User | None = None) -> str:
    """Return a message about what a former user of that name left and what to do about it; empty if there was none.

    A home without a note belongs to a user of a Hub whose database was lost. `user` is one who is to be renamed: they may
    have back what they left themselves.
    """
    former, home = db.get(FormerPersonRow, name), homes / slug(name)
    if former is not None and user is not None and former.created == user.created:
        return ""
    if former is None and not home.exists():
        return ""
    namespace = user_namespace(name)
    since = f", made on {former.created:%Y-%m-%d}" if former and former.created else ""
    owned = f"what is in the namespace {namespace}"
    kept = f"the home {home} and {owned} are kept" if home.exists() else f"{owned} is kept"
    return (
        f'There was a user "{name}" before{since}: {kept}. Is it the same '
        f"person? Hand it over: llmos user add {name} --inherit. For another one first look (llmos get {MAIN_KIND.plural} -n "
        f"{namespace}, the same for credentials), delete what is left and move the home away."
    )
