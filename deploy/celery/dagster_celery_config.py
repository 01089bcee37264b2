"""What Celery's workers read, as `dagster_celery.app` looks for a module of this name.

Put this folder on the worker's PYTHONPATH; see docs/deployment.md. The addresses are those that
dagster.yaml names, from the environment: nothing secret is written to a file.
"""

import os

broker_url = os.environ["CELERY_BROKER_URL"]
result_backend = os.environ["CELERY_RESULT_BACKEND"]
database_engine_options = {"pool_pre_ping": True}  # the database is restarted meanwhile
broker_connection_retry_on_startup = True

# A task that a worker has fetched and not begun would, if its host dies, wait an hour
# (visibility_timeout) until Redis gives it to another: so none is fetched before it can begin.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True

# Each run in a process of its own, as under Dagster's default launcher: it takes no memory of the
# last one along, and imports the code that is there now.
worker_max_tasks_per_child = 1
