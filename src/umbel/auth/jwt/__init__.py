"""Authentication by JSON Web Tokens (RFC 7519) that issuers sign (RFC 7515)."""
