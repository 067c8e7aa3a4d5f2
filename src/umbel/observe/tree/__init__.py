"""The task tree of a trio run as data: nurseries, tasks, what each waits for, and the requests and calls within."""
