"""The supervisor: a master process with one task per worker, and the worker processes.

``run_master`` runs the master, which starts ``python -m umbel.supervisor.worker.worker``. Only the worker loads an
application.
"""
