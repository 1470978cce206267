"""Names of deleted users: the message about what they left."""

import pytest
from jupyterhub import orm

from llmos_hub.accounts.former_people import remember, what_is_left


@pytest.fixture
def db():
    session = orm.new_session_factory("sqlite:///:memory:")()
    yield session
    session.close()
    session.get_bind().dispose()


def test_the_message_names_the_home_only_where_there_is_one(db, tmp_path):
    assert what_is_left(db, "ada", tmp_path) == ""

    remember(db, "ada", orm.User(name="ada"))
    assert ": what is in the namespace user-ada is kept. Is it" in what_is_left(db, "ada", tmp_path)

    (tmp_path / "ada").mkdir()
    kept = f": the home {tmp_path / 'ada'} and what is in the namespace user-ada are kept. Is it"
    assert kept in what_is_left(db, "ada", tmp_path)
