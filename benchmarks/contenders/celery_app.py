"""The Celery application of the caller and of the workers; `BENCHMARKS_REDIS` is the path of redis's socket."""

import os

from celery import Celery

from benchmarks.contenders import task

REDIS = "BENCHMARKS_REDIS"
RESULTS_KEPT_S = 60  # nobody asks later; the default is a day

app = Celery("benchmarks", broker=f"redis+socket://{os.environ[REDIS]}", backend=f"redis+socket://{os.environ[REDIS]}")
app.conf.update(
    task_serializer="pickle",  # JSON has no bytes, and is slower
    result_serializer="pickle",
    accept_content=["pickle"],
    result_accept_content=["pickle"],
    result_expires=RESULTS_KEPT_S,
    result_backend_thread_safe=True,  # one connection for the results of all threads
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    task_send_sent_event=False,
    broker_connection_retry_on_startup=True,
)

transform = app.task(task.transform, name="transform")
