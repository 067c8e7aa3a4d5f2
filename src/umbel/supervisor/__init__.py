"""The supervisor: a master process with a task for each worker, and the worker processes.

``run_master`` runs the master, which starts workers by ``python -m umbel.supervisor.worker.worker``. Only workers load
an application.
"""
