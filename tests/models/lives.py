"""Whole lives, as tests need them: somebody who records, somebody with goals, somebody with everything."""

from __future__ import annotations

from typing import NamedTuple

from tests.models.world import DAY, TODAY, World, insert


class Diary(NamedTuple):
    """A person with a deed, a count item, a scale item and a value of its scale."""

    user: int
    deed: int
    item: int
    scaled: int
    scale: int
    value: int


def make_diary(world: World) -> Diary:
    user = world.person()
    deed = world.deed(user)
    scale = world.scale(deed)
    return Diary(user, deed, world.item(deed), world.item(deed, type="scale"), scale, world.value(scale))


class Goals(NamedTuple):
    """A person with a merit and a target, and what their items can be."""

    user: int
    deed: int
    counted: int
    scaled: int
    value: int
    merit: int
    target: int


def make_goals(world: World) -> Goals:
    user = world.person()
    deed = world.deed(user)
    return Goals(
        user,
        deed,
        world.item(deed),
        world.item(deed, type="scale"),
        world.value(world.scale(deed)),
        world.merit(user, deed),
        world.target(user),
    )


def full_life(world: World) -> tuple[int, int]:
    """Make a person with a row in every table, and one more person who knows them; return both."""
    user, friend = world.person(), world.person()
    deed = world.deed(user)
    item = world.item(deed)
    child = world.item(deed, item, type="scale")
    scale = world.scale(deed)
    value = world.value(scale)
    world.permission(world.relation(friend, user), item, "write")
    world.relation(user, friend)
    for days in range(3):
        world.entry(user, item, TODAY - days * DAY, created_by_user_id=friend if days else None)
    world.entry(user, child, TODAY - 400 * DAY, None, scale_id=scale, scale_value_id=value)
    merit, target = world.merit(user, deed), world.target(user)
    world.merit_item(merit, deed, item)
    world.merit_item(merit, deed, child, item_type="scale", scale_value_id=value)
    world.target_item(target, child, item_type="scale", scale_value_id=value)
    notification = world.notification(user)
    day = {"user_id": user, "reflection_date": TODAY, "type": "hasanaat", "content": "a thought"}
    insert(world.connection, "reflection_messages", **day)
    message = insert(world.connection, "messages", user_id=user, sender="user", content="a question")
    answer = {"user_id": user, "sender": "support", "content": "an answer", "parent_message_id": message}
    insert(world.connection, "messages", **answer)
    delivery = {"notification_id": notification, "user_id": user, "channel": "email", "due_date": TODAY}
    delivery |= {"zone": "Europe/Istanbul", "deadline": TODAY + DAY}
    insert(world.connection, "jobs.deliveries", due_at=TODAY, **delivery)
    keys = {"p256dh": "A" * 87, "auth": "B" * 22, "endpoint": f"https://push.example/{user}"}
    insert(world.connection, "push_subscriptions", user_id=user, **keys)
    insert(world.connection, "channel_opt_outs", user_id=user, channel="email", kind="completion")
    for kind, id in (("merit", merit), ("target", target)):
        notice = {"user_id": user, "kind": f"{kind}_completed", f"{kind}_id": id, "happened_on": TODAY}
        insert(world.connection, "jobs.notices", **notice)
        shown = {f"{kind}_id": id, "day": TODAY, "percent": 50, "is_satisfied": False}
        insert(world.connection, f"jobs.{kind}_history", **shown)
    return user, friend
