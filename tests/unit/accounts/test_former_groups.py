"""Names of deleted groups: no way of creating a group accepts one until an admin hands it over."""

from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.user import User
from sqlalchemy import event
from sqlalchemy.orm import Session
from tornado import web
from traitlets.config import Application

from llmos_hub.accounts import former_groups
from llmos_hub.accounts.former_groups import FormerGroupRow, forget_group, keep_names_of_groups


@pytest.fixture
def open_db(tmp_path):
    """Return a function that opens the Hub's database, as at each start."""
    opened = []

    def open_again():
        opened.append(orm.new_session_factory(f"sqlite:///{tmp_path / 'hub.sqlite'}")())
        return opened[-1]

    keep_names_of_groups()
    keep_names_of_groups()  # idempotent
    yield open_again
    event.remove(Session, "before_flush", former_groups._before_flush)
    for session in opened:
        session.close()
        session.get_bind().dispose()


@pytest.fixture
def db(open_db):
    session = open_db()
    session.add_all([orm.User(name="ada"), orm.User(name="bob"), orm.Group(name="vision"), orm.Group(name="speech")])
    session.commit()
    session.delete(orm.Group.find(session, "vision"))
    session.commit()
    return session


def hub(monkeypatch, *, manage_groups=False, load_groups=(), load_roles=()):
    """Return a stub of the JupyterHub application."""
    authenticator = SimpleNamespace(manage_groups=manage_groups)
    app = SimpleNamespace(authenticator=authenticator, load_groups=load_groups, load_roles=load_roles)
    monkeypatch.setattr(Application, "initialized", lambda: True)
    monkeypatch.setattr(Application, "instance", lambda: app)


def make(db, name, *users):
    """Create a group as the Hub's API does."""
    group = orm.Group(name=name)
    db.add(group)
    group.users = [orm.User.find(db, user) for user in users]
    db.commit()


def sync_groups(db, name, groups):
    """Set a user's groups as the Hub does at a log-in with an authenticator that manages groups."""
    user = SimpleNamespace(orm_user=orm.User.find(db, name), db=db, log=SimpleNamespace(info=print), name=name)
    User.sync_groups(user, groups)


def groups_of(db, name):
    return {group.name for group in orm.User.find(db, name).groups}


def test_a_name_is_not_given_again_and_the_refusal_says_how(db):
    with pytest.raises(web.HTTPError) as refused:
        make(db, "vision", "ada")
    assert refused.value.status_code == 400
    assert "llmos group add vision --inherit" in str(refused.value)
    assert "group-vision" in str(refused.value)
    assert groups_of(db, "ada") == set()
    make(db, "robots", "ada")  # the session can still be used after the refusal
    assert {group.name for group in db.query(orm.Group)} == {"speech", "robots"}
    assert groups_of(db, "ada") == {"robots"}


def test_it_is_remembered_by_the_next_hub(db, open_db):
    with pytest.raises(web.HTTPError):
        make(open_db(), "vision")


def test_what_is_rolled_back_was_not_deleted(db):
    db.delete(orm.Group.find(db, "speech"))
    db.flush()
    db.rollback()
    assert db.get(FormerGroupRow, "speech") is None


def test_deleting_and_making_at_once_is_no_way_around(db):
    db.delete(orm.Group.find(db, "speech"))
    db.flush()
    with pytest.raises(web.HTTPError):
        make(db, "speech", "ada")


def test_handed_over_it_is_a_group_like_others_and_deleted_again_it_is_kept_again(db):
    forget_group(db, "vision")
    make(db, "vision", "ada")
    assert groups_of(db, "ada") == {"vision"}
    db.delete(orm.Group.find(db, "vision"))
    db.commit()
    with pytest.raises(web.HTTPError):
        make(db, "vision", "bob")


def test_an_authenticator_lets_people_in_without_the_group(db, monkeypatch, caplog):
    hub(monkeypatch, manage_groups=True)
    with caplog.at_level("WARNING"):
        sync_groups(db, "ada", ["vision", "speech", "robots"])
    assert groups_of(db, "ada") == {"speech", "robots"}
    assert orm.Group.find(db, "vision") is None
    assert "llmos group add vision --inherit" in caplog.text
    with pytest.raises(web.HTTPError):  # a request on the admin page is refused with an error
        make(db, "vision")
    forget_group(db, "vision")
    make(db, "vision")
    sync_groups(db, "ada", ["vision", "speech", "robots"])
    assert groups_of(db, "ada") == {"vision", "speech", "robots"}


@pytest.mark.parametrize(
    "written", [{"load_groups": {"vision": {"users": ["ada"]}}}, {"load_roles": [{"name": "r", "groups": ["vision"]}]}]
)
def test_the_configuration_is_the_word_of_who_runs_the_platform(db, monkeypatch, written):
    hub(monkeypatch, **written)
    make(db, "vision", "ada")
    assert groups_of(db, "ada") == {"vision"}


@pytest.mark.parametrize("name", ["vi\nsion", "vision\u202e", "a\x1b[2J", "b\u200b"])
def test_names_that_would_mislead_readers_are_given_in_no_way(db, monkeypatch, name, caplog):
    with pytest.raises(web.HTTPError, match="no line ends"):
        make(db, name, "ada")
    db.rollback()
    hub(monkeypatch, manage_groups=True)
    sync_groups(db, "ada", [name, "/staff/sprache ä", "speech"])
    assert groups_of(db, "ada") == {"/staff/sprache ä", "speech"}
