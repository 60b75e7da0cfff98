"""What a database holds, as the catalog tells it: {"table public.users": "...", ...}.

Two databases with equal dictionaries have equal schemas; `difference` says in words where they differ.
"""

from __future__ import annotations

from sqlalchemy import Connection

Catalog = dict[str, str]

# Ours: everything but PostgreSQL's own. `alembic_version` belongs to Alembic, which never removes it.
_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

# What a model can say. Partitions are data; what they hold is their parents'.
_STRUCTURE = {
    "table": """
        SELECT n.nspname || '.' || c.relname,
               concat_ws(' ', c.relkind, pg_get_partkeydef(c.oid), 'comment', obj_description(c.oid, 'pg_class'))
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {ours} AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    """,
    "column": """
        SELECT n.nspname || '.' || c.relname || '.' || a.attname,
               concat_ws(' ', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
                         format_type(a.atttypid, a.atttypmod),
                         CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                         'default', pg_get_expr(d.adbin, d.adrelid),
                         'identity', NULLIF(a.attidentity, ''), 'generated', NULLIF(a.attgenerated, ''),
                         'comment', col_description(c.oid, a.attnum))
        FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE {ours} AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND a.attnum > 0 AND NOT a.attisdropped
    """,
    "constraint": """
        SELECT n.nspname || '.' || c.relname || '.' || k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint AS k
        JOIN pg_class AS c ON c.oid = k.conrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {ours} AND NOT c.relispartition
    """,
    "index": """
        SELECT n.nspname || '.' || c.relname,
               pg_get_indexdef(c.oid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {ours} AND NOT c.relispartition
    """,
    "enum": """
        SELECT n.nspname || '.' || t.typname, string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
        FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace JOIN pg_enum AS e ON e.enumtypid = t.oid
        WHERE {ours} GROUP BY 1
    """,
}

# What only the migrations say: who owns, who may, and what happens by itself. Default rights are spelled
# out, so that rights that were given and taken back compare equal to those that were never given.
_BEHAVIOUR = {
    "schema": """
        SELECT n.nspname, concat_ws(' ', n.nspowner::regrole, {nsp_rights})
        FROM pg_namespace AS n WHERE {ours}
    """,
    "relation": """
        SELECT n.nspname || '.' || c.relname,
               concat_ws(' ', c.relkind, c.relowner::regrole,
                         CASE WHEN c.relrowsecurity THEN 'row security' END,
                         CASE WHEN c.relforcerowsecurity THEN 'forced' END,
                         pg_get_expr(c.relpartbound, c.oid), {rel_rights})
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {ours}
    """,
    "column rights": """
        SELECT n.nspname || '.' || c.relname || '.' || a.attname, {att_rights}
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {ours} AND a.attacl IS NOT NULL AND NOT a.attisdropped
    """,
    "trigger": """
        SELECT n.nspname || '.' || c.relname || '.' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {ours} AND NOT t.tgisinternal
    """,
    "policy": """
        SELECT p.schemaname || '.' || p.tablename || '.' || p.policyname,
               concat_ws(' ', p.permissive, p.roles, p.cmd, 'using', p.qual, 'check', p.with_check)
        FROM pg_policies AS p
    """,
    "function": """
        SELECT n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
               concat_ws(' ', p.proowner::regrole, {pro_rights}, pg_get_functiondef(p.oid))
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {ours}
    """,
    "type": """
        SELECT n.nspname || '.' || t.typname, concat_ws(' ', t.typtype, t.typowner::regrole)
        FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace WHERE {ours}
    """,
    "default rights": """
        SELECT concat_ws(' ', d.defaclrole::regrole, d.defaclnamespace::regnamespace, d.defaclobjtype), d.defaclacl::text
        FROM pg_default_acl AS d
    """,
}


def _rights(acl: str, kind: str, owner: str) -> str:
    return f"""(
        SELECT string_agg(concat_ws(' ', 'may', x.grantee::regrole, x.privilege_type, x.is_grantable), ' '
                          ORDER BY x.grantee::regrole::text, x.privilege_type)
        FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) AS x)"""


_RIGHTS = {
    "nsp_rights": _rights("n.nspacl", "n", "n.nspowner"),
    "rel_rights": _rights("c.relacl", "r", "c.relowner"),
    "att_rights": _rights("a.attacl", "c", "c.relowner"),
    "pro_rights": _rights("p.proacl", "f", "p.proowner"),
}


def structure(connection: Connection) -> Catalog:
    """Return what models and migrations both say: tables, columns, constraints, indexes, enums."""
    return _read(connection, _STRUCTURE)


def everything(connection: Connection) -> Catalog:
    """Return the structure, and owners, rights, triggers, policies and functions."""
    return _read(connection, _STRUCTURE | _BEHAVIOUR)


def difference(left: Catalog, right: Catalog) -> list[str]:
    """Return what differs: `- ` only in or as in `left`, `+ ` only in or as in `right`."""
    return [
        f"{sign} {key}: {side[key]}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
        for sign, side in (("-", left), ("+", right))
        if key in side
    ]


def without_alembic(catalog: Catalog) -> Catalog:
    """Leave out Alembic's own table."""
    return {key: value for key, value in catalog.items() if "alembic_version" not in key}


def _read(connection: Connection, queries: dict[str, str]) -> Catalog:
    found: Catalog = {}
    for kind, query in queries.items():
        for name, value in connection.exec_driver_sql(query.format(ours=_OURS, **_RIGHTS)):
            found[f"{kind} {name}"] = value or ""
    return found
