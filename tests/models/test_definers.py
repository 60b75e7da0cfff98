"""SECURITY DEFINER functions run with the owner's rights, so nothing that a caller sets may lead them astray."""

from __future__ import annotations

import pytest

from tests.models.lives import make_diary
from tests.models.world import DENIED, TODAY, World

DEFINERS = """
    SELECT p.oid::regprocedure::text AS name, p.proconfig, p.proowner::regrole::text AS owner, p.prosqlbody IS NOT NULL
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname IN ('public', 'jobs') AND p.prosecdef ORDER BY 1
"""

# Which there are: a new one is to be thought about here.
KNOWN = {
    "app_own_deeds()",
    "app_relations(boolean)",
    "app_shared_deed_items(permission_type_enum)",
    "app_shared_deeds()",
    "carry_descendants()",
    "check_entry_ownership()",
    "check_goal_item()",
    "jobs.enqueue(text,jsonb,text,timestamp with time zone,integer,integer,text,text,timestamp with time zone,interval,text,"
    "text,text)",
    "jobs.enqueue_many(text,jsonb[],text[],timestamp with time zone,integer,integer,text,text,text,text)",
    "jobs.make_partition(text,date,date)",
    "jobs.mark_items_of(regclass)",
    "jobs.mark_deed_item()",
    "jobs.mark_parent_of_removed()",
    "jobs.mark_entries()",
    "jobs.mark_goal()",
    "jobs.mark_persons_goals()",
    "jobs.mark_scale_value()",
    "keep_entry_author()",
    "permission_is_requestees()",
    "place_deed_item()",
    "record_audit()",
    "record_audit_of_row()",
    "record_entry_history()",
    "save_push_subscription(text,text,text)",
    "user_for_login(text)",
}


def test_each_has_a_fixed_search_path_with_nothing_that_others_write(world: World) -> None:
    """pg_temp is named last, else it would be searched first."""
    found = world.rows(DEFINERS)
    assert {name for name, *_ in found} == KNOWN
    for name, config, owner, _ in found:
        assert "search_path=pg_catalog, pg_temp" in config, name
        assert owner == "kitaab_admin", name


def test_temporary_objects_do_not_stand_in_for_ours(world: World) -> None:
    """An app's own temporary tables and functions, named like those that the functions use."""
    diary = make_diary(world)
    stranger = make_diary(world)
    with world.acting("kitaab_app", diary.user):
        for table in (
            "users",
            "deeds",
            "deed_items",
            "relations",
            "permissions",
            "entry_history",
            "audit_log",
        ):
            world.run(f"CREATE TEMPORARY TABLE {table} AS SELECT * FROM public.{table} WHERE false")
        world.run("CREATE TEMPORARY TABLE kinds (name text, queue text)")
        world.run("CREATE FUNCTION pg_temp.app_user_id() RETURNS bigint LANGUAGE sql RETURN 0")
        world.run("SET LOCAL search_path = pg_temp, public, pg_catalog")
        world.run(
            "INSERT INTO public.entries (user_id, deed_item_id, entry_date, count_value) VALUES (:u, :i, :d, 1)",
            u=diary.user,
            i=diary.item,
            d=TODAY,
        )
        with world.refused("23514", "entries_item_is_persons"):
            world.run(
                "INSERT INTO public.entries (user_id, deed_item_id, entry_date, count_value) VALUES (:u, :i, :d, 1)",
                u=diary.user,
                i=stranger.item,
                d=TODAY,
            )
        assert world.all("SELECT public.app_own_deeds()") == [diary.deed]
        assert world.one("SELECT count(*) FROM public.user_for_login('nobody@example.org')") == 0
        world.one("SELECT jobs.enqueue('progress.refresh')")
        world.run("SET LOCAL search_path = public")
    assert world.rows("SELECT user_id, changed_by_user_id FROM public.entry_history") == [
        (diary.user, diary.user)
    ]


def test_objects_in_public_do_not_stand_in_for_those_of_postgresql(world: World) -> None:
    """Where an older database still lets everyone create in public: a closer match would win by its types."""
    world.run("GRANT CREATE ON SCHEMA public TO kitaab_app")
    world.person(email="victim@example.org", password_hash="victims")
    with world.acting("kitaab_app"):
        world.run(
            "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT 'victim@example.org' $$"
        )
        assert world.all("SELECT password_hash FROM user_for_login('anybody')") == []
        world.run(
            "CREATE FUNCTION public.quote_nullable(varchar) RETURNS text LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$"
        )
        with world.refused("22023", "no job is called"):
            world.run("SELECT jobs.enqueue('nothing')")


def test_nobody_but_the_owner_can_create_in_our_schemas(world: World) -> None:
    for role in ("kitaab_app", "kitaab_readonly", "kitaab_worker"):
        for schema in ("public", "jobs", "archive"):
            with world.acting(role), world.refused(DENIED):
                world.run(f"CREATE FUNCTION {schema}.lower(varchar) RETURNS text LANGUAGE sql RETURN 'x'")


@pytest.mark.parametrize("email", ["ONE@example.org", "one@EXAMPLE.ORG"])
def test_the_door_for_a_login(email: str, world: World) -> None:
    user = world.person(email="one@example.org", password_hash="hash of one")
    world.person(email="two@example.org")
    with world.acting("kitaab_app"):
        assert world.rows("SELECT * FROM user_for_login(:email)", email=email) == [
            (user, "hash of one", False, True)
        ]
        for nobody in ("", "%", "' OR true --", None, "one@example.org "):
            assert world.rows("SELECT * FROM user_for_login(:email)", email=nobody) == []
    world.run("UPDATE users SET deleted_at = now()")
    with world.acting("kitaab_app"):
        assert world.rows("SELECT * FROM user_for_login(:email)", email=email) == []
