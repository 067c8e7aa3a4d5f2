"""Reading of inbound requests: origin, fields, path, query, body, and the inputs of a plan."""
