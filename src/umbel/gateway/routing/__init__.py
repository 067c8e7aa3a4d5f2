"""Which route answers a request: the map of hosts and paths, and routes that differ in their match."""
