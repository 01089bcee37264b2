"""Embeds the table `chunks` with LangChain's PGVectorStore; run by the peer's own Python.

python benchmarks/peer_langchain.py postgresql://... DIMENSIONS
"""

import sys

from langchain_openai import OpenAIEmbeddings
from langchain_postgres import PGEngine, PGVectorStore
from sqlalchemy import create_engine, text

# Its default, 1,000, makes requests of more tokens than the 300,000 that OpenAI takes at once.
TEXTS_A_REQUEST = 400


def main(url: str, dimensions: int) -> None:
    """Adds all texts in one call, as its documentation does."""
    reader = create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with reader.connect() as connection:
        texts = list(connection.scalars(text("SELECT chunk_text FROM chunks ORDER BY id")))
    engine = PGEngine.from_connection_string(url.replace("postgresql", "postgresql+asyncpg", 1))
    engine.init_vectorstore_table("langchain_vectors", vector_size=dimensions)
    # Counting tokens would send numbers instead of texts, take longer and download a vocabulary.
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small",
        dimensions=dimensions,
        check_embedding_ctx_length=False,
        chunk_size=TEXTS_A_REQUEST,
    )
    store = PGVectorStore.create_sync(engine, embeddings, "langchain_vectors")
    store.add_texts(texts)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
