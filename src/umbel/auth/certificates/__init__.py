"""Client certificates: of the TLS handshake, or as a proxy reports them."""
