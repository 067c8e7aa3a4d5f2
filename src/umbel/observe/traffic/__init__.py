"""Traffic of routes and upstreams as plain data for people: rates, shares and percentiles, made of the figures."""
