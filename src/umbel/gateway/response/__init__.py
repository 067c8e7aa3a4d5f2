"""Responses of the gateway: from a composition's result or an error to status, fields and body."""
