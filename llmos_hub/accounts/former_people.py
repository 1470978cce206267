"""Names of deleted users: a new user of the same name must not get what the former one left.

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
    """A user who was deleted.

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


def remember(db: Session, user: orm.User) -> None:
    """Note the name of a user who is being deleted."""
    db.merge(FormerPersonRow(name=user.name, created=user.created))
    db.commit()


def forget(db: Session, name: str) -> None:
    """Allow the name again, with all that is left under it."""
    db.query(FormerPersonRow).filter(FormerPersonRow.name == name).delete()
    db.commit()


def what_is_left(db: Session, name: str, homes: Path) -> str:
    """Return a message about what a former user of that name left and what to do about it; empty if there was none.

    A home without a note belongs to a user of a Hub whose database was lost, or to one who was renamed.
    """
    former, home = db.get(FormerPersonRow, name), homes / slug(name)
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
