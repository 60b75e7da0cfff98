"""Where people are reached: a browser belongs to who has it now, and nobody sees another one's."""

from __future__ import annotations

from tests.models.world import CHECK, World

KEYS = {"p": "A" * 87, "a": "B" * 22}
SAVE = "SELECT save_push_subscription(:e, :p, :a)"


def endpoints(world: World, user: int) -> list[str]:
    return world.all("SELECT endpoint FROM push_subscriptions WHERE user_id = :u ORDER BY 1", u=user)


def test_saved_once_and_renewed(world: World) -> None:
    user = world.person()
    with world.acting("kitaab_app", user):
        first = world.one(SAVE, e="https://push.example/1", **KEYS)
        assert world.one(SAVE, e="https://push.example/1", p="C" * 87, a="D" * 22) == first
        assert world.rows("SELECT p256dh, auth FROM push_subscriptions") == [("C" * 87, "D" * 22)]


def test_taken_over_by_who_has_the_browser_now(world: World) -> None:
    before, now = world.person(), world.person()
    for user in (before, now):
        with world.acting("kitaab_app", user):
            world.one(SAVE, e="https://push.example/1", **KEYS)
    assert (endpoints(world, before), endpoints(world, now)) == ([], ["https://push.example/1"])


def test_the_oldest_beyond_ten_make_room(world: World) -> None:
    user = world.person()
    with world.acting("kitaab_app", user):
        for number in range(12):
            world.one(SAVE, e=f"https://push.example/{number:02}", **KEYS)
    assert endpoints(world, user) == [f"https://push.example/{number:02}" for number in range(2, 12)]


def test_for_nobody_it_is_refused(world: World) -> None:
    with world.acting("kitaab_app"), world.refused("42501", "app.user_id is not set"):
        world.one(SAVE, e="https://push.example/1", **KEYS)


def test_what_is_no_subscription(world: World) -> None:
    user = world.person()
    for bad in (
        {"e": "ftp://push.example/1"},
        {"e": "https://push.example/a b"},
        {"p": "A" * 86},
        {"a": "+" * 22},
    ):
        with world.acting("kitaab_app", user), world.refused(CHECK):
            world.one(SAVE, **({"e": "https://push.example/1"} | KEYS | bad))


def test_people_see_whether_their_own_address_is_suppressed(world: World) -> None:
    user = world.person(email="Gone@Example.org")
    world.person(email="other@example.org")
    suppress = (
        "INSERT INTO suppressed_addresses (address_hash, reason) VALUES (sha256(convert_to(:a, 'UTF8')), 'x')"
    )
    for address in ("gone@example.org", "other@example.org"):
        world.run(suppress, a=address)
    with world.acting("kitaab_app", user):
        assert world.one("SELECT count(*) FROM suppressed_addresses") == 1
        assert world.run("DELETE FROM suppressed_addresses") == 1
    assert world.one("SELECT count(*) FROM suppressed_addresses") == 1
