"""Responses of the server itself: error responses, its own fields, and the access record of a request."""
