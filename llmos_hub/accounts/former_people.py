"""Names whose people were deleted: what they left is nobody's, and whoever gets the name doesn't get it by that.

On a workstation a home and a namespace are found by the name alone. So the name is not given again until an admin
says what is to become of them.
"""

from __future__ import annotations

from pathlib import Path

from jupyterhub import orm
from sqlalchemy import Column, DateTime, Unicode
from sqlalchemy.orm import Session

from llmos.names import slug, user_namespace

__all__ = ["FormerPersonRow", "forget", "remember", "what_is_left"]


class FormerPersonRow(orm.Base):
    """A person who was deleted.

    Attributes
    ----------
    name
        Of the Hub's user.
    created
        When the Hub had made them.
    """

    __tablename__ = "llmos_former_people"
    name = Column(Unicode(255), primary_key=True)
    created = Column(DateTime)


def remember(db: Session, user: orm.User) -> None:
    """Note that a person is being deleted."""
    db.merge(FormerPersonRow(name=user.name, created=user.created))
    db.commit()


def forget(db: Session, name: str) -> None:
    """An admin has decided: the name may be given, with all that is there."""
    db.query(FormerPersonRow).filter(FormerPersonRow.name == name).delete()
    db.commit()


def what_is_left(db: Session, name: str, homes: Path) -> str:
    """What an earlier person of that name has left and what to do about it; empty where there was none.

    A home without a note is of a Hub whose database was lost, or of somebody who was renamed.
    """
    former, home = db.get(FormerPersonRow, name), homes / slug(name)
    if former is None and not home.exists():
        return ""
    namespace = user_namespace(name)
    since = f", made on {former.created:%Y-%m-%d}" if former and former.created else ""
    kept = f"the home {home} and " if home.exists() else ""
    return (
        f'There was a user "{name}" before{since}: {kept}what is in the namespace {namespace} are kept. Is it the same '
        f"person? Hand it over: llmos user add {name} --inherit. For another one first look (llmos get modelservices -n "
        f"{namespace}, the same for credentials), delete what is there and move the home away."
    )
