"""How the platform talks to PostgreSQL: engines, migrations, and which errors are worth another try."""
