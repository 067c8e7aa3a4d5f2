"""What a process shows: its figures and metrics, how those of several processes are added, and its event loop."""
