"""Passwords: hashing, strength, delays after failures, and their fate when a user is renamed or deleted."""

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from tornado import web

from llmos_hub.accounts import attempts as attempts_module
from llmos_hub.accounts import authenticator as authenticator_module
from llmos_hub.accounts import passwords
from llmos_hub.accounts.attempts import Delays, Place, place_of
from llmos_hub.accounts.authenticator import LLMOSAuthenticator
from llmos_hub.accounts.password_rules import check_strength
from llmos_hub.accounts.passwords import (
    OneTimePasswordGiven,
    OneTimeRow,
    PasswordRow,
    PasswordState,
    find_password,
    hash_password,
    password_state,
    verify_password,
)

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


class Browser:
    """A stub of a request handler, with the address and cookies that the authenticator reads."""

    def __init__(self, db, address="192.0.2.1"):
        self.db = db
        self.request = SimpleNamespace(headers={"X-Forwarded-For": address} if address else {})
        self.settings = {}
        self.hub = SimpleNamespace(base_url="/hub/")
        self.cookies = {}

    def get_secure_cookie(self, name, max_age_days):
        assert max_age_days
        return self.cookies.get(name)

    def _set_cookie(self, name, value, **options):
        assert options["path"] == "/hub/"
        self.cookies[name] = value.encode()


async def log_in(authenticator, db, name, password, browser=None):
    return await authenticator.authenticate(browser or Browser(db), {"username": name, "password": password})


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


@pytest.mark.parametrize("password", ["short", "ada", "password", "Jupyterhub", "x" * 1025, f"{GOOD}\ud800"])
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
    assert await log_in(authenticator, db, "ada", f"{GOOD}\ud800") is None


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
    assert len(tried) <= 6  # five failures are free, and two attempts are checked at a time


async def test_guesses_from_elsewhere_lock_nobody_out(authenticator, db):
    await authenticator.set_password(db, user(db, "admin"), GOOD, one_time=False)
    guesser, owner = Browser(db, "203.0.113.9"), Browser(db, "192.0.2.1")
    for _ in range(5):
        assert await log_in(authenticator, db, "admin", "wrong", guesser) is None
    with pytest.raises(web.HTTPError, match="Too many wrong passwords"):
        await log_in(authenticator, db, "admin", GOOD, guesser)
    assert await log_in(authenticator, db, "admin", GOOD, owner) == "admin"


