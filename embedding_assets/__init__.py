"""Keeps the embeddings of call recordings complete, fresh and searchable in Postgres."""
