-- The roles of the platform, and its database. Run once as a superuser:
--
--     psql -v admin_password=... -v worker_password=... -v app_password=... -v readonly_password=... -f roles.sql
--
-- Safe to repeat: it sets the passwords anew and leaves the rest. Whoever migrates is kitaab_admin and owns the
-- tables; nobody else does.

SELECT 'CREATE ROLE ' || name || ' LOGIN'
FROM unnest(ARRAY['kitaab_admin', 'kitaab_worker', 'kitaab_app', 'kitaab_readonly']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

SET password_encryption = 'scram-sha-256';
ALTER ROLE kitaab_admin LOGIN PASSWORD :'admin_password';
ALTER ROLE kitaab_worker LOGIN PASSWORD :'worker_password';
ALTER ROLE kitaab_app LOGIN PASSWORD :'app_password';
ALTER ROLE kitaab_readonly LOGIN PASSWORD :'readonly_password';

SELECT 'CREATE DATABASE kitaab OWNER kitaab_admin ENCODING ''UTF8'' TEMPLATE template0'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'kitaab')
\gexec

REVOKE CONNECT ON DATABASE kitaab FROM PUBLIC;
GRANT CONNECT ON DATABASE kitaab TO kitaab_worker, kitaab_app, kitaab_readonly;
