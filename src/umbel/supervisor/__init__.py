"""The supervisor: a master whose slots are tasks, and workers that are processes of their own.

``run_master`` runs the tree; ``python -m umbel.supervisor.worker.worker`` is what it starts. Only the worker loads an
application.
"""
