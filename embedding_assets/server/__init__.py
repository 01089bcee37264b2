"""The databases: the embedded Postgres, its account, and the installation."""
