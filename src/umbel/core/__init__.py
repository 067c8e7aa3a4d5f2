"""Types and interfaces that all parts of Umbel share: errors, events, calls, inbound requests, problem documents."""