async def test_guesses_from_many_addresses_are_slow_and_hold_no_known_browser_up(authenticator, db, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(attempts_module.time, "monotonic", lambda: now[0])
    await authenticator.set_password(db, user(db, "admin"), GOOD, one_time=False)
    known = Browser(db)
    assert await log_in(authenticator, db, "admin", GOOD, known) == "admin"
    for number in range(60):
        now[0] += 61
        assert await log_in(authenticator, db, "admin", "wrong", Browser(db, f"203.0.113.{number}")) is None
    with pytest.raises(web.HTTPError, match="Try again in 60 seconds"):
        await log_in(authenticator, db, "admin", GOOD, Browser(db, "198.51.100.1"))
    assert await log_in(authenticator, db, "admin", GOOD, known) == "admin"


async def test_a_known_browser_guesses_no_faster_than_others(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    known = Browser(db)
    assert await log_in(authenticator, db, "ada", GOOD, known) == "ada"
    for _ in range(5):
        assert await log_in(authenticator, db, "ada", "wrong", known) is None
    with pytest.raises(web.HTTPError, match="Too many wrong passwords"):
        await log_in(authenticator, db, "ada", GOOD, known)
    # the browser isn't known for another user
    for _ in range(5):
        assert await log_in(authenticator, db, "admin", "wrong", known) is None
    with pytest.raises(web.HTTPError, match="Too many wrong passwords"):
        await log_in(authenticator, db, "admin", "wrong", Browser(db))


async def test_a_flood_of_made_up_log_ins_is_refused_and_a_known_browser_passes_it(authenticator, db, monkeypatch):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    known = Browser(db)
    assert await log_in(authenticator, db, "ada", GOOD, known) == "ada"
    stuck, held = asyncio.Event(), verify_password

    async def to_thread(function, password, kept):
        if password == "made-up":
            await stuck.wait()
        return held(password, kept)

    monkeypatch.setattr(authenticator_module.asyncio, "to_thread", to_thread)
    places = authenticator.most_waiting + 2
    flood = [
        asyncio.create_task(log_in(authenticator, db, f"nobody{number}", "made-up", Browser(db, f"203.0.113.{number}")))
        for number in range(60)
    ]
    await refusals(flood, 60 - places)
    assert await log_in(authenticator, db, "ada", GOOD, known) == "ada"
    with pytest.raises(web.HTTPError) as caught:
        await log_in(authenticator, db, "ada", GOOD)
    assert caught.value.status_code == 429
    assert caught.value.headers["Retry-After"]
    stuck.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(answer is None for answer in answers) == places
    assert await log_in(authenticator, db, "ada", GOOD) == "ada"


async def refusals(tasks, number):
    """Wait until so many tasks are done, all refused with 429."""
    while sum(task.done() for task in tasks) < number:
        await asyncio.sleep(0)
    assert {task.exception().status_code for task in tasks if task.done()} == {429}


async def test_one_address_has_half_of_the_places_and_leaves_the_others_to_others(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    half = (authenticator.most_waiting + 2) // 2
    for _ in range(2):  # twice: the places are free again after the first round
        flood = [
            asyncio.create_task(log_in(authenticator, db, f"nobody{number}", "x", Browser(db, "203.0.113.9")))
            for number in range(60)
        ]
        await refusals(flood, 60 - half)
        assert await log_in(authenticator, db, "ada", GOOD) == "ada"
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(answer is None for answer in answers) == half


async def test_one_person_known_does_not_hold_the_others_up(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    await authenticator.set_password(db, user(db, "admin"), GOOD, one_time=False)
    ada, admin = Browser(db), Browser(db)
    assert await log_in(authenticator, db, "ada", GOOD, ada) == "ada"
    assert await log_in(authenticator, db, "admin", GOOD, admin) == "admin"
    many = [
        *(log_in(authenticator, db, "ada", GOOD, ada) for _ in range(100)),
        *(authenticator.is_password(db, "ada", GOOD) for _ in range(100)),
        *(authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False) for _ in range(100)),
    ]
    flood = [asyncio.create_task(task) for task in many]
    await refusals(flood, 298)
    assert await log_in(authenticator, db, "admin", GOOD, admin) == "admin"
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert answers[:2] == ["ada", "ada"]
    assert await log_in(authenticator, db, "ada", GOOD, ada) == "ada"  # the slots are free again


def seen_from(forwarded, trusted=(), **more):
    return place_of(SimpleNamespace(headers={"X-Forwarded-For": forwarded, **more} if forwarded else more), trusted).key


def test_an_address_is_what_the_nearest_trusted_proxy_saw():
    assert seen_from("192.0.2.1") == "192.0.2.1"
    assert seen_from("192.0.2.1, 127.0.0.1", ("127.0.0.1",)) == "192.0.2.1"  # a TLS proxy on this machine
    assert seen_from("192.0.2.1, ::ffff:127.0.0.1", ("127.0.0.1",)) == "192.0.2.1"
    assert seen_from("::ffff:192.0.2.1") == "192.0.2.1"
    assert seen_from("10.9.9.9, 192.0.2.1") == "192.0.2.1"  # the first entry was sent by the client
    assert seen_from("192.0.2.1, 10.0.0.5", ("10.0.0.5",)) == "192.0.2.1"
    assert seen_from("", **{"X-Real-Ip": "10.9.9.9"}) == seen_from("127.0.0.1") == seen_from("nonsense")
    assert seen_from("2001:DB8::1") == seen_from("2001:db8:0::1")


@pytest.mark.parametrize("own", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("trusted", [(), ("10.0.0.5",)])
def test_who_is_on_this_machine_does_not_choose_their_address(own, trusted):
    assert seen_from(f"192.0.2.1, {own}", trusted) == seen_from(f"192.0.2.2, {own}", trusted) == seen_from("", trusted)


async def test_guesses_from_this_machine_are_one_place_whatever_they_say(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    for number in range(5):
        assert await log_in(authenticator, db, "ada", "wrong", Browser(db, f"192.0.2.{number}, 127.0.0.1")) is None
    with pytest.raises(web.HTTPError, match="Too many wrong passwords"):
        await log_in(authenticator, db, "ada", GOOD, Browser(db, "192.0.2.77, 127.0.0.1"))
    # other addresses are not locked
    assert await log_in(authenticator, db, "ada", GOOD, Browser(db, "192.0.2.1")) == "ada"


async def test_a_name_without_end_is_not_remembered(authenticator, db):
    assert await log_in(authenticator, db, "a" * 1_000_000, GOOD) is None
    assert not authenticator._attempts._here._failed
    assert not authenticator._attempts._anywhere._failed


async def test_the_lock_grows_and_ends(authenticator, db, monkeypatch):
    now, here = [1000.0], Place("192.0.2.1")
    monkeypatch.setattr(attempts_module.time, "monotonic", lambda: now[0])
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=False)
    for _ in range(5):
        await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.remaining("ada", here) == 5.0
    now[0] += 5.1
    await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.remaining("ada", here) == 10.0
    for _ in range(40):
        now[0] += 1000
        await log_in(authenticator, db, "ada", "wrong")
    assert authenticator._attempts.remaining("ada", here) == 900.0
    now[0] += 901
    assert await log_in(authenticator, db, "ada", GOOD) == "ada"
    assert authenticator._attempts.remaining("ada", here) == 0.0


def test_names_made_up_at_random_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(Delays, "_KEPT", 100)
    delays = Delays(5, 5.0, 900.0)
    for number in range(500):
        delays.failed(f"name{number}")
    assert len(delays._failed) == 100


def test_a_typing_error_now_and_then_is_no_attack(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(attempts_module.time, "monotonic", lambda: now[0])
    delays = Delays(5, 5.0, 900.0)
    for _ in range(20):
        now[0] += 100_000
        delays.failed("ada")
    assert delays.remaining("ada") == 0.0


# One-time passwords


async def test_a_one_time_password_is_no_log_in(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=True)
    assert password_state(db, user(db, "ada")) is PasswordState.ONE_TIME
    for _ in range(2):
        with pytest.raises(OneTimePasswordGiven):
            await log_in(authenticator, db, "ada", GOOD)
    assert await log_in(authenticator, db, "ada", "wrong") is None
    await authenticator.set_password(db, user(db, "ada"), "a-password-of-my-own", one_time=False)
    assert await log_in(authenticator, db, "ada", GOOD) is None
    assert await log_in(authenticator, db, "ada", "a-password-of-my-own") == "ada"


async def test_a_one_time_password_expires_and_only_who_knows_it_is_told(authenticator, db):
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=True)
    db.get(OneTimeRow, user(db, "ada").id).expires_at -= timedelta(days=7, seconds=1)
    db.commit()
    assert password_state(db, user(db, "ada")) is PasswordState.EXPIRED
    with pytest.raises(web.HTTPError, match="expired") as caught:
        await log_in(authenticator, db, "ada", GOOD)
    assert not isinstance(caught.value, OneTimePasswordGiven)
    assert await log_in(authenticator, db, "ada", "wrong") is None
    await authenticator.set_password(db, user(db, "ada"), GOOD, one_time=True)
    with pytest.raises(OneTimePasswordGiven):
        await log_in(authenticator, db, "ada", GOOD)


@pytest.mark.parametrize(
    "name", ["ada\nFAKE 200 GET /", "ada\u2028x", "ada\u202egnp", "ada\x9bx", "ada\x7f", "a" * 256, ""]
)
def test_names_that_would_break_a_log_are_nobodys(authenticator, name):
    assert not authenticator.validate_username(name)


def test_the_rule_of_names_has_a_sites_own_pattern():
    assert LLMOSAuthenticator().name_rule.endswith("not only dots.")
    assert LLMOSAuthenticator(username_pattern="[a-z]+").name_rule.endswith("It must match [a-z]+.")


@pytest.mark.parametrize("name", ["ada", "ada.lovelace@example.org", "o'brien", "jürgen", "अनिल", "李 雷"])
def test_names_of_people_are_theirs(authenticator, name):
    assert authenticator.validate_username(name)


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
    with pytest.raises(OneTimePasswordGiven):
        await log_in(authenticator, db, "admin", "mellow-otter-93-quay")
    await authenticator.set_password(db, user(db, "admin"), GOOD, one_time=False)
    assert not (tmp_path / "admin-password").exists()
    first.write_text(json.dumps({"password": "mellow-otter-93-quay", "one_time": True}))
    await authenticator.add_user(user(db, "admin"))
    assert not first.exists()
    assert await log_in(authenticator, db, "admin", GOOD) == "admin"
