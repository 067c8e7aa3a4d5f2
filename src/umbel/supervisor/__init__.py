"""The supervisor: a master process with a task for each worker, and the worker processes.

``run.run_master`` runs the master, which starts workers by ``python -m umbel.supervisor.worker.worker``. The workers
load the application and serve it; the master does neither.
"""
