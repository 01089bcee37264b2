import psycopg


def test_an_empty_database_has_pgvector_and_no_tables(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE EXTENSION vector")
        row = connection.execute("SELECT '[1,2]'::vector(2)::text").fetchone()
        assert row == ("[1,2]",)
