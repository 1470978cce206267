"""Passwords: hashing, strength, the lock after wrong ones, and what happens to them with their user."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from tornado import web

from llmos_hub import authenticator as authenticator_module
from llmos_hub import passwords
from llmos_hub.authenticator import LLMOSAuthenticator
from llmos_hub.passwords import PasswordRow, check_strength, find_password, hash_password, verify_password

GOOD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(passwords, "_N", 2**4)


@pytest.fixture
def db(tmp_path):
    factory = orm.new_session_factory(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    session = factory()
    for name in ("admin", "ada"):
        session.add(orm.User(name=name))
    session.commit()
    yield session
    session.close()
    session.get_bind().dispose()


@pytest.fixture
def authenticator():
    return LLMOSAuthenticator(admin_users={"admin"})


async def log_in(authenticator, db, name, password):
    return await authenticator.authenticate(SimpleNamespace(db=db), {"username": name, "password": password})


def user(db, name):
    return db.query(orm.User).filter_by(name=name).one()


def test_a_hash_fits_its_password_only_and_is_never_the_same():
    first, second = hash_password(GOOD), hash_password(GOOD)
    assert first != second
    assert GOOD not in first
    assert verify_password(GOOD, first)
    assert not verify_password(GOOD + " ", first)


def test_the_cost_is_kept_with_the_hash(monkeypatch):
    kept = hash_password(GOOD)
    monkeypatch.setattr(passwords, "_N", 2**5)
    assert verify_password(GOOD, kept)


@pytest.mark.parametrize("password", ["short", "ada", "password", "Jupyterhub", "x" * 1025])
def test_weak_passwords(password):
    assert check_strength(password, "ada")


def test_long_and_foreign_passwords_work():
    for password in ("x" * 1000, "пароль-для-входа", "日本語のパスワードです"):
        assert check_strength(password, "ada") is None
        assert verify_password(password, hash_password(password))


async def test_log_in(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    assert await log_in(authenticator, db, "ada", GOOD) == "ada"
    assert await log_in(authenticator, db, "ADA", GOOD) == "ada"
    assert await log_in(authenticator, db, "ada", "wrong") is None
    assert await log_in(authenticator, db, "admin", GOOD) is None
    assert await log_in(authenticator, db, "nobody", GOOD) is None
    assert await log_in(authenticator, db, "ada", "x" * 100_000) is None


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_guessing_is_locked_out_for_people_who_exist_and_who_do_not(authenticator, db, name):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    for _ in range(5):
        assert await log_in(authenticator, db, name, "wrong") is None
    with pytest.raises(web.HTTPError, match="Too many wrong passwords"):
        await log_in(authenticator, db, name, GOOD)


async def test_many_guesses_at_once_are_no_more_than_one_after_the_other(authenticator, db, monkeypatch):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    tried = []

    def verify(password, kept):
        tried.append(password)
        return verify_password(password, kept)

    monkeypatch.setattr(authenticator_module, "verify_password", verify)
    guesses = [log_in(authenticator, db, "ada", f"wrong{number}") for number in range(30)]
    answers = await asyncio.gather(*guesses, log_in(authenticator, db, "ada", GOOD), return_exceptions=True)
    assert "ada" not in answers
    assert len(tried) <= 6  # five are free, and two are looked at at a time


async def test_a_name_without_end_is_not_remembered(authenticator, db):
    assert await log_in(authenticator, db, "a" * 1_000_000, GOOD) is None
    assert not authenticator._attempts._failed


async def test_the_lock_grows_and_ends(authenticator, db, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(authenticator_module.time, "monotonic", lambda: now[0])
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    for _ in range(5):
        await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.locked_for("ada") == 5.0
    now[0] += 5.1
    await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.locked_for("ada") == 10.0
    for _ in range(40):
        now[0] += 1000
        await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.locked_for("ada") == 900.0
    now[0] += 901
    assert await log_in(authenticator, db, "ada", GOOD) == "ada"
    assert authenticator._attempts.locked_for("ada") == 0.0


async def test_names_made_up_at_random_do_not_fill_the_memory(authenticator, monkeypatch):
    monkeypatch.setattr(authenticator_module._Attempts, "_KEPT", 100)
    for number in range(500):
        authenticator._attempts.failed(f"name{number}")
    assert len(authenticator._attempts._failed) == 100


async def test_a_password_goes_with_its_user_and_stays_with_a_renamed_one(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    user(db, "ada").name = "ada-lovelace"
    db.commit()
    assert await log_in(authenticator, db, "ada-lovelace", GOOD) == "ada-lovelace"
    db.delete(user(db, "ada-lovelace"))
    db.commit()
    assert db.query(PasswordRow).count() == 0
    db.add(orm.User(name="ada-lovelace"))
    db.commit()
    assert await log_in(authenticator, db, "ada-lovelace", GOOD) is None


async def test_the_first_admin_gets_the_first_password_once(authenticator, db, tmp_path):
    first = tmp_path / "first-password"
    first.write_text(json.dumps({"password": "mellow-otter-93-quay", "one_time": True}))
    (tmp_path / "admin-password").write_text("mellow-otter-93-quay\n")
    authenticator.first_password_file = str(first)
    authenticator.admin_password_file = str(tmp_path / "admin-password")
    for name in ("ada", "admin"):
        await authenticator.add_user(user(db, name))
    assert not first.exists()
    assert find_password(db, "admin").one_time
    assert find_password(db, "ada") is None
    assert await log_in(authenticator, db, "admin", "mellow-otter-93-quay") == "admin"
    await authenticator.set_password(db, user(db, "admin"), GOOD, one_time=False)
    assert not (tmp_path / "admin-password").exists()
    await authenticator.add_user(user(db, "admin"))
    assert await log_in(authenticator, db, "admin", GOOD) == "admin"
